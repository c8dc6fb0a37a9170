# mypy: disable-error-code="var-annotated"
"""The demand dispatcher: each event to one subscriber, in turn; nobody starves, whatever the sizes of the demands."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import DemandDispatcher, OptionError
from tests.unit.protocol.fakes import Bench


def bench(*consumers, **options):
    made = Bench(DemandDispatcher(**options))
    for name, ask in consumers:
        made.join(name, ask)
    return made


def test_nothing_is_wanted_and_nothing_taken_without_demand():
    made = bench(("a", 0))
    assert made.wanted == 0
    assert made.dispatch([1, 2]) == [1, 2]
    assert bench().dispatch([1]) == [1]


def test_what_is_wanted_is_the_sum_of_what_is_pending():
    made = bench(("a", 5), ("b", 3))
    assert made.wanted == 8
    made.dispatch([1, 2])
    assert made.wanted == 6
    made.ask("a", 4)
    assert made.wanted == 10
    made.leave("b")
    assert made.wanted == made.subscribers["a"].pending


def test_a_batch_goes_whole_to_whom_it_fits():
    made = bench(("a", 5))
    batch = [1, 2, 3]
    made.dispatch(batch)
    assert made.outlet.batches[0][1] is batch


def test_a_batch_that_exceeds_a_demand_goes_on_to_the_next_and_the_rest_is_left():
    made = bench(("a", 2), ("b", 1))
    assert made.dispatch([1, 2, 3, 4, 5]) == [4, 5]
    assert made.outlet.delivered == [("a", [1, 2]), ("b", [3])]


def test_an_array_is_cut_without_copying():
    made = bench(("a", 2), ("b", 3))
    batch = np.arange(5)
    made.dispatch(batch)
    assert all(np.shares_memory(batch, part) for _, part, _ in made.outlet.batches)


def test_subscribers_are_served_in_turn():
    made = bench(("a", 50), ("b", 50), ("c", 50))
    for number in range(6):
        made.dispatch([number])
    assert [name for name, _ in made.outlet.delivered] == ["a", "b", "c", "a", "b", "c"]


def test_a_demand_of_a_thousand_does_not_starve_one_of_ten():
    """genstage.md GS-136: there it is 2000 events to 0."""
    made = bench(("big", 1000), ("small", 10))
    for number in range(400):
        made.dispatch([number] * 5)
        for name, most in (("big", 1000), ("small", 10)):
            record = made.subscribers[name]
            if record.pending <= most // 2:
                made.ask(name, most - record.pending)
    shares = Counter(name for name, _ in made.outlet.delivered)
    assert abs(shares["big"] - shares["small"]) <= 1


def test_weight_is_the_number_of_turns_in_a_row():
    made = Bench(DemandDispatcher())
    made.join("a", 1000, weight=3)
    made.join("b", 1000)
    for number in range(400):
        made.dispatch([number])
    order = "".join(name for name, _ in made.outlet.delivered)
    assert order == "aaab" * 100


def test_one_stage_may_subscribe_twice():
    made = Bench(DemandDispatcher())
    first = made.join("a", 1)
    second = made.join("a", 1)
    assert made.dispatch([1, 2, 3]) == [3]
    assert (first.sent, second.sent) == (1, 1)


def test_who_leaves_takes_its_demand_along_and_gives_its_events_back():
    made = bench(("a", 5), ("b", 2))
    assert made.leave("a", [([1], 1, None)]) == [([1], 1, None)]
    assert made.wanted == 2
    assert made.dispatch([1, 2, 3]) == [3]
    assert made.leave("b") == []
    assert made.wanted == 0


def test_who_leaves_without_demand_changes_nothing_for_the_others():
    made = bench(("a", 0), ("b", 2))
    made.leave("a")
    assert made.wanted == 2


def test_the_largest_demand_first_is_the_originals_order():
    """GS-133, GS-135: behind equals, in front of strictly smaller ones; greedy."""
    made = bench(("a", 10), ("b", 20), ("c", 20), order="largest")
    for _ in range(3):
        made.dispatch([0] * 5)
    assert [name for name, _ in made.outlet.delivered] == ["b", "c", "b"]
    made = bench(("a", 50), ("b", 50), ("c", 50), ("d", 50), order="largest")
    made.dispatch(range(100))
    assert [name for name, _ in made.outlet.delivered] == ["a", "b"]


def test_an_ask_moves_a_subscriber_up_under_the_largest_first():
    made = bench(("a", 10), ("b", 5), order="largest")
    made.ask("b", 20)
    made.dispatch([1])
    assert made.outlet.delivered == [("b", [1])]
    assert made.wanted == 34


def test_a_shuffle_happens_once_at_the_first_dispatch():
    made = bench(("a", 1), ("b", 1), ("c", 1), shuffle=True)
    made.dispatch([1])
    assert made.outlet.delivered == [("c", [1])]
    made.dispatch([2, 3])
    assert [name for name, _ in made.outlet.delivered] == ["c", "b", "a"]


def test_a_greedy_ask_is_warned_of_and_honoured():
    made = bench(("a", 11), max_demand=10)
    assert made.wanted == 11
    [warning] = made.outlet.warned
    assert "11" in warning
    assert "10" in warning
    made = bench(("a", 10), max_demand=10)
    assert not made.outlet.warned


@pytest.mark.parametrize("options", [{"order": "random"}, {"order": None}, {"max_demand": 0}, {"max_demand": "5"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(OptionError) as caught:
        DemandDispatcher(**options)
    assert caught.value.option == next(iter(options))
    assert caught.value.where == "DemandDispatcher"


actions = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from("abcd"), st.integers(1, 20)),
    st.tuples(st.just("dispatch"), st.just(""), st.integers(1, 15)),
)


@given(st.lists(actions, max_size=60), st.fixed_dictionaries({name: st.integers(1, 3) for name in "abcd"}))
def test_while_somebody_waits_nobody_else_gets_more_than_its_turns(steps, weights):
    """Fairness: between two services of a subscriber with demand, any other is served at most `weight` times."""
    made = Bench(DemandDispatcher())
    for name, weight in weights.items():
        made.join(name, weight=weight)
    served = {name: Counter() for name in weights}  # who was served since this one waits
    for action, name, count in steps:
        if action == "ask":
            made.ask(name, count)
            continue
        made.outlet.take()
        left = made.dispatch(range(count))
        assert not left or made.wanted == 0, "work conserving: nothing is left while somebody wants it"
        for who, _events in made.outlet.delivered:
            served[who].clear()
            for other, counts in served.items():
                if other != who and made.subscribers[other].pending:
                    counts[who] += 1
                    assert counts[who] <= weights[who]
        for other, counts in served.items():
            if not made.subscribers[other].pending:
                counts.clear()
        assert made.wanted == sum(each.pending for each in made.subscribers.values())


@given(
    st.lists(st.one_of(actions, st.tuples(st.just("leave"), st.sampled_from("abcd"), st.just(0))), max_size=60),
    st.sampled_from(["turn", "largest"]),
)
def test_every_event_goes_to_exactly_one_in_order_and_demand_is_never_exceeded(steps, order):
    made, number, left = Bench(DemandDispatcher(order=order)), 0, 0
    for action, name, count in steps:
        if action == "leave":
            if name in made.subscribers:
                made.leave(name)
        elif action == "ask":
            if name not in made.subscribers:
                made.join(name)
            made.ask(name, count)
        else:
            batch = list(range(number, number + count))
            number += count
            left += len(made.dispatch(batch))
        assert made.wanted == sum(each.pending for each in made.subscribers.values())
    events = [event for _, batch in made.outlet.delivered for event in batch]
    assert events == sorted(events)
    assert len(events) + left == number
