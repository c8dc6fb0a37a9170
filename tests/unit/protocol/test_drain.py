# mypy: disable-error-code="index,union-attr,var-annotated"
"""Draining and pausing one stage: what was begun is finished, nothing else begins, nothing is lost."""

import pytest

from headgate import DemandDispatcher
from headgate.protocol import messages as m
from headgate.protocol.lane import LANES
from headgate.protocol.messages import End
from headgate.protocol.stage import StageCore
from tests.unit.protocol.fakes import Port, subscription

CALLBACKS = {m.HANDLE_EVENTS, m.HANDLE_DEMAND, m.HANDLE_INFO}
LEFT = End("cancel", "normal")


@pytest.fixture(params=["core", "lane"])
def start(request):
    """Start a stage, by the long way and by the fast lane."""

    def make(role, **options):
        port = Port("stage")
        kind = StageCore if request.param == "core" else LANES[role]
        core = kind(port, role, CALLBACKS, None if role == m.CONSUMER else DemandDispatcher(), **options)
        core.start()
        return core, port

    return make


@pytest.fixture
def source(start):
    """Start a source with a consumer that has asked for four events."""
    core, port = start(m.PRODUCER)
    edge = subscription("c", "stage", max_demand=1000)
    core.receive((m.SUBSCRIBE, edge))
    core.receive((m.ASK, edge, 4, 0))
    return core, port, edge


@pytest.fixture
def consumer(start):
    """Start a consumer that takes two events at a time."""
    core, port = start(m.CONSUMER)
    edge = subscription("stage", "p", max_demand=4, min_demand=2)
    core.subscribe(edge)
    port.take()
    return core, port, edge


@pytest.fixture
def middle(start):
    """Start a middle stage that takes two events at a time, with a consumer that has asked for ten."""
    core, port = start(m.PRODUCER_CONSUMER)
    up, down = subscription("stage", "p", max_demand=4, min_demand=2), subscription("d", "stage")
    core.subscribe(up)
    core.receive((m.SUBSCRIBE, down))
    core.receive((m.ASK, down, 10, 0))
    port.take()
    return core, port, up, down


# -- drain -------------------------------------------------------------------------------------------------------------


def test_a_drained_source_sends_nothing_more_and_ends_when_what_it_sent_is_handled(source):
    core, port, edge = source
    core.returned([1, 2, 3])
    core.drain("shutdown")
    assert core.state == "finishing"
    core.receive((m.ASK, edge, 10, 3))
    assert core.callback is None
    assert core.state == "ended"
    assert core.completed
    assert core.reason == "shutdown"
    (cancelled,) = port.take(m.CANCELLED)
    assert cancelled[2] == End("down", "shutdown", finished=True)


def test_a_drained_source_keeps_what_its_handler_gives_meanwhile(source):
    core, port, _ = source
    assert core.callback == (m.HANDLE_DEMAND, (4,))
    core.drain("shutdown")
    core.returned([1, 2, 3, 4])
    assert port.events() == []
    assert core.state == "ended"
    assert core.out.queue.size == 4


def test_a_drained_source_keeps_what_comes_back(source):
    core, port, edge = source
    core.returned([1, 2, 3, 4])
    port.take()
    core.drain("shutdown")
    core.receive((m.CANCEL, edge, LEFT, 1, 1))
    late = subscription("d", "stage")
    core.receive((m.SUBSCRIBE, late))
    assert core.state == "ended"
    assert port.events() == []
    assert core.out.queue.size == 3


def test_a_source_that_nobody_has_asked_ends_at_once(start):
    core, _ = start(m.PRODUCER)
    core.emit([1, 2])
    core.drain("shutdown")
    assert core.state == "ended"
    assert core.out.queue.size == 2


def test_a_drained_consumer_gives_back_what_it_has_not_begun_and_finishes_the_rest(consumer):
    core, port, edge = consumer
    core.receive((m.EVENTS, edge, [1, 2, 3, 4]))
    assert core.callback[1][0] == [1, 2]
    core.drain("shutdown")
    assert core.state == "finishing"
    core.returned(None)
    assert core.state == "ended"
    assert core.completed
    assert [message[3:] for message in port.take(m.CANCEL)] == [(2, 2)]


def test_a_drained_middle_stage_answers_for_what_it_has_begun(middle):
    core, port, up, down = middle
    core.receive((m.EVENTS, up, [1, 2, 3, 4]))
    core.drain("shutdown")
    core.returned(["a", "b"])
    assert [message[3:] for message in port.take(m.CANCEL)] == [(0, 2)]
    assert core.state == "finishing"
    core.receive((m.ASK, down, 10, 2))
    assert core.state == "ended"
    assert port.take(m.CLOSED) == [(m.CLOSED, up, 2)]


