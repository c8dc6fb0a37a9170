# mypy: disable-error-code="var-annotated,no-untyped-call"
"""Order by key and turns of users in `SQLiteQueue`."""

import pytest

from headgate.errors import OptionError, StoreError
from tests.connectors.sqlite_helpers import clock, data, make

__all__ = ["clock", "make"]  # fixtures


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
