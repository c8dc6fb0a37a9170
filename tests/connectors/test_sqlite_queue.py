# mypy: disable-error-code="var-annotated,no-untyped-call"
"""`SQLiteQueue` in one process, on a clock of its own."""

import sqlite3

import pytest

from headgate.connectors.sqlite import SQLiteQueue
from headgate.errors import OptionError, StoreError
from headgate.types import Message
from tests.connectors.sqlite_helpers import clock, data, make

__all__ = ["clock", "make"]  # fixtures


# -- putting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload", [None, True, 0, 1.5, "", "ä\n\x00\ud800", [], {"a": [1, {"b": None}]}, b"", b"\x00\xff", 2**80]
)
def test_what_is_put_comes_out(make, payload):
    queue = make()
    number = queue.put(payload)
    (message,) = queue.fetch(5)
    assert message.data == payload
    assert type(message.data) is type(payload)
    assert message.receipt[0] == number
    assert (message.deliveries, message.key, message.deadline, message.metadata) == (1, None, None, {})


def test_everything_about_it_comes_along(make):
    queue = make()
    queue.put("x", key="k", user=7, deadline=2_000_000.0, metadata={"a": 1})
    (message,) = queue.fetch(1)
    assert (message.key, message.deadline, message.metadata) == ("k", 2_000_000.0, {"a": 1, "user": 7})


