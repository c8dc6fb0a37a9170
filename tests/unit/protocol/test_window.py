"""The consumer's window: gen_stage's ask formula (GS-084), said in totals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.protocol import messages as m
from headgate.protocol.consumer import ConsumerSide
from headgate.protocol.window import Window
from tests.unit.protocol.fakes import Port, subscription

# max/min, the messages that come, and for each batch of the handler: its length and what is then asked (GS-084).
EXAMPLES = [
    ((1000, 500), [1000], [(500, 500), (500, 500)], 1000),
    ((1000, 500), [100] * 6, [(100, 0)] * 4 + [(100, 500), (100, 0)], 900),
    ((1000, 750), [100] * 3, [(100, 0), (100, 0), (100, 300)], 1000),
    ((1000, 750), [1000], [(250, 250)] * 4, 1000),
    ((100, 80), [100], [(20, 20)] * 5, 100),
    ((100, 20), [100, 80, 20], [(80, 80), (20, 0), (80, 100), (20, 0)], 80),
    ((10, 0), [10], [(10, 10)], 10),
    ((10, 0), [3, 3, 3], [(3, 0)] * 3, 1),
    ((10, 5), [1] * 6, [(1, 0)] * 4 + [(1, 5), (1, 0)], 9),
    ((10, 9), [10], [(1, 1)] * 10, 10),
    ((1, 0), [1], [(1, 1)], 1),
    ((3, 1), [3], [(2, 2), (1, 0)], 2),
    ((3, 1), [1, 1], [(1, 0), (1, 2)], 3),
    ((7, 3), [7, 4], [(4, 4), (3, 0), (4, 7)], 7),
]


class Side:
    """A consuming side whose handler returns at once."""

    def __init__(self, most, least, tracked=False, manual=False):
        self.port = Port()
        self.side = ConsumerSide(self.port, tracked=tracked)
        self.subscription = subscription(max_demand=most, min_demand=least, manual=manual)
        self.side.subscribe(self.subscription)
        self.side.opened(self.subscription, manual=False)
        self.window = self.side.windows[self.subscription]
        self.asked = self.window.asked

    @property
    def sent(self):
        return [message for _, message in self.port.sent]

    def receive(self, events):
        """Return (length, newly asked) of each batch that the handler is given."""
        log = []
        assert self.side.receive(self.subscription, events)
        while self.side.work:
            batch, _ = self.side.next_batch()
            self.side.done()
            log.append((len(batch), self.window.asked - self.asked))
            self.asked = self.window.asked
        return log


def test_the_first_ask_is_the_maximum():
    side = Side(1000, 500)
    assert side.sent[-1] == (m.ASK, side.subscription, 1000, 0)


@pytest.mark.parametrize(("terms", "messages", "batches", "outstanding"), EXAMPLES)
def test_the_worked_examples_of_the_original(terms, messages, batches, outstanding):
    """GS-084: what the handler gets, what is asked after each batch, and what is then out."""
    side = Side(*terms)
    log = []
    for size in messages:
        log += side.receive(range(size))
    assert log == batches
    assert side.window.asked - side.window.handled == outstanding


def test_an_ask_says_totals():
    side = Side(10, 5)
    side.receive([1] * 5)
    assert side.sent[-1] == (m.ASK, side.subscription, 15, 5)
    side.receive([1] * 5)
    assert side.sent[-1] == (m.ASK, side.subscription, 20, 10)


def test_no_message_is_sent_when_nothing_is_asked():
    side = Side(10, 0)
    before = len(side.sent)
    side.receive([1, 2, 3])
    assert len(side.sent) == before


def test_no_events_are_no_batch():
    assert Side(10, 5).receive([]) == []


def test_a_manual_window_asks_nothing_and_takes_each_message_as_one_batch():
    side = Side(10, 5, manual=True)
    assert side.window.asked == 0
    assert [message[0] for message in side.sent] == [m.SUBSCRIBE]
    side.side.ask(side.subscription, 50)
    assert side.sent[-1] == (m.ASK, side.subscription, 50, 0)
    assert side.receive(range(50)) == [(50, 50)]
    assert side.window.asked == 50


def test_asking_for_nothing_sends_nothing():
    side = Side(10, 5, manual=True)
    before = len(side.sent)
    assert side.side.ask(side.subscription, 0)
    assert len(side.sent) == before


def test_a_window_that_is_not_open_cannot_ask():
    side = Side(10, 5, manual=True)
    assert not side.side.ask(subscription(), 5)
    side.side.end(side.window)
    assert not side.side.ask(side.subscription, 5)


def test_what_is_outstanding_was_asked_and_has_not_come():
    window = Window(subscription(max_demand=10))
    window.asked, window.received = 10, 4
    assert window.outstanding == 6


@given(st.data())
def test_never_more_than_the_maximum_is_out_and_more_is_asked_in_time(data):
    """Rules for a consumer: at most max is ever out; whenever the handler is idle more than min is; batches fit."""
    most = data.draw(st.integers(1, 50))
    least = data.draw(st.integers(0, most - 1))
    side = Side(most, least)
    for _ in range(data.draw(st.integers(1, 20))):
        size = data.draw(st.integers(1, side.window.outstanding))
        for length, _asked in side.receive(range(size)):
            assert length <= most - least
        out = side.window.asked - side.window.handled
        assert least < out <= most
        assert side.window.outstanding == out


@given(st.data())
def test_the_totals_agree_with_the_formula_of_the_original(data):
    """GS-084 computed by its own words, next to ours, for messages within the demand."""
    most = data.draw(st.integers(1, 30))
    least = data.draw(st.integers(0, most - 1))
    side, demand = Side(most, least), most
    for _ in range(data.draw(st.integers(1, 15))):
        size = data.draw(st.integers(1, side.window.outstanding))
        expected = []
        for start in range(0, size, most - least):
            length = min(most - least, size - start)
            left = demand - length
            expected.append((length, most - left if left <= least else 0))
            demand = most if left <= least else left
        assert side.receive(range(size)) == expected
