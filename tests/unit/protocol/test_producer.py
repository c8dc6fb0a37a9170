# mypy: disable-error-code="arg-type,var-annotated"
"""The producing side: derived demand, the buffer's bound and its policies, returns, ends of subscriptions."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import BroadcastDispatcher, DemandDispatcher, PartitionDispatcher
from headgate.protocol import messages as m
from headgate.protocol.messages import End
from headgate.protocol.producer import ProducerSide
from tests.unit.protocol.fakes import Port, Token, subscription

LEFT = End("cancel", "normal")


class Side:
    def __init__(self, dispatcher=None, **options):
        self.port = Port("producer")
        options = {"buffer_size": 10_000, "buffer_keep": None, "delivery": "at_least_once", **options}
        self.agenda = deque()
        self.side = ProducerSide(self.port, dispatcher or DemandDispatcher(), self.agenda, **options)
        self.subscriptions = {}

    def join(self, name, ask=0, **terms):
        self.subscriptions[name] = subscription(name, **terms)
        self.side.subscribe(self.subscriptions[name])
        if ask:
            self.ask(name, ask)

    def ask(self, name, asked, acked=0):
        """Say the consumer's totals."""
        return self.side.ask(self.subscriptions[name], asked, acked)

    def put(self, batch, token=None, **options):
        return self.side.emit(batch, len(batch), token, **options)

    def events(self):
        return self.port.events()


def test_what_is_needed_is_what_is_wanted_less_what_is_here_and_what_was_asked_for():
    side = Side()
    side.put([1, 2])
    side.join("a", 10)
    assert side.side.need() == 8, "two came from the buffer"
    side.side.requested += 5
    assert side.side.need() == 3
    side.put([3, 4, 5])
    assert side.side.requested == 2
    assert side.side.need() == 3


def test_a_short_answer_is_still_owed():
    side = Side()
    side.join("a", 10)
    side.side.requested += 10
    side.put([1])
    assert (side.side.requested, side.side.need()) == (9, 0)


def test_demand_heals_when_a_consumer_leaves():
    side = Side()
    side.join("a", 10)
    side.side.requested += 10
    side.side.leave(side.subscriptions["a"], 0, 0)
    assert side.side.need() == -10, "ten are on their way for whoever comes"
    side.join("b", 15)
    assert side.side.need() == 5


def test_the_same_ask_twice_counts_once():
    side = Side()
    side.join("a")
    assert side.ask("a", 5)
    assert side.ask("a", 5)
    assert side.ask("a", 3)
    assert side.side.need() == 5


def test_an_ask_of_an_unknown_subscription_is_said_so():
    side = Side()
    assert not side.side.ask(subscription(), 5, 0)


def test_events_without_demand_are_kept_and_go_first():
    side = Side()
    side.put([1, 2, 3])
    assert side.side.queue.size == 3
    side.join("a", 2)
    assert side.events() == [("a", [1, 2])]
    side.put([4])
    assert side.events() == []
    side.ask("a", 5)
    assert side.events() == [("a", [3, 4])], "neighbouring lists go out as one message"


def test_arrays_are_handed_on_as_they_are():
    side = Side()
    first, second = np.arange(3), np.arange(3, 6)
    side.put(first)
    side.put(second)
    side.join("a", 10)
    batches = [message[2] for message in side.port.take(m.EVENTS)]
    assert [each.tolist() for each in batches] == [[0, 1, 2], [3, 4, 5]]
    assert np.shares_memory(batches[0], first)
    assert np.shares_memory(batches[1], second)


def test_a_surplus_beyond_the_bound_is_handed_back_in_order():
    side = Side(buffer_size=3)
    assert side.put([1, 2]) is None
    assert side.put([3, 4, 5]) == [4, 5]
    assert side.side.queue.size == 3
    assert side.side.discarded == {"buffer full": 2}
    side.join("a", 10)
    assert side.events() == [("a", [1, 2, 3])]


def test_a_surplus_of_an_array_is_handed_back_as_an_array():
    side = Side(buffer_size=3)
    refused = side.put(np.arange(5))
    assert isinstance(refused, np.ndarray)
    assert refused.tolist() == [3, 4]


def test_no_buffer_at_all():
    side = Side(buffer_size=0)
    side.join("a", 2)
    assert side.put([1, 2, 3]) == [3]
    assert side.events() == [("a", [1, 2])]