def test_many_are_put_with_functions_of_each(make):
    queue = make()
    ids = queue.put_many(range(4), key=lambda n: n % 2, user=lambda n: f"u{n}", dedupe=lambda n: str(n // 3))
    assert [number is not None for number in ids] == [True, False, False, True]
    assert [(m.data, m.key, m.metadata["user"]) for m in queue.fetch(9)] == [(0, 0, "u0"), (3, 1, "u3")]
    assert queue.put_many([]) == []


def test_messages_can_be_put(make):
    queue = make()
    message = Message({"a": 1}, {"trace": "t"}, "k")
    message.deadline = 5.0
    queue.put_many([message, Message("other")])
    first, other = queue.fetch(2)
    assert (first.data, first.metadata, first.key, first.deadline) == ({"a": 1}, {"trace": "t"}, "k", 5.0)
    assert (other.data, other.key) == ("other", None)


def test_ids_are_never_used_again(make):
    queue = make()
    assert queue.put_many([1, 2]) == [1, 2]
    queue.ack(queue.fetch(2))
    assert queue.put(3) == 3


def test_priority_goes_first_then_age(make):
    queue = make()
    for number, priority in enumerate([0, 2, -1, 2, 0]):
        queue.put(number, priority=priority)
    assert data(queue.fetch(3)) == [1, 3, 0]
    assert data(queue.fetch(3)) == [4, 2]


def test_a_delay_is_kept(make, clock):
    queue = make()
    queue.put("later", delay=5.0)
    queue.put("now")
    assert data(queue.fetch(5)) == ["now"]
    assert queue.fetch(5) == []
    clock.now += 4.999
    assert queue.fetch(5) == []
    clock.now += 0.001
    assert data(queue.fetch(5)) == ["later"]


def test_a_dedupe_key_is_taken_until_its_message_is_done(make, clock):
    queue = make(max_deliveries=1)
    first = queue.put(1, dedupe="a")
    assert first is not None
    assert queue.put(2, dedupe="a") is None
    assert make(queue="other").put(3, dedupe="a") is not None, "another queue has keys of its own"
    messages = queue.fetch(1)
    assert queue.put(2, dedupe="a") is None, "leased"
    clock.now += 31
    assert queue.fetch(1) == []
    assert queue.put(2, dedupe="a") is None, "dead"
    queue.retry_dead()
    messages = queue.fetch(1)
    queue.ack(messages)
    assert queue.put(2, dedupe="a") is not None


def test_a_dedupe_key_is_free_when_what_is_done_is_kept(make):
    queue = make(keep_done=True)
    queue.put(1, dedupe="a")
    queue.ack(queue.fetch(1))
    assert queue.counts().done == 1
    assert queue.put(2, dedupe="a") is not None


def test_another_codec(make):
    queue = make(encode=lambda number: bytes([number]), decode=lambda body: body[0])
    queue.put(7)
    assert data(queue.fetch(1)) == [7]


def test_what_cannot_be_decoded_is_a_dead_letter_and_the_others_come(make, tmp_path):
    queue = make()
    queue.put_many([1, 2, 3])
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute("UPDATE headgate_messages SET body = '{' WHERE id = 2")
    db.close()
    assert data(queue.fetch(5)) == [1, 3]
    (letter,) = queue.dead_letters()
    assert letter.id == 2
    assert letter.data == "{"
    assert "cannot be decoded: json.decoder.JSONDecodeError" in letter.reason
    assert "Traceback" in letter.traceback
    assert queue.statistics()["unreadable"] == 1


# -- within a transaction of the user's -------------------------------------------------------------------------------


def test_put_in_the_users_own_transaction(make, tmp_path):
    queue = make()
    db = sqlite3.connect(tmp_path / "queue.db")
    db.execute("CREATE TABLE orders (id)")
    with db:
        db.execute("INSERT INTO orders VALUES (1)")
        number = queue.put("order", connection=db, dedupe="o")
        assert queue.put("order", connection=db, dedupe="o") is None
        assert db.in_transaction
        assert queue.fetch(1) == [], "not before the commit"
    assert [m.receipt[0] for m in queue.fetch(1)] == [number]
    db.execute("INSERT INTO orders VALUES (2)")
    queue.put_many([1, 2, 3], connection=db)
    db.rollback()
    assert queue.counts().waiting == 0
    db.close()


def test_a_new_queue_in_a_transaction_that_is_taken_back(make, tmp_path):
    make()
    db = sqlite3.connect(tmp_path / "queue.db")
    other = SQLiteQueue(tmp_path / "queue.db", queue="new")
    other.put(1, connection=db)
    db.rollback()
    other.put(2, connection=db)
    db.commit()
    assert data(other.fetch(5)) == [2]
    other.close()
    db.close()


def test_a_connection_to_another_file_is_refused(make, tmp_path):
    queue = make()
    for file in (":memory:", tmp_path / "other.db"):
        db = sqlite3.connect(file)
        with pytest.raises(OptionError, match="connection"):
            queue.put(1, connection=db)
        db.close()
    with pytest.raises(OptionError, match=r"an sqlite3\.Connection"):
        queue.put(1, connection=object())


def test_an_attached_file_is_found(make, tmp_path):
    queue = make()
    db = sqlite3.connect(tmp_path / "main.db")
    db.execute("ATTACH ? AS queues", (str(tmp_path / "queue.db"),))
    queue.put("there", connection=db)
    db.commit()
    db.close()
    assert data(queue.fetch(1)) == ["there"]


def test_a_transaction_in_a_file_without_a_queue_is_told_what_to_do(tmp_path):
    db = sqlite3.connect(tmp_path / "new.db")
    db.execute("CREATE TABLE orders (id)")
    db.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(StoreError, match=r"call setup\(\) before"):
        SQLiteQueue(tmp_path / "new.db").put(1, connection=db)
    db.close()


# -- leases -----------------------------------------------------------------------------------------------------------


def test_a_lease_that_is_over_is_somebody_elses(make, clock):
    queue, other = make(lease=10), make(lease=10)
    queue.put_many("ab")
    first, second = queue.fetch(2)
    assert other.fetch(2) == []
    clock.now += 9
    assert queue.extend([second], 10) is None
    clock.now += 1
    (again,) = other.fetch(2)
    assert (again.data, again.deliveries) == ("a", 2)
    assert queue.ack([first, second]) == [first]
    assert queue.nack([first]) == [first]
    assert queue.dead_letter([first]) == [first]
    assert queue.extend([first], 5) == [first]
    assert other.ack([again]) is None
    assert other.counts().left == 0
    assert queue.statistics()["lost"] == 4
    assert other.statistics()["reclaimed"] == 1


def test_a_late_acknowledgement_counts_as_long_as_nobody_has_the_message(make, clock):
    queue = make(lease=10)
    queue.put("a")
    messages = queue.fetch(1)
    clock.now += 100
    assert queue.ack(messages) is None
    assert queue.counts().left == 0


def test_a_message_that_kills_its_worker_becomes_a_dead_letter_and_takes_nobody_with_it(make, clock):
    make().put_many([{"deadly": number == 3} for number in range(10)])
    done = []
    queue = make()
    for _ in range(100):
        queue = make(lease=10, max_deliveries=3)
        messages = queue.fetch(5)
        if any(message.data["deadly"] for message in messages):
            clock.now += 11  # it is dead
        else:
            queue.ack(messages)
            done += [message.receipt[0] for message in messages]
    (letter,) = queue.dead_letters()
    assert (letter.id, letter.deliveries) == (4, 3)
    assert letter.reason == "its lease was over 3 time(s): whoever had it died, or was too slow"
    assert sorted(done) == [1, 2, 3, 5, 6, 7, 8, 9, 10]


def test_what_is_given_back_uncounted_was_not_delivered(make):
    queue = make(max_deliveries=2)
    queue.put("a")
    for _ in range(5):
        messages = queue.fetch(1)
        assert messages[0].deliveries == 1
        queue.nack(messages, counted=False)
    queue.nack(queue.fetch(1))
    messages = queue.fetch(1)
    assert messages[0].deliveries == 2
    messages[0].fail(ValueError("bad"))
    queue.nack(messages)
    assert queue.fetch(1) == []
    (letter,) = queue.dead_letters()
    assert (letter.reason, letter.deliveries) == ("ValueError: bad", 2)
    assert letter.traceback == "ValueError: bad\n"


def test_without_a_bound_it_comes_for_ever(make):
    queue = make(max_deliveries=None)
    queue.put("a")
    for number in range(1, 50):
        messages = queue.fetch(1)
        assert messages[0].deliveries == number
        queue.nack(messages)


def test_a_message_that_was_had_twice_is_settled_by_its_newer_receipt(make, clock):
    queue = make(lease=10)
    queue.put("a")
    old = queue.fetch(1)
    clock.now += 11
    new = queue.fetch(1)
    assert queue.ack([*old, *new]) == old


# -- dead letters -----------------------------------------------------------------------------------------------------


def failed(message):
    try:
        raise RuntimeError("boom\nsecond line")
    except RuntimeError as error:
        return message.fail(error)


def test_a_dead_letter_says_why_and_goes_back(make, clock):
    queue = make()
    queue.put_many(range(3), key="k", user="u", metadata={"m": 1})
    queue.dead_letter([failed(message) for message in queue.fetch(2)])
    clock.now += 5
    first, second = queue.dead_letters()
    assert (first.id, first.data, first.key, first.user, first.metadata) == (1, 0, "k", "u", {"m": 1})
    assert first.reason == "RuntimeError: boom second line"
    assert first.traceback.startswith("Traceback")
    assert "raise RuntimeError" in first.traceback
    assert first.ended_at == clock.now - 5
    assert queue.dead_letters(1) == [first]
    assert queue.dead_letters(after=1) == [second]
    assert queue.retry_dead([1, 99], delay=10) == 1
    assert queue.counts().delayed == 1
    clock.now += 10
    assert [(m.data, m.deliveries) for m in queue.fetch(5)] == [(0, 1), (2, 1)]
    assert queue.delete_dead() == 1
    assert queue.dead_letters() == []


def test_reasons_of_all_kinds_are_kept(make):
    class Broken(Exception):
        def __str__(self):
            raise ValueError("no text")

    class Odd:
        def __repr__(self):
            raise ValueError("no repr")

    reasons = ["text", 5, {"a": 1}, Broken(), Odd(), ValueError("\ud800"), "x" * 1_000_000]
    queue = make()
    queue.put_many([None] * len(reasons))
    for message, reason in zip(queue.fetch(10), reasons, strict=True):
        queue.dead_letter([message.fail(reason)])
    letters = queue.dead_letters()
    assert letters[0].reason == "text"
    assert letters[1].reason == "5"
    assert len(letters) == len(reasons)
    assert all(letter.reason and len(letter.reason) < 70_000 for letter in letters)


def test_what_is_done_can_be_kept_and_purged(make, clock):
    queue = make(keep_done=True)
    queue.put_many(range(3))
    first, second, third = queue.fetch(3)
    queue.ack([first])
    clock.now += 100
    assert queue.ack([second, first]) == [first]
    queue.discard([failed(third)])
    assert queue.counts().done == 3
    assert queue.get(third.receipt[0]).reason == "RuntimeError: boom second line"
    assert queue.purge("done", before=clock.now) == 1
    assert queue.purge() == 2
    assert queue.purge("waiting", "delayed", "dead") == 0


# -- looking at it ----------------------------------------------------------------------------------------------------


def test_counts_and_peek(make, clock):
    queue = make(lease=10, max_deliveries=1)
    queue.put_many(range(5), priority=1)
    queue.put(9, delay=5)
    queue.dead_letter(queue.fetch(1))
    queue.fetch(1)
    clock.now += 5
    queue.fetch(1)
    counts = queue.counts()
    assert (counts.waiting, counts.delayed, counts.leased, counts.expired, counts.dead, counts.done) == (
        3,
        0,
        2,
        0,
        1,
        0,
    )
    clock.now += 5
    counts = queue.counts()
    assert (counts.waiting, counts.leased, counts.expired, counts.left) == (3, 1, 1, 5)
    assert [(message.data, message.state) for message in queue.peek(2)] == [(3, "waiting"), (4, "waiting")]
    assert queue.get(1).state == "dead"
    assert queue.get(3).due == clock.now + 5
    assert queue.get(99) is None
    assert queue.queues() == ["default"]


def test_the_end_of_a_queue_that_stops_when_empty(make, clock):
    queue = make(stop_when_empty=True, lease=10)
    other = make(queue="other")
    other.put(1)
    queue.put_many(range(2))
    messages = queue.fetch(2)
    assert queue.fetch(1) == [], "leased"
    queue.nack(messages[:1], 5)
    queue.ack(messages[1:])
    assert queue.fetch(1) == [], "delayed"
    clock.now += 5
    queue.ack(queue.fetch(1))
    assert queue.fetch(1) is None
    queue.put(3)
    assert len(queue.fetch(1)) == 1


def test_after_drain_nothing_is_handed_out(make):
    queue = make()
    queue.put_many(range(2))
    messages = queue.fetch(1)
    queue.drain()
    assert queue.fetch(1) == []
    assert queue.ack(messages) is None
    queue.close()
    queue.open()
    assert len(queue.fetch(1)) == 1


# -- waking -----------------------------------------------------------------------------------------------------------


def test_whoever_reads_in_this_process_is_woken(make):
    queue, producer = make(), make()
    woken = []
    queue.wake = lambda: woken.append(1)
    producer.put(1)
    assert woken == [1]
    queue.nack(queue.fetch(1))
    assert woken == [1, 1]
    make(queue="another").put(1)
    assert woken == [1, 1]
    queue.close()
    producer.put(1)
    assert woken == [1, 1]


def test_a_look_at_an_empty_queue_touches_nothing(make, tmp_path, clock):
    queue = make()
    assert queue.fetch(1) == []
    said = []
    queue._database.connection.set_trace_callback(said.append)
    assert queue.fetch(1) == []
    assert said == ["PRAGMA data_version"]
    with sqlite3.connect(tmp_path / "queue.db") as db:  # somebody else
        db.execute(
            "INSERT INTO headgate_messages (queue, state, priority, deliveries, put_at, body) "
            "VALUES (1, 0, 0, 0, 0, '5')"
        )
    db.close()
    assert data(queue.fetch(1)) == [5]
