# mypy: disable-error-code="union-attr"
"""The consuming side: work in order, leaving, giving back, and acknowledgements of a middle stage."""

import numpy as np

from headgate.protocol import messages as m
from headgate.protocol.consumer import ConsumerSide
from headgate.protocol.messages import End
from tests.unit.protocol.fakes import Port, subscription

LEFT = End("cancel", "normal")


class Fixture:
    def __init__(self, *, tracked=False, **terms):
        terms = {"max_demand": 10, "min_demand": 5, **terms}
        self.port = Port()
        self.side = ConsumerSide(self.port, tracked=tracked)
        self.a = self.open("a", **terms)
        self.b = self.open("b", **terms)
        self.take()

    def open(self, producer, **terms):
        made = subscription(producer=producer, **terms)
        self.side.subscribe(made)
        self.side.opened(made, manual=False)
        return made

    def take(self):
        return self.port.take()


def test_a_subscription_says_so_to_the_producer_and_then_asks():
    fixture = Fixture()
    made = fixture.open("c", max_demand=4, min_demand=1)
    assert fixture.port.sent == [("c", (m.SUBSCRIBE, made)), ("c", (m.ASK, made, 4, 0))]


def test_messages_of_several_producers_are_handled_in_the_order_in_which_they_came():
    fixture = Fixture()
    fixture.side.receive(fixture.a, [1, 2])
    fixture.side.receive(fixture.b, [3])
    fixture.side.receive(fixture.a, [4])
    order = []
    while fixture.side.work:
        batch, source = fixture.side.next_batch()
        order.append((batch, source))
        fixture.side.done()
    assert order == [([1, 2], fixture.a), ([3], fixture.b), ([4], fixture.a)]


def test_a_long_message_is_cut_and_gone_on_with_before_others():
    fixture = Fixture()
    batch = np.arange(8)
    fixture.side.receive(fixture.a, batch)
    fixture.side.receive(fixture.b, [1])
    first, _ = fixture.side.next_batch()
    assert first.tolist() == [0, 1, 2, 3, 4]
    assert np.shares_memory(first, batch)
    fixture.side.done()
    assert fixture.side.at == 5
    assert fixture.side.next_batch()[0].tolist() == [5, 6, 7]
    fixture.side.done()
    assert fixture.side.next_batch()[0] == [1]


def test_events_of_an_unknown_subscription_are_refused():
    assert not Fixture().side.receive(subscription(), [1])


def test_a_leave_says_how_much_was_handled_and_drops_the_work():
    fixture = Fixture()
    fixture.side.receive(fixture.a, [1, 2, 3, 4, 5, 6, 7])
    fixture.side.receive(fixture.b, [8])
    fixture.side.next_batch()
    fixture.side.done()
    fixture.take()
    assert fixture.side.cancel(fixture.a, LEFT)
    assert fixture.take() == [(m.CANCEL, fixture.a, LEFT, 5, 5)]
    assert fixture.a not in fixture.side.windows
    assert fixture.side.next_batch()[0] == [8], "the other producer's events stay"


def test_a_leave_in_the_middle_of_a_batch_waits_for_its_end():
    fixture = Fixture()
    fixture.side.receive(fixture.a, [1, 2, 3, 4, 5, 6, 7])
    fixture.side.next_batch()
    assert fixture.side.cancel(fixture.a, LEFT)
    assert not fixture.take()
    assert not fixture.side.work, "what was not begun is not begun any more"
    fixture.side.done()
    assert fixture.take() == [(m.CANCEL, fixture.a, LEFT, 5, 5)]


def test_a_second_leave_is_none():
    fixture = Fixture()
    assert fixture.side.cancel(fixture.a, LEFT)
    assert not fixture.side.cancel(fixture.a, LEFT)
    assert not fixture.side.cancel(subscription(), LEFT)


def test_a_window_whose_producer_has_ended_it_says_its_last_word_when_all_is_done():
    fixture = Fixture()
    fixture.side.receive(fixture.a, [1, 2])
    fixture.side.next_batch()
    fixture.side.done()
    fixture.take()
    fixture.side.end(fixture.side.windows[fixture.a])
    assert fixture.take() == [(m.CLOSED, fixture.a, 2)]
    assert fixture.a not in fixture.side.windows


