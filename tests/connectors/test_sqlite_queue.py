# mypy: disable-error-code="var-annotated,no-untyped-call"
"""`SQLiteQueue` in one process, on a clock of its own."""

import asyncio
import sqlite3
import threading

import pytest

from headgate.connectors.sqlite import SQLiteQueue
from headgate.errors import OptionError, StoreError
from headgate.testing import check_source
from headgate.types import Message


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    made = []

    def opened(**options):
        queue = SQLiteQueue(tmp_path / "queue.db", **{"clock": clock, **options})
        queue.open()
        made.append(queue)
        return queue

    yield opened
    for queue in made:
        queue.close()


def data(messages):
    return [message.data for message in messages]


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


# -- ordered ----------------------------------------------------------------------------------------------------------


def test_ordered_hands_out_one_of_a_key_at_a_time(make):
    queue, other = make(ordered=True), make(ordered=True)
    queue.put_many(range(6), key=lambda n: n % 2)
    first = queue.fetch(10)
    assert data(first) == [0, 1]
    assert other.fetch(10) == queue.fetch(10) == []
    queue.ack(first[:1])
    assert data(other.fetch(10)) == [2]
    queue.nack(first[1:])
    assert data(queue.fetch(10)) == [1]


def test_ordered_hands_out_several_to_the_same_consumer_when_told(make):
    queue, other = make(ordered=True, per_key=3), make(ordered=True, per_key=3)
    queue.put_many(range(8), key="k")
    first = queue.fetch(2)
    assert data(first) == [0, 1]
    assert other.fetch(5) == []
    assert data(queue.fetch(5)) == []  # they stand behind since the other one has passed them over
    queue.ack(first)
    assert data(other.fetch(5)) == [2, 3, 4]
    assert queue.fetch(5) == []


def test_what_is_delayed_or_retried_keeps_the_later_ones_of_its_key_waiting(make, clock):
    queue = make(ordered=True, per_key=10)
    queue.put("a0", key="a", delay=5)
    queue.put_many(["a1", "b0", "b1", "c"], key=lambda text: text[0] if text != "c" else None)
    messages = queue.fetch(10)
    assert data(messages) == ["b0", "b1", "c"]
    queue.nack(messages[:2], 7)
    queue.put("b2", key="b")
    assert queue.fetch(10) == []
    clock.now += 5
    assert data(queue.fetch(10)) == ["a0", "a1"]
    clock.now += 2
    assert data(queue.fetch(10)) == ["b0", "b1", "b2"]


def test_an_urgent_message_brings_the_earlier_ones_of_its_key_forward(make):
    queue = make(ordered=True, per_key=10)
    queue.put("a0", key="a")
    queue.put("b0", key="b")
    queue.put("b1", key="b", priority=5)
    assert data(queue.fetch(1)) == ["b0"]
    assert data(queue.fetch(5)) == ["b1", "a0"]


def test_a_dead_one_does_not_keep_its_key_waiting(make, clock):
    queue, other = make(ordered=True, max_deliveries=1, lease=10), make(ordered=True, lease=10)
    queue.put_many(range(3), key="k")
    queue.fetch(1)
    assert other.fetch(5) == []
    clock.now += 10
    assert data(queue.fetch(5)) == [1]
    assert [letter.data for letter in queue.dead_letters()] == [0]


def test_a_long_queue_of_a_stuck_key_is_passed_over_once(make):
    queue, other = make(ordered=True), make(ordered=True)
    queue.put_many(range(12_000), key="stuck")
    assert data(other.fetch(1)) == [0]
    queue.put_many(range(50), key=lambda n: n)
    woken = []
    queue.wake = lambda: woken.append(1)
    fetches = 0
    while not (messages := queue.fetch(10)):
        fetches += 1
        assert len(woken) == fetches, "it says that there is more"
    assert 1 <= fetches <= 3
    assert data(messages) == list(range(10))
    said = []
    queue._database.connection.set_trace_callback(said.append)
    assert data(queue.fetch(10)) == list(range(10, 20))
    assert len(said) < 40


