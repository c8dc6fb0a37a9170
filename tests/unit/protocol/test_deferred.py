# mypy: disable-error-code="index,union-attr,var-annotated"
"""Deferred acknowledgements: each event is done when somebody says so; what is done ahead of others leaves a hole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import DemandDispatcher
from headgate.protocol import messages as m
from headgate.protocol.lane import LANES
from headgate.protocol.messages import End
from headgate.protocol.stage import StageCore
from tests.unit.protocol.fakes import Port, Token, subscriber, subscription

LEFT = End("cancel", "normal")


class Deferring:
    """A consumer that defers (it runs by the long way: the fast lane knows of totals only)."""

    def __init__(self, most=10, least=0, **terms):
        self.port = Port("stage")
        self.core = StageCore(self.port, m.CONSUMER, {m.HANDLE_EVENTS})
        self.core.start()
        self.edge = subscription("stage", "p", max_demand=most, min_demand=least, **terms)
        self.core.subscribe(self.edge)
        self.port.take()
        self.records = {}

    @property
    def window(self):
        return self.core.into.windows[self.edge]

    def give(self, *events, defer=True):
        """Let it handle a batch."""
        self.core.receive((m.EVENTS, self.edge, list(events)))
        if defer:
            self.records.update(zip(events, self.core.into.defer(), strict=True))
        self.core.returned(None)

    def settle(self, *events):
        for event in events:
            self.core.settled(self.records.pop(event))

    def told(self):
        """Flush, and take out what was said: totals of acknowledgements and ranges."""
        self.core.flush()
        return [message[3] if message[0] == m.ASK else message[2] for message in self.port.take()]


@pytest.fixture(params=["core", "lane"])
def source(request):
    """Start a source that has sent five events, by the long way and by the fast lane."""

    def make(size=5, asked=20, **options):
        port = Port("stage")
        kind = StageCore if request.param == "core" else LANES[m.PRODUCER]
        core = kind(port, m.PRODUCER, {m.HANDLE_DEMAND}, DemandDispatcher(), **options)
        core.start()
        edge = subscription("c", "stage", max_demand=1000)
        core.receive((m.SUBSCRIBE, edge))
        core.receive((m.ASK, edge, asked, 0))
        core.returned(list(range(size)))
        port.take()
        return core, port, edge

    return make


def again(core, port):
    """Let another consumer come; return what it is sent."""
    edge = subscription("d", "stage", max_demand=1000)
    core.receive((m.SUBSCRIBE, edge))
    core.receive((m.ASK, edge, 20, 0))
    return [list(message[2]) for message in port.take() if message[0] in (m.EVENTS, m.REDELIVERED)]


# -- the consumer's side -----------------------------------------------------------------------------------------------


def test_a_deferred_event_is_not_acknowledged_when_the_handler_returns():
    stage = Deferring()
    stage.give(1, 2, 3)
    assert (stage.window.handled, stage.window.acked) == (3, 0)
    assert stage.told() == []


def test_what_is_settled_in_order_is_told_by_totals():
    stage = Deferring()
    stage.give(1, 2, 3)
    stage.settle(1)
    assert stage.told() == [1]
    stage.settle(2, 3)
    assert stage.told() == [3]


def test_what_is_settled_ahead_is_told_by_ranges_and_once():
    stage = Deferring()
    stage.give(1, 2, 3, 4, 5)
    stage.settle(5, 3, 2)
    assert stage.told() == [((1, 3), (4, 5))]
    assert stage.told() == []
    stage.settle(1)
    assert stage.told() == [3]
    stage.settle(4)
    assert stage.told() == [5]


def test_neighbours_become_one_record_so_that_one_event_that_hangs_costs_nothing():
    stage = Deferring(most=1000)
    for number in range(0, 500, 5):
        stage.give(*range(number, number + 5))
    stage.settle(*range(499, 0, -1))
    assert stage.told() == [((1, 500),)]
    assert len(stage.window.origins) == 2


def test_a_batch_that_was_not_deferred_waits_for_those_before_it_and_is_told_ahead():
    stage = Deferring()
    stage.give(1, 2)
    stage.give(3, 4, defer=False)
    assert stage.told() == [((2, 4),)]
    stage.settle(1, 2)
    assert stage.told() == [4]


def test_all_may_be_settled_before_the_handler_returns():
    """Then it is an ordinary batch; and so is the next."""
    stage = Deferring()
    stage.core.receive((m.EVENTS, stage.edge, [1, 2]))
    for record in stage.core.into.defer():
        stage.core.settled(record)
    stage.core.returned(None)
    assert stage.window.acked == 2
    stage.give(3, defer=False)
    assert stage.told() == [3]


def test_asking_does_not_wait_for_it():
    stage = Deferring(most=4)
    stage.give(1, 2, 3, 4)
    assert (stage.window.asked, stage.window.acked) == (8, 0)


def test_demand_by_hand_goes_with_what_is_settled():
    stage = Deferring(manual=True)
    stage.core.ask(stage.edge, 3)
    stage.give(1, 2, 3)
    assert stage.window.asked == 3
    stage.settle(2)
    stage.core.ask(stage.edge, 1)
    assert stage.window.asked == 4


def test_a_crash_tells_what_is_done_and_gives_back_the_rest():
    stage = Deferring()
    stage.give(1, 2, 3)
    stage.settle(2)
    stage.core.receive((m.EVENTS, stage.edge, [4]))
    stage.port.take()
    stage.core.failed(ValueError("boom"))
    settled, failed, cancel = stage.port.take()
    assert settled == (m.SETTLED, stage.edge, ((1, 2),))
    assert failed[:4] == (m.FAILED, stage.edge, 3, 4)
    assert cancel[3:] == (0, 0)


def test_what_is_settled_after_the_end_changes_nothing():
    stage = Deferring()
    stage.give(1)
    stage.core.stop("normal")
    stage.port.take()
    stage.settle(1)
    assert stage.told() == []


def test_one_that_leaves_answers_for_what_it_has_begun():
    stage = Deferring()
    stage.give(1, 2)
    stage.core.cancel(stage.edge, "normal")
    assert [message[3:] for message in stage.port.take(m.CANCEL)] == [(0, 2)]
    stage.settle(2)
    stage.settle(1)
    assert stage.port.take(m.CLOSED) == [(m.CLOSED, stage.edge, 2)]


def test_a_stage_that_finishes_waits_for_it():
    stage = Deferring()
    stage.give(1, 2)
    stage.core.drain("shutdown")
    stage.settle(2)
    assert stage.core.state == "finishing"
    stage.settle(1)
    assert stage.core.state == "ended"
    assert stage.core.completed


# -- the producer's side -----------------------------------------------------------------------------------------------


def test_what_was_done_ahead_does_not_come_back(source):
    core, port, edge = source()
    core.receive((m.SETTLED, edge, ((1, 2), (3, 4))))
    assert core.out.in_flight() == 3
    assert core.out.handled == 2
    core.receive((m.CANCEL, edge, LEFT, 0, 0))
    assert [event for batch in again(core, port) for event in batch] == [0, 2, 4]
    assert core.out.handled == 2


def test_a_total_passes_over_holes(source):
    core, port, edge = source()
    core.receive((m.SETTLED, edge, ((1, 3),)))
    core.receive((m.ASK, edge, 20, 4))
    record = core.out.subscribers[edge]
    assert (record.acked, record.early, record.in_flight) == (4, 0, 1)
    core.receive((m.CANCEL, edge, LEFT, 4, 4))
    assert again(core, port) == [[4]]


def test_a_hole_is_counted_once(source):
    core, _, edge = source()
    core.receive((m.SETTLED, edge, ((1, 3),)))
    core.receive((m.SETTLED, edge, ((1, 3), (2, 4))))
    record = core.out.subscribers[edge]
    assert (record.early, record.in_flight) == (3, 2)
    assert [piece[:2] for piece in record.ledger] == [([0], 1), (None, 3), ([4], 1)]


def test_the_leave_does_not_overtake_what_was_settled(source):
    """Both come while the source's handler runs."""
    core, port, edge = source()
    core.receive((m.ASK, edge, 30, 0))
    assert core.callback is not None
    core.receive((m.SETTLED, edge, ((1, 5),)))
    core.receive((m.CANCEL, edge, LEFT, 0, 0))
    core.returned(None)
    assert again(core, port) == [[0]]


