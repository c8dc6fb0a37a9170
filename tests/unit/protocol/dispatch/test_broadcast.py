"""The broadcast dispatcher: every event to every subscriber, and what the slow ones cost."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import BroadcastDispatcher, DispatchError, OptionError, SubscriptionError
from headgate.protocol.ledger import Origin
from tests.unit.protocol.fakes import Bench


def bench(*consumers, **options):
    made = Bench(BroadcastDispatcher(**options))
    for name, ask in consumers:
        made.join(name, ask)
    return made


def test_everybody_gets_the_same_batch_object():
    made = bench(("a", 5), ("b", 5))
    batch = np.arange(3)
    assert made.dispatch(batch) == []
    assert [(name, each is batch) for name, each, _ in made.outlet.batches] == [("a", True), ("b", True)]


def test_the_smallest_demand_is_wanted():
    made = bench(("a", 10), ("b", 20))
    assert made.wanted == 10
    assert made.dispatch(range(15)) == [10, 11, 12, 13, 14]
    assert made.wanted == 0
    made.ask("a", 5)
    assert made.wanted == 5


def test_who_never_asks_holds_up_all_until_it_leaves():
    made = bench(("a", 10), ("b", 0))
    assert made.wanted == 0
    assert made.dispatch([1]) == [1]
    made.leave("b")
    assert made.wanted == 10
    assert made.dispatch([1]) == []


def test_without_subscribers_nothing_is_taken():
    assert bench().dispatch([1]) == [1]


def test_a_late_joiner_gets_what_comes_after_it():
    made = bench(("a", 10))
    made.dispatch([1, 2])
    made.join("b", 10)
    made.dispatch([3])
    assert made.outlet.events("a") == [1, 2, 3]
    assert made.outlet.events("b") == [3]


def test_a_replacement_is_served_after_the_others_have_left():
    """genstage.md Q1: there it never is."""
    made = bench(("a", 10))
    made.leave("a")
    assert made.wanted == 0
    assert made.dispatch([1, 2, 3]) == [1, 2, 3]
    made.join("b", 10)
    assert made.wanted == 10
    assert made.dispatch([1, 2, 3]) == []
    assert made.outlet.events("b") == [1, 2, 3]


def test_a_selector_chooses_and_what_it_refuses_costs_no_demand():
    made = Bench(BroadcastDispatcher())
    made.join("even", 10, selector=lambda event: event % 2 == 0)
    made.join("all", 10)
    made.dispatch(range(6))
    assert made.outlet.events("even") == [0, 2, 4]
    assert made.outlet.events("all") == list(range(6))
    assert made.subscribers["even"].pending == 7
    made.ask("all", 6)
    assert made.wanted == 7


def test_a_selector_that_refuses_all_sends_no_empty_batch():
    made = Bench(BroadcastDispatcher())
    made.join("none", 5, selector=lambda event: False)
    assert made.dispatch(range(100)) == []
    assert not made.outlet.batches
    assert made.wanted == 5


def test_a_selector_keeps_arrays_arrays():
    made = Bench(BroadcastDispatcher())
    made.join("a", 10, selector=lambda event: event > 2)
    made.dispatch(np.arange(5))
    [(_, batch, _)] = made.outlet.batches
    assert isinstance(batch, np.ndarray)
    assert batch.tolist() == [3, 4]


def test_a_selector_that_raises_costs_only_its_own_subscription():
    made = Bench(BroadcastDispatcher())
    made.join("bad", 10, selector=lambda event: 1 / event)
    made.join("good", 10)
    assert made.dispatch([1, 0, 2]) == []
    assert made.outlet.events("good") == [1, 0, 2]
    [error] = made.outlet.reported
    assert isinstance(error, DispatchError)
    assert (error.stage, error.option, error.event) == ("producer", "selector", 0)
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert [(record.address, reason) for record, reason in made.outlet.detached] == [("bad", error)]


def test_a_consumer_subscribes_once():
    made = bench(("a", 10))
    with pytest.raises(SubscriptionError, match="has one already"):
        made.join("a")
    assert made.wanted == 10


def test_a_selector_that_cannot_be_called_is_refused():
    made = bench(("a", 10))
    with pytest.raises(SubscriptionError, match="selector"):
        made.join("b", selector="even")
    assert made.wanted == 10


def test_nothing_is_dispatched_before_enough_have_come():
    made = bench(("a", 10), wait_for=2)
    assert made.wanted == 0
    made.join("b", 10)
    assert made.wanted == 10
    made.leave("b")
    assert made.wanted == 10, "once is enough"


def test_a_late_joiner_may_have_the_last_events_again():
    made = bench(("a", 10), replay=2)
    made.dispatch([1, 2, 3])
    made.join("b")
    assert made.dispatcher.queued() == {made.subscribers["b"].subscription: 2}
    made.ask("b", 10)
    assert made.outlet.events("b") == [2, 3]
    assert made.wanted == 7


def test_a_replay_passes_the_selector():
    made = bench(("a", 10), replay=5)
    made.dispatch([1, 2, 3])
    made.join("b", 10, selector=lambda event: event != 2)
    assert made.outlet.events("b") == [1, 3]


def test_dropping_lets_the_fastest_set_the_pace_and_counts():
    made = bench(("fast", 100), ("slow", 2), slow="drop", lag=3)
    assert made.wanted == 100
    assert made.dispatch(range(10)) == []
    assert made.outlet.events("fast") == list(range(10))
    assert made.outlet.events("slow") == [0, 1]
    assert made.outlet.discarded == {"slow subscriber": 5}
    made.ask("slow", 10)
    assert made.outlet.events("slow") == [0, 1, 7, 8, 9], "the oldest were dropped"


def test_a_lag_that_is_within_the_bound_costs_nothing():
    made = bench(("fast", 100), ("slow", 2), slow="drop", lag=8)
    made.dispatch(range(10))
    made.ask("slow", 100)
    assert made.outlet.events("slow") == list(range(10))
    assert not made.outlet.discarded


def test_detaching_cancels_who_lags_too_far():
    made = bench(("fast", 100), ("slow", 2), slow="detach", lag=3)
    made.dispatch(range(5))
    assert not made.outlet.detached
    made.dispatch([5])
    assert [(record.address, reason) for record, reason in made.outlet.detached] == [("slow", ("lagged", 4))]
    assert made.outlet.events("fast") == [0, 1, 2, 3, 4, 5]


def test_what_a_leaver_did_not_handle_is_counted_not_given_to_others():
    made = bench(("fast", 100), ("slow", 2), slow="drop", lag=10)
    made.dispatch(range(5))
    assert made.leave("slow", [([0, 1], 2, None)]) == []
    assert made.outlet.discarded == {"subscriber left": 5}
    assert made.outlet.events("fast") == [0, 1, 2, 3, 4]


def test_an_input_of_a_middle_stage_is_settled_when_every_copy_is():
    class Owner:
        settled = 0

        def origin_settled(self, window):
            self.settled += 1

    owner = Owner()
    origin = Origin(1, owner, None)
    origin.left += 4 - 1  # four outputs, and the handler has returned
    made = Bench(BroadcastDispatcher())
    made.join("all", 10)
    made.join("even", 10, selector=lambda event: event % 2 == 0)
    made.dispatch(range(4), origin)
    assert origin.left == 6, "four copies for one, two for the other"
    origin.settle(6)
    assert owner.settled == 1


@pytest.mark.parametrize(
    "options",
    [
        {"slow": "wait"},
        {"lag": -1},
        {"lag": True},
        {"replay": -1},
        {"replay": 1.5},
        {"wait_for": "2"},
        {"wait_for": -1},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(OptionError) as caught:
        BroadcastDispatcher(**options)
    assert caught.value.option == next(iter(options))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["ask", "ask", "leave"]), st.sampled_from("abc"), st.integers(1, 8)),
            st.tuples(st.just("dispatch"), st.just(""), st.integers(1, 8)),
        ),
        max_size=40,
    ),
    st.sampled_from(["block", "drop"]),
)
def test_whoever_is_there_gets_everything_that_is_dispatched_meanwhile(steps, slow):
    """In order, without gaps under "block"; with counted gaps under "drop"."""
    made = Bench(BroadcastDispatcher(slow=slow, lag=5))
    number, since = 0, {}
    for action, name, count in steps:
        if action == "leave":
            if name in made.subscribers:
                made.leave(name)
                made.outlet.delivered = [each for each in made.outlet.delivered if each[0] != name]
        elif action == "ask":
            if name not in made.subscribers:
                made.join(name)
                since[name] = number
            made.ask(name, count)
        else:
            left = made.dispatch(list(range(number, number + count)))
            assert not left or made.wanted == 0
            number += count - len(left)
        pending = [each.pending for each in made.subscribers.values()]
        if slow == "block":
            assert made.wanted == min(pending, default=0)
            assert not any(made.dispatcher.queued().values())
        for each in made.subscribers:
            got = made.outlet.events(each)
            if slow == "block":
                assert got == list(range(since[each], number))
            else:
                assert got == sorted(set(got))
                assert made.dispatcher.queued().get(made.subscribers[each].subscription, 0) <= 5