def test_an_ending_stage_leaves_everybody():
    fixture = Fixture()
    fixture.side.receive(fixture.a, [1, 2])
    fixture.side.leave(LEFT)
    assert fixture.take() == [(m.CANCEL, fixture.b, LEFT, 0, 0), (m.CANCEL, fixture.a, LEFT, 0, 0)]
    assert not fixture.side.work
    assert not fixture.side.windows


def test_an_acknowledgement_that_no_ask_carries_is_owed_and_comes_with_the_flush():
    fixture = Fixture()
    fixture.side.receive(fixture.a, [1, 2])
    fixture.side.next_batch()
    fixture.side.done()
    assert not fixture.take()
    assert fixture.port.owed == 1
    fixture.side.flush()
    assert fixture.take() == [(m.ASK, fixture.a, 10, 2)]
    fixture.side.flush()
    assert not fixture.take()


def test_the_end_of_a_batch_can_be_given_back_ahead_of_all_else():
    fixture = Fixture()
    fixture.side.receive(fixture.a, [1, 2, 3])
    fixture.side.receive(fixture.b, [4])
    fixture.side.next_batch()
    fixture.side.give_back([3])
    fixture.side.done()
    assert fixture.side.handled == 2
    assert fixture.side.next_batch() == ([3], fixture.a)
    fixture.side.done()
    assert fixture.side.handled == 3


def test_the_end_of_a_batch_that_was_cut_off_a_message_can_be_given_back():
    fixture = Fixture()
    fixture.side.receive(fixture.a, [1, 2, 3, 4, 5, 6, 7])
    fixture.side.next_batch()
    fixture.side.give_back([4, 5])
    fixture.side.done()
    assert fixture.side.next_batch()[0] == [4, 5, 6, 7]


def test_a_middle_stage_acknowledges_an_input_when_its_outputs_are_settled():
    fixture = Fixture(tracked=True)
    side = fixture.side
    side.receive(fixture.a, [1, 2])
    side.next_batch()
    origin = side.origin
    origin.left += 2
    side.done()
    window = side.windows[fixture.a]
    assert (window.handled, window.acked) == (2, 0)
    origin.settle(1)
    assert window.acked == 0
    origin.settle(1)
    assert window.acked == 2
    side.flush()
    assert fixture.take() == [(m.ASK, fixture.a, 10, 2)]


def test_inputs_are_acknowledged_in_order_even_if_a_later_one_is_safe_first():
    fixture = Fixture(tracked=True)
    side, origins = fixture.side, []
    for events in ([1, 2], [3]):
        side.receive(fixture.a, events)
        side.next_batch()
        side.origin.left += 1
        origins.append(side.origin)
        side.done()
    window = side.windows[fixture.a]
    origins[1].settle(1)
    assert window.acked == 0
    origins[0].settle(1)
    assert window.acked == 3


def test_a_middle_stage_that_leaves_answers_for_what_it_handled():
    """Rule: the leave says both totals, and the last word comes when the outputs are safe."""
    fixture = Fixture(tracked=True)
    side = fixture.side
    side.receive(fixture.a, [1, 2, 3])
    side.next_batch()
    origin = side.origin
    origin.left += 1
    side.done()
    side.cancel(fixture.a, LEFT)
    assert fixture.take() == [(m.CANCEL, fixture.a, LEFT, 0, 3)]
    assert fixture.a in side.windows
    origin.settle(1)
    assert fixture.take() == [(m.CLOSED, fixture.a, 3)]
    assert fixture.a not in side.windows


def test_ten_thousand_subscriptions_leave_nothing_behind():
    fixture = Fixture()
    for _ in range(10_000):
        made = fixture.open("c", max_demand=1, min_demand=0)
        fixture.side.cancel(made, LEFT)
    assert set(fixture.side.windows) == {fixture.a, fixture.b}
    assert not fixture.side.work