def test_a_source_finishes_when_all_is_settled_in_whatever_order(source):
    core, _, edge = source(3)
    core.finish()
    core.receive((m.SETTLED, edge, ((1, 3),)))
    assert core.state == "finishing"
    core.receive((m.ASK, edge, 20, 1))
    assert core.state == "ended"


def test_a_hole_among_the_events_that_a_handler_failed_with_is_not_blamed(source):
    core, port, edge = source(max_deliveries=1)
    core.receive((m.SETTLED, edge, ((0, 4),)))
    core.receive((m.FAILED, edge, 0, 5, "boom"))
    core.receive((m.CANCEL, edge, End("down", "boom"), 0, 0))
    sent = again(core, port)
    dead = [letter.event for letter, _ in port.letters]
    assert (sent, dead) in (([[4]], []), ([], [4]))
    assert core.out.discarded.get("dead letter", 0) == len(dead)


def test_at_most_once_there_is_nothing_to_settle(source):
    core, _, edge = source(delivery="at_most_once")
    core.receive((m.SETTLED, edge, ((1, 2),)))
    assert not core.out.subscribers[edge].ledger
    assert core.out.subscribers[edge].early == 0


# -- the ledger by itself ----------------------------------------------------------------------------------------------


@given(st.data())
def test_whatever_the_order_each_event_is_settled_once_and_the_rest_comes_back(data):
    """Batches of any size, ranges and totals in any order that a consumer can say them in."""
    record, token = subscriber(), Token()
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    for size in sizes:
        record.ledger.append((list(range(record.sent, record.sent + size)), size, token))
        record.sent += size
    record.asked = total = record.sent
    done = set()
    for event in data.draw(st.permutations(range(total)))[: data.draw(st.integers(0, total))]:
        done.add(event)
        first = min(set(range(total + 1)) - done)
        if event < first:
            record.ack(first)
        else:
            record.settle([(event, event + 1)])
        assert token.settled == len(done)
        assert record.in_flight == total - len(done)
        assert len(record.ledger) <= 2 * (total - len(done)) + 1
    rest = [event for batch, _, _ in record.unacked() if batch is not None for event in batch]
    assert rest == [event for event in range(total) if event not in done]