def test_a_drained_middle_stage_keeps_its_outputs_until_somebody_takes_them(start):
    core, port = start(m.PRODUCER_CONSUMER)
    up, down = subscription("stage", "p", max_demand=4, min_demand=0), subscription("d", "stage")
    core.subscribe(up)
    core.receive((m.SUBSCRIBE, down))
    core.receive((m.ASK, down, 1, 0))
    core.receive((m.EVENTS, up, [1]))
    core.returned(["a", "b"])
    core.drain("shutdown")
    core.receive((m.ASK, down, 1, 1))
    assert core.state == "finishing"
    core.receive((m.ASK, down, 2, 1))
    core.receive((m.ASK, down, 2, 2))
    assert [batch for _, batch in port.events()] == [["a"], ["b"]]
    assert core.state == "ended"


def test_a_stage_may_be_drained_of_one_producer_and_go_on_with_another(start):
    core, port = start(m.CONSUMER)
    one, other = subscription("stage", "p"), subscription("stage", "q")
    core.subscribe(one)
    core.subscribe(other)
    core.drain("shutdown", [one])
    assert core.state == "running"
    assert [message[1] for message in port.take(m.CANCEL)] == [one]
    core.receive((m.EVENTS, other, [1]))
    assert core.callback == (m.HANDLE_EVENTS, ([1], other))


def test_a_paused_stage_that_is_drained_begins_nothing(consumer):
    core, port, edge = consumer
    core.pause()
    core.receive((m.EVENTS, edge, [1, 2]))
    core.drain("shutdown")
    assert core.callback is None
    assert core.state == "ended"
    assert [message[3:] for message in port.take(m.CANCEL)] == [(0, 0)]


def test_a_paused_source_that_is_drained_asks_for_nothing(start):
    core, _ = start(m.PRODUCER)
    core.pause()
    edge = subscription("c", "stage")
    core.receive((m.SUBSCRIBE, edge))
    core.receive((m.ASK, edge, 4, 0))
    core.drain("shutdown")
    assert core.callback is None
    assert core.state == "ended"


def test_draining_twice_and_draining_the_dead_is_nothing(source):
    core, _, edge = source
    core.returned([1])
    core.drain("shutdown")
    core.drain("again")
    core.receive((m.ASK, edge, 4, 1))
    core.drain("once more")
    assert core.reason == "shutdown"


def test_a_crash_while_draining_is_a_crash(consumer):
    core, port, edge = consumer
    core.receive((m.EVENTS, edge, [1, 2]))
    core.drain("shutdown")
    core.failed(ValueError("boom"))
    assert core.state == "ended"
    assert not core.completed
    assert [message[0] for message in port.take()] == [m.FAILED, m.CANCEL]


# -- pause -------------------------------------------------------------------------------------------------------------


def test_a_paused_consumer_handles_nothing_and_goes_on_where_it_was(consumer):
    core, _, edge = consumer
    core.pause()
    core.receive((m.EVENTS, edge, [1, 2]))
    core.receive((m.EVENTS, edge, [3]))
    assert core.callback is None
    core.resume()
    seen = []
    while core.callback is not None:
        seen.append(core.callback[1][0])
        core.returned(None)
    assert seen == [[1, 2], [3]]


def test_what_the_handler_has_when_a_stage_is_paused_is_finished(consumer):
    core, port, edge = consumer
    core.receive((m.EVENTS, edge, [1, 2, 3, 4]))
    core.pause()
    core.returned(None)
    assert core.callback is None
    core.flush()
    assert port.asks()[-1][1] == 2
    core.resume()
    assert core.callback[1][0] == [3, 4]


def test_a_paused_source_is_asked_for_nothing_and_then_for_what_is_missing(source):
    core, port, edge = source
    core.pause()
    core.returned([1])
    core.receive((m.ASK, edge, 6, 1))
    assert core.callback is None
    assert port.events() == [("c", [1])], "what it gives is sent"
    core.resume()
    assert core.callback == (m.HANDLE_DEMAND, (2,)), "three are owed still"


def test_a_paused_middle_stage_sends_what_it_has(middle):
    core, port, up, _ = middle
    core.receive((m.EVENTS, up, [1, 2]))
    core.pause()
    core.returned(["a"])
    assert port.events() == [("d", ["a"])]
    core.receive((m.EVENTS, up, [3]))
    assert core.callback is None
    core.resume()
    assert core.callback == (m.HANDLE_EVENTS, ([3], up))


def test_an_info_stays_behind_the_events_that_a_pause_holds_up(consumer):
    core, _, edge = consumer
    core.pause()
    core.receive((m.EVENTS, edge, [1]))
    core.receive((m.INFO, "after"))
    assert core.callback is None
    core.resume()
    assert core.callback[0] == m.HANDLE_EVENTS
    core.returned(None)
    assert core.callback == (m.HANDLE_INFO, ("after",))


def test_a_paused_stage_can_be_stopped(consumer):
    core, port, edge = consumer
    core.pause()
    core.receive((m.EVENTS, edge, [1]))
    core.stop("shutdown")
    assert core.state == "ended"
    assert [message[3:] for message in port.take(m.CANCEL)] == [(0, 0)]


def test_resuming_what_was_not_paused_is_nothing(consumer):
    core, _, edge = consumer
    core.resume()
    core.receive((m.EVENTS, edge, [1]))
    assert core.callback[0] == m.HANDLE_EVENTS
