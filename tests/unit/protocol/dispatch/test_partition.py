# mypy: disable-error-code="var-annotated"
"""The partition dispatcher: each partition with a demand and a queue of its own; a stuck one stops no other."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import DispatchError, OptionError, PartitionDispatcher, SubscriptionError, stable_hash
from tests.unit.protocol.fakes import Bench, Token


def bench(partitions=2, **options):
    options.setdefault("hash", lambda event: event % 2)
    made = Bench(PartitionDispatcher(partitions, **options))
    names = range(partitions) if isinstance(partitions, int) else partitions
    for name in names:
        made.join(name, partition=name)
    return made


def test_each_event_goes_to_its_partition_in_order():
    made = bench()
    made.ask(0, 10)
    made.ask(1, 10)
    assert made.dispatch(range(6)) == []
    assert made.outlet.delivered == [(0, [0, 2, 4]), (1, [1, 3, 5])]


def test_names_may_be_anything_hashable():
    made = bench(["odd", "even"], hash=lambda event: "even" if event % 2 == 0 else "odd")
    made.ask("odd", 5)
    made.ask("even", 5)
    made.dispatch(range(4))
    assert made.outlet.events("odd") == [1, 3]


def test_without_a_hash_whole_numbers_are_spread_by_their_value():
    made = Bench(PartitionDispatcher(3))
    for name in range(3):
        made.join(name, 10, partition=name)
    made.dispatch(range(9))
    assert [made.outlet.events(name) for name in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


@pytest.mark.parametrize("value", ["Grüße", b"x", 1.5, ("a", 1), None, True, -7, "\ud800"])
def test_the_hash_is_a_whole_number_that_only_depends_on_the_value(value):
    assert isinstance(stable_hash(value), int)
    assert stable_hash(value) == stable_hash(value)


def test_the_hash_is_the_same_in_every_process():
    assert [stable_hash(each) for each in (7, "a", b"a", ("a", 1))] == [7, 3904355907, 3904355907, 2745452491]


@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint8])
def test_whole_numbers_of_any_kind_go_to_the_same_partition(kind):
    """The same user must not change partitions since a producer gives arrays instead of lists."""
    assert stable_hash(kind(5)) == 5


def test_a_batch_that_is_all_for_one_partition_is_not_touched():
    made = bench()
    made.ask(0, 10)
    made.ask(1, 10)
    batch = np.array([2, 4, 6])
    made.dispatch(batch)
    assert made.outlet.batches[0][1] is batch


def test_an_array_stays_an_array():
    made = bench()
    made.ask(0, 10)
    made.ask(1, 10)
    made.dispatch(np.arange(6))
    assert all(isinstance(batch, np.ndarray) for _, batch, _ in made.outlet.batches)


def test_the_rows_of_an_arrow_batch_are_routed_one_by_one():
    made = bench(hash=lambda row: row["n"] % 2)
    made.ask(0, 10)
    made.ask(1, 10)
    made.dispatch(pa.record_batch({"n": list(range(6)), "text": list("abcdef")}))
    got = {name: batch.column("n").to_pylist() for name, batch, _ in made.outlet.batches}
    assert got == {0: [0, 2, 4], 1: [1, 3, 5]}


def test_rows_of_a_matrix_stay_rows():
    made = bench(hash=lambda row: int(row[0]) % 2)
    made.ask(0, 10)
    made.ask(1, 10)
    made.dispatch(np.array([[0, 1], [1, 2], [2, 3]]))
    got = {name: batch.tolist() for name, batch, _ in made.outlet.batches}
    assert got == {0: [[0, 1], [2, 3]], 1: [[1, 2]]}


def test_what_is_wanted_is_the_unmet_demand_of_all_partitions():
    made = bench()
    made.ask(0, 4)
    made.ask(1, 6)
    assert made.wanted == 10
    made.dispatch([0, 2, 4, 6, 8])  # one more than partition 0 has asked for
    assert made.outlet.events(0) == [0, 2, 4, 6]
    assert made.dispatcher.queued() == {0: 1}
    assert 0 < made.wanted <= 6, "the other partition still wants something"
    assert made.dispatch([1, 3, 5, 7, 9, 11]) == []
    assert made.outlet.events(1) == [1, 3, 5, 7, 9, 11]


def test_a_stuck_partition_takes_nothing_from_the_others():
    """genstage.md GS-155: there one stuck partition starves all."""
    made = bench(queue_size=1000)
    made.ask(1, 10)
    number = 0
    while len(made.outlet.events(1)) < 500:
        left = made.dispatch(range(number, number + 10))
        number += 10 - len(left)
        record = made.subscribers[1]
        if record.pending <= 5:
            made.ask(1, 10 - record.pending)
        assert made.wanted
    assert made.dispatcher.queued() == {0: 500}
    made.ask(0, 1000)
    assert made.outlet.events(0) == list(range(0, number, 2))


def test_a_full_partition_blocks_until_it_has_room_again():
    made = bench(queue_size=3, stuck="block")
    made.ask(1, 100)
    assert made.dispatch([0, 2, 4, 6, 1]) == [6, 1]
    assert made.wanted == 0
    assert made.dispatch([1]) == [1]
    made.ask(0, 1)
    assert 0 < made.wanted <= 100
    assert made.dispatch([6, 1]) == [1]
    made.ask(0, 3)
    assert made.dispatch([1]) == []
    assert made.outlet.events(0) == [0, 2, 4, 6]


def test_a_full_partition_sheds_its_oldest_and_counts():
    made = bench(queue_size=3, stuck="shed")
    made.ask(1, 100)
    token = Token()
    assert made.dispatch([0, 2, 4, 6, 8, 1], token) == []
    assert made.outlet.events(1) == [1]
    assert made.outlet.discarded == {"partition full": 2}
    assert token.settled == 2
    made.ask(0, 10)
    assert made.outlet.events(0) == [4, 6, 8]


def test_a_full_partition_spills_and_comes_back_in_order():
    made = bench(queue_size=3, stuck="spill")
    made.ask(1, 100)
    for start in range(0, 40, 4):
        made.dispatch(list(range(start, start + 4)))
    assert made.dispatcher.queued() == {0: 20}
    [store] = made.outlet.stores.values()
    assert sum(map(len, store.batches)) == 18, "at most the queue's size stays in memory"
    made.ask(0, 7)
    made.dispatch([40])
    made.ask(0, 100)
    assert made.outlet.events(0) == list(range(0, 41, 2))
    assert made.dispatcher.queued() == {}


def test_events_for_a_partition_without_subscriber_wait_for_one():
    made = Bench(PartitionDispatcher(2, hash=lambda event: event % 2))
    made.join(0, 10, partition=0)
    made.dispatch(range(6))
    made.join("late", 2, partition=1)
    assert made.outlet.events("late") == [1, 3]
    made.ask("late", 5)
    assert made.outlet.events("late") == [1, 3, 5]


def test_a_queue_is_kept_for_the_successor_with_what_was_in_flight_ahead():
    """GS-154: there the queue is thrown away."""
    made = bench()
    made.ask(0, 2)
    made.ask(1, 10)
    made.dispatch([0, 2, 4, 6])
    assert made.leave(0, [([0, 2], 2, None)]) == []
    made.join("next", 10, partition=0)
    assert made.outlet.events("next") == [0, 2, 4, 6]


def test_a_hash_that_answers_none_drops_and_what_is_dropped_stays_wanted():
    """genstage.md Q2: there the producer is never asked again."""
    made = bench(hash=lambda event: None)
    made.ask(0, 10)
    token = Token()
    assert made.dispatch(range(10), token) == []
    assert made.wanted == 10
    assert made.outlet.discarded == {"hash gave none": 10}
    assert token.settled == 10


@pytest.mark.parametrize("wrong", [2, -1, "0", 0.5, [], {}, object()])
def test_an_unknown_partition_costs_that_event_alone(wrong):
    made = bench(hash=lambda event: wrong if event == 3 else event % 2)
    made.ask(0, 10)
    made.ask(1, 10)
    token = Token()
    assert made.dispatch(range(6), token) == []
    assert made.outlet.events(0) == [0, 2, 4]
    assert made.outlet.events(1) == [1, 5]
    assert token.settled == 1
    [error] = made.outlet.reported
    assert isinstance(error, DispatchError)
    assert (error.stage, error.option, error.event) == ("producer", "hash", 3)
    assert "one of the partitions 0, 1" in str(error)


def test_a_hash_that_raises_costs_that_event_alone():
    made = bench(hash=lambda event: 1 // event)
    made.ask(0, 10)
    made.ask(1, 10)
    made.dispatch([0, 1, 2])
    assert made.outlet.discarded == {"hash raised": 1}
    [error] = made.outlet.reported
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert made.outlet.events(1) == [1]


@pytest.mark.parametrize(
    ("partition", "message"), [(None, "missing"), (7, "one of 0, 1"), ([], "one of 0, 1"), (0, "taken")]
)
def test_a_wrong_partition_is_refused_and_changes_nothing(partition, message):
    made = bench()
    made.ask(0, 5)
    with pytest.raises(SubscriptionError, match=message) as caught:
        made.join("new", partition=partition)
    assert (caught.value.consumer, caught.value.missing) == ("new", False)
    assert made.wanted == 5


@pytest.mark.parametrize(
    ("arguments", "options", "option"),
    [
        ((0,), {}, "partitions"),
        ((-1,), {}, "partitions"),
        ((True,), {}, "partitions"),
        (("ab",), {}, "partitions"),
        (([],), {}, "partitions"),
        (([0, 0],), {}, "partitions"),
        ((None,), {}, "partitions"),
        ((["a"],), {}, "hash"),
        ((2,), {"hash": 5}, "hash"),
        ((2,), {"queue_size": 0}, "queue_size"),
        ((2,), {"queue_size": None}, "queue_size"),
        ((2,), {"stuck": "wait"}, "stuck"),
        (([["unhashable"]],), {"hash": len}, "partitions"),
    ],
)
def test_wrong_options_are_refused(arguments, options, option):
    with pytest.raises(OptionError) as caught:
        PartitionDispatcher(*arguments, **options)
    assert caught.value.option == option


def test_an_info_waits_for_every_partition_that_is_backed_up():
    made = bench()
    made.ask(0, 1)
    made.ask(1, 1)
    made.dispatch([0])
    assert not made.dispatcher.hold("nothing waits")
    made.dispatch([2, 4])
    made.ask(1, 4)
    made.dispatch([1])
    assert made.dispatcher.hold("after 4")
    assert not made.outlet.released
    made.ask(0, 1)
    assert not made.outlet.released
    made.ask(0, 1)
    assert made.outlet.released == ["after 4"]


def test_an_info_is_not_held_by_what_comes_later():
    made = bench()
    made.ask(1, 1)
    made.dispatch([0])
    made.dispatcher.hold("after 0")
    made.ask(1, 5)
    made.dispatch([2])
    made.ask(0, 1)
    assert made.outlet.released == ["after 0"]
    assert made.dispatcher.queued() == {0: 1}


def trickle(made, name):
    """Ask one by one, and return the events and infos in the order in which they came."""
    log = made.outlet.released[:]
    made.outlet.released.clear()
    while made.dispatcher.queued():
        made.ask(name, 1)
        log += [each for _, events in made.outlet.take() for each in events] + made.outlet.released
        made.outlet.released.clear()
    return log


@pytest.mark.parametrize(("stuck", "expected"), [("shed", ["after 2", 6, 8]), ("spill", [0, 2, "after 2", 4, 6, 8])])
def test_an_info_passes_before_what_was_shed_or_spilled_later(stuck, expected):
    made = bench(queue_size=2, stuck=stuck)
    made.ask(1, 50)
    made.dispatch([0, 2])
    made.dispatcher.hold("after 2")
    made.dispatch([4, 6, 8])
    assert trickle(made, 0) == expected


def test_an_info_waits_for_what_was_spilled_before_it():
    made = bench(queue_size=2, stuck="spill")
    made.ask(1, 50)
    made.dispatch([0, 2])
    made.dispatch([4, 6])
    made.dispatcher.hold("after 6")
    made.dispatch([8])
    assert trickle(made, 0) == [0, 2, 4, 6, "after 6", 8]


step = st.one_of(
    st.tuples(st.just("ask"), st.integers(0, 2), st.integers(1, 6)),
    st.tuples(st.just("leave"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("dispatch"), st.just(0), st.integers(1, 8)),
)


@given(st.lists(step, max_size=50), st.sampled_from(["block", "shed", "spill"]), st.randoms(use_true_random=False))
def test_order_and_conservation_per_partition(steps, stuck, random):
    """Every event taken is delivered, queued or counted; each partition's events come in order; bounds hold."""
    made = Bench(PartitionDispatcher(3, hash=lambda event: event[0], queue_size=4, stuck=stuck))
    number, taken = 0, Counter()
    for action, name, count in steps:
        if action == "leave":
            if name in made.subscribers:
                made.leave(name)
        elif action == "ask":
            if name not in made.subscribers:
                made.join(name, partition=name)
            made.ask(name, count)
        else:
            batch = [(random.randrange(3), number + index) for index in range(count)]
            wanted = made.wanted
            left = made.dispatch(batch)
            assert len(left) < count or not wanted
            number += count - len(left)
            taken.update(event[0] for event in batch[: count - len(left)])
        queued = made.dispatcher.queued()
        if stuck != "spill":
            assert all(size <= 4 for size in queued.values())
        for each in range(3):
            got = [event[1] for event in made.outlet.events(each)]
            assert got == sorted(set(got))
            if stuck != "shed":
                assert len(got) + queued.get(each, 0) == taken[each]
    delivered = sum(len(events) for _, events in made.outlet.delivered)
    dropped = sum(made.outlet.discarded.values())
    assert delivered + dropped + sum(made.dispatcher.queued().values()) == number