def test_keeping_the_first_drops_the_new():
    side = Side(buffer_size=5, buffer_keep="first")
    assert side.put(list(range(8))) is None
    assert side.side.dropped == 3
    side.join("a", 10)
    assert side.events() == [("a", [0, 1, 2, 3, 4])]


def test_keeping_the_last_drops_the_old():
    side = Side(buffer_size=5, buffer_keep="last")
    side.put([0, 1, 2])
    side.put(list(range(3, 8)))
    assert side.side.dropped == 3
    side.join("a", 10)
    assert side.events() == [("a", [3, 4, 5, 6, 7])]


def test_keeping_the_last_of_a_batch_larger_than_the_bound():
    side = Side(buffer_size=2, buffer_keep="last")
    side.put([0, 1, 2, 3])
    side.join("a", 10)
    assert side.events() == [("a", [2, 3])]


def test_without_a_bound_nothing_is_dropped():
    side = Side(buffer_size=None)
    side.put(list(range(50_000)))
    assert side.side.queue.size == 50_000


def test_output_of_a_middle_stage_is_never_dropped():
    side = Side(buffer_size=2, buffer_keep="first")
    assert side.put([1, 2, 3], Token(), soft=True) is None
    assert side.side.queue.size == 3


def test_a_dropped_event_is_settled():
    side, token = Side(buffer_size=1, buffer_keep="last"), Token()
    side.put([1, 2, 3], token)
    assert token.settled == 2


def test_infos_come_after_what_waits_also_when_it_is_dropped():
    side = Side(buffer_size=2, buffer_keep="last")
    assert not side.side.info("nothing waits")
    side.put([1, 2])
    assert side.side.info("after 2")
    side.put([3, 4])
    side.join("a", 1)
    assert list(side.agenda) == [("handle_info", ("after 2",))]
    assert side.events() == [("a", [3])]


def test_a_consumer_that_leaves_gives_its_events_back_ahead_of_newer_ones():
    side = Side()
    side.join("a", 4)
    side.put([1, 2, 3, 4])
    side.put([5, 6])
    side.events()
    side.side.leave(side.subscriptions["a"], 1, 1)
    side.join("b", 10)
    assert side.events() == [("b", [2, 3, 4, 5, 6])]
    assert side.side.discarded == {}


def test_the_next_taker_may_be_there_already():
    side = Side()
    side.join("a", 2)
    side.join("b", 10)
    side.put([1, 2])
    side.side.leave(side.subscriptions["a"], 0, 0)
    assert side.events() == [("a", [1, 2]), ("b", [1, 2])]


def test_delivery_at_most_once_counts_what_is_lost():
    side = Side(delivery="at_most_once")
    side.join("a", 4)
    side.put([1, 2, 3])
    side.side.leave(side.subscriptions["a"], 1, 1)
    assert side.side.discarded == {"consumer left": 2}
    assert side.side.queue.size == 0


def test_delivery_at_most_once_settles_at_once():
    side, token = Side(delivery="at_most_once"), Token()
    side.join("a", 4)
    side.put([1, 2, 3], token)
    assert token.settled == 3


def test_a_subscription_ended_from_this_side_waits_for_the_last_word():
    side = Side()
    side.join("a", 4)
    side.put([1, 2, 3])
    end = End("cancel", "enough")
    assert side.side.cancel(side.subscriptions["a"], end)
    assert not side.side.cancel(side.subscriptions["a"], end)
    assert side.port.take(m.CANCELLED) == [(m.CANCELLED, side.subscriptions["a"], end)]
    assert side.side.in_flight() == 3
    assert not side.side.empty()
    assert side.ask("a", 4, 1), "an acknowledgement still counts"
    side.join("b", 10)
    assert side.side.close(side.subscriptions["a"], 2)
    assert side.port.events() == [("a", [1, 2, 3]), ("b", [3])]
    assert side.side.handled == 2
    assert not side.side.close(side.subscriptions["a"], 3)


def test_a_middle_stage_that_left_acknowledges_what_it_handled_later():
    side = Side()
    side.join("a", 4)
    side.put([1, 2, 3])
    side.side.leave(side.subscriptions["a"], 0, 2)
    assert side.side.queue.size == 1
    assert not side.side.empty()
    assert side.side.close(side.subscriptions["a"], 2)
    assert side.side.queue.size == 1
    assert side.side.handled == 2