def test_consumers_agree_whether_the_queue_is_ordered(make):
    queue = make(ordered=True)
    queue.put_many(range(3), key="k")
    messages = queue.fetch(1)
    with pytest.raises(OptionError, match=r"expected option 'ordered' to be True, as messages are out"):
        make()
    queue.ack(messages)
    other = make()
    assert data(other.fetch(5)) == [1, 2]
    with pytest.raises(StoreError, match="opened by somebody else with ordered=False"):
        queue.fetch(1)


def test_purging_leaves_nobody_behind(make):
    queue = make(ordered=True)
    queue.put("a0", key="a", delay=50)
    queue.put("a1", key="a")
    assert queue.fetch(5) == []
    assert queue.purge("delayed") == 1
    assert data(queue.fetch(5)) == ["a1"]


# -- fair -------------------------------------------------------------------------------------------------------------


def test_users_take_turns(make):
    queue = make(fair=True)
    queue.put_many([("big", n) for n in range(1000)], user="big")
    queue.put_many([("small", n) for n in range(10)], user="small")
    queue.put_many([("nobody", n) for n in range(3)])
    got = [user for user, _ in data(queue.fetch(16))]
    assert got == ["nobody", "big", "small"] * 3 + ["big", "small"] * 3 + ["big"]
    assert [user for user, _ in data(queue.fetch(4))] == ["small", "big", "small", "big"]


def test_the_round_goes_on_with_whoever_claims_next(make):
    got = []
    make(fair=True).put_many(range(12), user=lambda n: "abc"[n % 3])
    for _ in range(6):
        got += [message.metadata["user"] for message in make(fair=True).fetch(1)]
    assert got == list("abcabc")


def test_priorities_count_within_a_user(make):
    queue = make(fair=True)
    queue.put("a0", user="a")
    queue.put("a1", user="a", priority=9)
    queue.put("b0", user="b")
    assert data(queue.fetch(3)) == ["a1", "b0", "a0"]


@pytest.mark.parametrize("per_key", [1, 2])
def test_fair_and_ordered_go_together(make, per_key):
    queue = make(fair=True, ordered=True, per_key=per_key)
    queue.put_many([f"a{n}" for n in range(50)], user="a", key="talk")
    queue.put_many(["b0", "b1"], user="b", key="chat")
    assert sorted(data(queue.fetch(2))) == ["a0", "b0"]
    assert sorted(data(queue.fetch(5))) == ([] if per_key == 1 else ["a1", "b1"])


# -- the file ---------------------------------------------------------------------------------------------------------


