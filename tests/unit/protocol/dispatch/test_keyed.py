# mypy: disable-error-code="arg-type,dict-item,var-annotated"
"""Whose event is next: deficit round robin over keys, and priority with ageing."""

from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import DispatchError, FairDispatcher, OptionError, PriorityDispatcher
from headgate.protocol.producer import ProducerSide
from tests.unit.protocol.fakes import Port, Token, subscription


class Side:
    """A producing side with such a dispatcher; `serve` takes events as consumers would, one after the other."""

    def __init__(self, dispatcher, **options):
        self.port = Port("producer")
        options = {"buffer_size": None, "buffer_keep": None, "delivery": "at_least_once", **options}
        self.side = ProducerSide(self.port, dispatcher, deque(), **options)
        self.queue = self.side.queue
        self.subscriptions = {}

    def put(self, batch, token=None, **options):
        return self.side.emit(batch, len(batch), token, **options)

    def join(self, name="consumer"):
        made = self.subscriptions[name] = subscription(name)
        self.side.subscribe(made)
        return self.side.subscribers[made]

    def ask(self, count, name="consumer", acked=None):
        """Ask for so many more; unless said otherwise, all before is acknowledged."""
        if name not in self.subscriptions:
            self.join(name)
        record = self.side.subscribers[self.subscriptions[name]]
        self.side.ask(record.subscription, record.asked + count, record.sent if acked is None else acked)
        return [event for _, events in self.port.events() for event in events]

    def leave(self, name="consumer", acked=0):
        self.side.leave(self.subscriptions.pop(name), acked, acked)


def fair(**options):
    return Side(FairDispatcher(lambda event: event[0], **options))


def events(key, count, start=0):
    return [(key, number) for number in range(start, start + count)]


def order(taken):
    return "".join(key for key, _ in taken)


def test_keys_take_turns_whatever_the_order_of_their_events():
    side = fair()
    side.put(events("a", 4))
    side.put(events("b", 2))
    side.put(events("c", 1))
    assert order(side.ask(7)) == "abcabaa"


def test_a_keys_own_events_stay_in_order():
    side = fair()
    side.put(events("a", 3) + events("b", 3))
    side.put(events("a", 3, 3))
    taken = side.ask(100)
    assert [event for event in taken if event[0] == "a"] == events("a", 6)


def test_a_user_with_many_events_delays_one_with_few_by_no_more_than_a_round():
    """A user with 100,000 events, and then one with 10 comes."""
    side = fair()
    side.put(events("a", 100_000))
    side.ask(1000)
    side.put(events("b", 10))
    assert order(side.ask(20)) in ("ab" * 10, "ba" * 10)


def test_a_quantum_is_what_one_round_gives():
    side = fair(quantum=3)
    side.put(events("a", 7) + events("b", 4))
    assert order(side.ask(11)) == "aaabbbaaaba"


def test_weights_are_exact_over_whole_rounds():
    side = fair(weights={"a": 5, "b": 2})
    for key in "abc":
        side.put(events(key, 1000))
    for rounds in (1, 7, 50):
        assert Counter(order(side.ask(8 * rounds))) == {"a": 5 * rounds, "b": 2 * rounds, "c": rounds}


def test_weights_are_exact_even_if_demand_comes_in_odd_pieces():
    side = fair(weights=lambda key: {"a": 3}.get(key, 1), quantum=2)
    for key in "ab":
        side.put(events(key, 2000))
    taken = "".join(order(side.ask(1 + number % 7)) for number in range(400))
    whole = len(taken) // 8
    assert taken[: whole * 8] == "aaaaaabb" * whole


def test_a_key_that_was_away_has_saved_up_nothing():
    side = fair()
    side.put(events("a", 100))
    side.put(events("b", 1))
    side.ask(50)
    side.put(events("b", 10, 1))
    assert order(side.ask(6)).count("b") == 3