def test_what_a_middle_stage_handled_and_lost_comes_back_by_its_last_word():
    side = Side()
    side.join("a", 4)
    side.put([1, 2, 3])
    side.events()
    side.side.leave(side.subscriptions["a"], 0, 2)
    side.side.close(side.subscriptions["a"], 1)
    side.join("b", 10)
    assert sorted(event for _, events in side.events() for event in events) == [2, 3]


def test_empty_means_that_nothing_waits_and_nothing_is_in_flight():
    side = Side(PartitionDispatcher(2, hash=lambda event: event % 2))
    assert side.side.empty()
    side.join("a", 2, partition=0)
    side.put([0, 1])
    assert not side.side.empty()
    side.ask("a", 2, 1)
    assert not side.side.empty(), "one waits in the other partition"
    side.join("b", 2, partition=1)
    side.ask("b", 2, 1)
    assert side.side.empty()


def test_accumulating_holds_events_until_they_are_let_go():
    side = Side()
    side.side.accumulate(True)
    side.join("a", 10)
    side.put([1, 2])
    side.put([3])
    assert side.events() == []
    side.side.accumulate(False)
    side.side.drain()
    assert side.events() == [("a", [1, 2, 3])]


def test_a_selector_that_raises_ends_only_its_subscription():
    side = Side(BroadcastDispatcher())
    side.join("bad", 10, selector=lambda event: 1 / 0)
    side.join("good", 10)
    side.put([1])
    assert side.events() == [("good", [1])]
    assert [message[1].consumer for message in side.port.take(m.CANCELLED)] == ["bad"]
    assert [name for name, _ in side.agenda] == ["handle_cancel"]
    assert side.side.need() == 9


DISPATCHERS = {
    "demand": DemandDispatcher,
    "largest": lambda: DemandDispatcher(order="largest"),
    "partition": lambda: PartitionDispatcher(2, hash=lambda event: event % 2, queue_size=5),
}


@pytest.mark.parametrize("make", DISPATCHERS.values(), ids=DISPATCHERS.keys())
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.just(0), st.integers(1, 7)),
            st.tuples(st.sampled_from(["ask", "ack", "leave", "end", "closed"]), st.integers(0, 1), st.integers(0, 7)),
        ),
        max_size=60,
    )
)
def test_conservation_holds_after_every_step(make, steps):
    """Emitted = handled + in flight + buffered + queued + discarded, and nobody gets more than it asked for."""
    side, number = Side(make(), buffer_size=20, buffer_keep="last"), 0
    closing, received = {}, {}

    def collect():
        for _, message in side.port.sent:
            if message[0] == m.EVENTS:
                received[message[1]] = received.get(message[1], 0) + len(message[2])
        side.port.sent.clear()

    for action, who, count in steps:
        record = side.side.subscribers.get(side.subscriptions.get(who))
        if action == "put":
            side.put(list(range(number, number + count)))
            number += count
        elif action == "ask":
            if record is None:
                side.join(who, partition=who)
                record = side.side.subscribers[side.subscriptions[who]]
            side.ask(who, record.asked + count, record.acked)
        elif action == "ack" and record is not None:
            side.ask(who, record.asked, min(record.sent, record.acked + count))
        elif action == "leave" and record is not None:
            acked = min(record.sent, record.acked + count)
            side.side.leave(record.subscription, acked, min(record.sent, acked + count // 2))
            if record.subscription in side.side.closing:
                closing[record.subscription] = record
        elif action == "end" and record is not None:
            side.side.cancel(record.subscription, LEFT)
            closing[record.subscription] = record
        elif action == "closed" and closing:
            key, left = closing.popitem()
            side.side.close(key, min(left.sent, left.acked + count))
        collect()
        here = side.side
        queued = here.queue.size + sum(here.dispatcher.queued().values())
        assert number == here.emitted
        assert here.emitted == here.handled + here.in_flight() + queued + sum(here.discarded.values())
        for key, each in here.subscribers.items():
            assert received.get(key, 0) == each.sent <= each.asked
        assert not (here.queue.size and here.dispatcher.wanted), "work conserving"