def test_puts_of_many_threads(make):
    queue = make()

    def put(first):
        for number in range(first, first + 20):
            queue.put(number)

    threads = [threading.Thread(target=put, args=(first,)) for first in range(0, 100, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(data(queue.fetch(200))) == list(range(100))


def test_tasks_put_together(make):
    queue = make()
    commits = []

    def insert(rows):
        commits.append(len(rows))
        return queue._insert(rows)

    queue._group._insert = insert

    async def main():
        ids = await asyncio.gather(*(queue.aput(number) for number in range(100)))
        assert len(set(ids)) == 100
        assert await queue.aput("x", dedupe="d") is not None
        assert await queue.aput("x", dedupe="d") is None
        assert len(await queue.aput_many(range(3), priority=-1)) == 3
        with pytest.raises(OptionError):
            await queue.aput(object())

    asyncio.run(main())
    assert len(commits) < 20
    assert sum(commits) == 102
    asyncio.run(main_of_another_loop(queue))


async def main_of_another_loop(queue):
    assert await queue.aput(1) is not None


def test_an_error_of_a_commit_goes_to_those_who_wait(make):
    queue = make()
    failures = [StoreError("queue.db", "put", "disk full", "make room")]

    def insert(rows):
        if failures:
            raise failures.pop()
        return queue._insert(rows)

    queue._group._insert = insert

    async def main():
        first = asyncio.ensure_future(queue.aput(1))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(queue.aput(2))
        with pytest.raises(StoreError):
            await first
        assert await second is not None

    asyncio.run(main())


def test_bulk_loads_are_analysed_and_claims_use_the_same_indexes(make, tmp_path):
    queue = make()
    queue.put_many(range(10_000))
    db = sqlite3.connect(tmp_path / "queue.db")
    assert db.execute("SELECT count(*) FROM sqlite_stat1 WHERE tbl = 'headgate_messages'").fetchone()[0] > 0
    db.close()
    assert len(queue.fetch(100)) == 100


def test_a_file_that_somebody_keeps_locked_is_an_error_after_a_while(tmp_path):
    naps = []
    queue = SQLiteQueue(tmp_path / "queue.db", patience=1.0, sleep=naps.append, chance=lambda: 0.5)
    queue.put(0)
    queue.open()
    empty = SQLiteQueue(tmp_path / "queue.db", queue="empty", sleep=naps.append)
    empty.open()
    db = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    assert empty.fetch(1) == [], "where nothing is to be had nobody has to wait"
    for call in (lambda: queue.put(1), lambda: queue.put_many([1, 2]), lambda: queue.fetch(1)):
        naps.clear()
        with pytest.raises(StoreError, match=r"queue\.db: cannot \w+: other connections have kept it locked for 1 s"):
            call()
        assert 1.0 <= sum(naps) < 1.01
        assert set(naps) == {0.0001 + 0.0019 / 2}
    db.execute("ROLLBACK")
    assert queue.put(1) == 2
    assert queue.statistics()["waited"] > 2.9
    queue.close()
    empty.close()
    db.close()


def test_a_newer_schema_is_refused(make, tmp_path):
    make()
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute("UPDATE headgate_queue_meta SET value = 99 WHERE name = 'schema_version'")
    queue = SQLiteQueue(tmp_path / "queue.db")
    with pytest.raises(StoreError, match=r"newer version of headgate \(schema 99, here 1\); install that version"):
        queue.put(1)
    with pytest.raises(StoreError, match="newer version"):
        queue.put(1, connection=db)
    db.close()


@pytest.mark.parametrize("durability", ["normal", "power"])
def test_durability(make, durability):
    queue = make(durability=durability)
    assert (
        queue._database.connection.execute("PRAGMA synchronous").fetchone()[0] == {"normal": 1, "power": 2}[durability]
    )
    assert queue._database.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


# -- the protocol -----------------------------------------------------------------------------------------------------

PEERS = {"plain": {}, "ordered": {"ordered": True}, "fair": {"fair": True}, "both": {"ordered": True, "fair": True}}


@pytest.mark.slow
@pytest.mark.parametrize("options", PEERS.values(), ids=PEERS)
def test_it_keeps_what_sources_promise(tmp_path, options):
    clock = Clock()
    made = []

    def make():
        queue = SQLiteQueue(tmp_path / f"{len(made)}.db", poll=0.005, clock=clock, lease=30.0, **options)
        made.append(queue)
        return queue

    def peer(queue):
        return SQLiteQueue(queue.path, poll=0.005, clock=clock, lease=30.0, **options)

    def sleep(seconds):
        clock.now += seconds

    report = check_source(
        make,
        put=lambda queue, payloads: queue.put_many(
            payloads, key=lambda payload: payload["key"], user=lambda payload: payload["number"] % 3
        ),
        peer=peer,
        letters=lambda queue: [letter.data["number"] for letter in queue.dead_letters()],
        sleep=sleep,
        delay=5.0,
        patience=2.0,
        quiet=0.03,
        seeds=range(5),
    )
    assert set(report.skipped) <= {"fetch-recovers", "fetch-end", "nack-after-end", "order", "order-nack"}
    assert ("order" in report.ran) is ("ordered" in options)
    assert {"lease-expires", "lease-extended", "rivals", "max-deliveries", "letter-kept", "script"} <= set(report.ran)