def test_a_cap_bounds_what_is_in_flight_per_key():
    side = fair(cap=2)
    side.put(events("a", 10) + events("b", 1))
    assert order(side.ask(100)) == "aba"
    assert side.queue.ready() == 0
    assert side.side.need() > 0, "others' events are still wanted"
    assert order(side.ask(0, acked=1)) == "a"
    assert order(side.ask(0, acked=4)) == "aa"


def test_a_cap_holds_over_several_consumers():
    side = fair(cap=3)
    side.put(events("a", 10))
    assert len(side.ask(2, "x")) == 2
    assert len(side.ask(5, "y", acked=0)) == 1
    assert len(side.ask(5, "x", acked=2)) == 2


def test_what_a_leaving_consumer_had_no_longer_counts_against_the_cap():
    side = fair(cap=2)
    side.put(events("a", 5))
    assert side.ask(5, "x") == events("a", 2)
    side.leave("x")
    assert side.ask(5, "y") == events("a", 2), "the same events, first"
    assert side.ask(0, "y", acked=2) == events("a", 2, 2)


def test_keys_that_are_gone_leave_nothing_behind():
    side = fair(cap=2)
    for number in range(1000):
        side.put(events(number, 3))
        side.ask(3)
        side.ask(3)
    side.ask(0)
    assert not side.queue._keys
    assert not side.queue._round
    assert side.queue.size == side.queue.ready() == 0


def test_what_comes_back_is_first_of_its_key():
    side = fair()
    side.put(events("a", 3) + events("b", 3))
    assert order(side.ask(4, "x")) == "abab"
    side.leave("x", acked=1)
    taken = side.ask(10, "y")
    assert [event for event in taken if event[0] == "a"] == events("a", 2, 1)
    assert [event for event in taken if event[0] == "b"] == events("b", 3)


def test_a_key_that_raises_costs_that_event_alone():
    side = Side(FairDispatcher(lambda event: 1 // event))
    token = Token()
    side.put([1, 0, 2], token)
    assert sorted(side.ask(10)) == [1, 2]
    [error] = side.port.errors
    assert isinstance(error, DispatchError)
    assert (error.option, error.event) == ("key", 0)
    assert side.side.discarded == {"key raised": 1}
    assert token.settled == 1


@pytest.mark.parametrize("key", [[], {}, {1}])
def test_a_key_that_cannot_be_hashed_costs_that_event_alone(key):
    side = Side(FairDispatcher(lambda event: key if event == 1 else event))
    side.put([0, 1, 2])
    assert side.ask(10) == [0, 2]
    assert side.port.errors[0].event == 1


@pytest.mark.parametrize("weight", [0, -1, 1.5, None, "2", True])
def test_a_weight_that_is_none_costs_that_event_alone(weight):
    side = Side(FairDispatcher(lambda event: event, weights=lambda key: weight if key == 1 else 1))
    side.put([0, 1, 2])
    assert side.ask(10) == [0, 2]
    assert side.port.errors[0].option == "key"


def test_a_full_buffer_drops_from_whom_has_most():
    side = Side(FairDispatcher(lambda event: event[0]), buffer_size=6, buffer_keep="last")
    side.put(events("a", 6))
    side.put(events("b", 2))
    assert Counter(order(side.ask(100))) == {"a": 4, "b": 2}
    assert side.side.discarded == {"buffer full": 2}


def test_a_full_buffer_hands_back_what_it_refuses():
    side = Side(FairDispatcher(lambda event: event[0]), buffer_size=3)
    assert side.put(events("a", 5)) == events("a", 2)
    assert side.side.discarded == {"buffer full": 2}


def test_keys_of_an_array_are_those_of_its_elements():
    side = Side(FairDispatcher(lambda event: int(event) % 2))
    side.put(np.array([0, 2, 4, 1, 3]))
    assert side.ask(10) == [0, 1, 2, 3, 4]


def test_an_info_waits_for_all_that_came_before_it_and_for_nothing_else():
    side = fair()
    side.put(events("a", 3))
    assert side.queue.hold("info")
    side.put(events("b", 3))
    log = []
    while side.queue.size:
        log += side.ask(1)
        log += [args[0] for _, args in side.side.agenda]
        side.side.agenda.clear()
    assert log == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), "info", ("b", 2)]


def test_an_origin_is_settled_per_event():
    side = fair()
    tokens = {key: Token() for key in "ab"}
    for key, token in tokens.items():
        side.put(events(key, 3), token)
    side.ask(4)
    side.ask(0, acked=3)
    assert {key: token.settled for key, token in tokens.items()} == {"a": 2, "b": 1}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.sampled_from("abcd"), st.integers(1, 6)),
            st.tuples(st.just("ask"), st.sampled_from("xy"), st.integers(1, 6)),
            st.tuples(st.just("ack"), st.sampled_from("xy"), st.integers(1, 6)),
            st.tuples(st.just("leave"), st.sampled_from("xy"), st.integers(0, 3)),
        ),
        max_size=60,
    ),
    st.sampled_from([None, 1, 3]),
    st.integers(1, 3),
    st.sampled_from([{}, {"a": 2, "b": 3}]),
)
def test_nothing_is_lost_the_cap_holds_and_the_counts_are_true(steps, cap, quantum, weights):
    """Everything that was put is handled or will be; never more than `cap` of a key is in flight; keys do not leak."""
    side = fair(cap=cap, quantum=quantum, weights=weights)
    number, held, handled = Counter(), {"x": [], "y": []}, []

    def collect():
        for consumer, got in side.port.events():
            held[consumer] += got

    def acknowledge(name, count):
        record = side.side.subscribers[side.subscriptions[name]]
        done, held[name] = held[name][:count], held[name][count:]
        handled.extend(done)
        return record.acked + len(done)

    for action, who, count in steps:
        if action == "put":
            side.put(events(who, count, number[who]))
            number[who] += count
        elif action == "ask":
            if who not in side.subscriptions:
                side.join(who)
            record = side.side.subscribers[side.subscriptions[who]]
            side.side.ask(record.subscription, record.asked + count, record.acked)
        elif who in side.subscriptions:
            acked = acknowledge(who, count)
            record = side.side.subscribers[side.subscriptions[who]]
            if action == "ack":
                side.side.ask(record.subscription, record.asked, acked)
            else:
                held[who] = []
                side.leave(who, acked)
        collect()
        flying = Counter(event[0] for each in held.values() for event in each)
        assert cap is None or all(each <= cap for each in flying.values())
        wanted = side.side.dispatcher.wanted
        assert not (wanted and side.queue.ready()), "work conserving"
        assert sum(flying.values()) + side.queue.size + len(handled) == sum(number.values())
        assert 0 <= side.queue.ready() <= side.queue.size
    for _ in range(2000):
        if not side.queue.size and not any(held.values()):
            break
        for name in "xy":
            if name not in side.subscriptions:
                side.join(name)
            record = side.side.subscribers[side.subscriptions[name]]
            side.side.ask(record.subscription, record.sent + 5, acknowledge(name, 1000))
            collect()
    assert sorted(handled) == sorted(event for key in number for event in events(key, number[key]))
    for name in "xy":
        if name in side.subscriptions:
            record = side.side.subscribers[side.subscriptions[name]]
            side.side.ask(record.subscription, record.asked, record.sent)
    assert not side.queue._keys


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), min_size=1, max_size=20), st.integers(1, 3))
def test_of_keys_that_wait_all_the_while_none_gets_more_than_a_round_ahead(puts, quantum):
    side = fair(quantum=quantum, weights={"a": 2})
    for key, count in puts:
        side.put(events(key, count))
    waiting = Counter(key for key, count in puts for _ in range(count))
    got = Counter()
    shares = {"a": 2 * quantum, "b": quantum, "c": quantum}
    for key, _ in side.ask(10_000):
        if all(waiting.values()):
            got[key] += 1
            rounds = [got[each] / shares[each] for each in waiting]
            assert max(rounds) - min(rounds) <= 1
        waiting[key] -= 1


# --- priority ---------------------------------------------------------------------------------------------------------


def urgent(**options):
    return Side(PriorityDispatcher(lambda event: event[0], **options))


def test_the_lowest_number_goes_first_and_equals_in_the_order_of_their_arrival():
    side = urgent()
    side.put([(2, "a"), (1, "b"), (2, "c"), (1, "d"), (0, "e")])
    assert [name for _, name in side.ask(10)] == ["e", "b", "d", "a", "c"]


def test_strict_priority_lets_the_urgent_pass_for_ever():
    side = urgent(ageing=None)
    side.put([(1, "old")])
    for number in range(5000):
        side.put([(0, number)])
        assert side.ask(1) == [(0, number)]
    assert side.ask(1) == [(1, "old")]


def test_ageing_lets_nobody_wait_for_ever():
    """An event of class 3 with ageing 10 waits for at most 30 newer ones of class 0."""
    side = urgent(ageing=10)
    side.put([(3, "old")])
    passed = 0
    while True:
        side.put([(0, passed)])
        [(_, name)] = side.ask(1)
        if name == "old":
            break
        passed += 1
    assert passed in {30, 29}


def test_what_comes_back_goes_first():
    side = urgent()
    side.put([(5, "a"), (6, "b"), (7, "c")])
    assert len(side.ask(2, "x")) == 2
    side.put([(0, "urgent")])
    side.leave("x")
    assert [name for _, name in side.ask(10, "y")] == ["a", "b", "urgent", "c"]


def test_a_full_buffer_drops_the_least_urgent():
    side = Side(PriorityDispatcher(lambda event: event, ageing=None), buffer_size=3, buffer_keep="last")
    side.put([5, 1, 9, 3, 7])
    assert side.ask(10) == [1, 3, 5]
    assert side.side.discarded == {"buffer full": 2}


@pytest.mark.parametrize("priority", [None, "high", float("nan"), [], 1j])
def test_a_priority_that_is_no_number_costs_that_event_alone(priority):
    side = Side(PriorityDispatcher(lambda event: priority if event == 1 else event))
    side.put([2, 1, 0])
    assert side.ask(10) == [0, 2]
    [error] = side.port.errors
    assert (error.option, error.event) == ("priority", 1)


def test_numbers_of_any_kind_are_priorities():
    side = Side(PriorityDispatcher(np.float32))
    side.put([2, 1])
    assert side.ask(10) == [1, 2]
    assert not side.port.errors


def test_infinite_priorities_are_the_first_and_the_last():
    side = Side(PriorityDispatcher(lambda event: event))
    side.put([float("inf"), 1, float("-inf")])
    assert side.ask(10) == [float("-inf"), 1, float("inf")]


@given(st.lists(st.integers(0, 4), max_size=60), st.sampled_from([1, 3, 10]))
def test_ageing_is_an_order_of_arrival_and_priority(priorities, ageing):
    """Of two events the later goes first only if it is more urgent by more classes than it came late / ageing."""
    side = urgent(ageing=ageing)
    side.put([(priority, number) for number, priority in enumerate(priorities)])
    taken = side.ask(1000)
    assert sorted(number for _, number in taken) == list(range(len(priorities)))
    ranks = [priority * ageing + number for priority, number in taken]
    assert ranks == sorted(ranks)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "option"),
    [
        (lambda: FairDispatcher("user"), "key"),
        (lambda: FairDispatcher(None), "key"),
        (lambda: FairDispatcher(len, weights=3), "weights"),
        (lambda: FairDispatcher(len, weights={"a": 0}), "weights"),
        (lambda: FairDispatcher(len, weights={"a": 1.5}), "weights"),
        (lambda: FairDispatcher(len, cap=0), "cap"),
        (lambda: FairDispatcher(len, cap=True), "cap"),
        (lambda: FairDispatcher(len, quantum=0), "quantum"),
        (lambda: FairDispatcher(len, quantum="1"), "quantum"),
        (lambda: PriorityDispatcher(3), "priority"),
        (lambda: PriorityDispatcher(len, ageing=0), "ageing"),
        (lambda: PriorityDispatcher(len, ageing=1.5), "ageing"),
    ],
)
def test_wrong_options_are_refused(make, option):
    with pytest.raises(OptionError) as caught:
        make()
    assert caught.value.option == option
