# mypy: disable-error-code="func-returns-value,has-type,var-annotated"
"""One stage, message by message: calls, holding demand, the ends of subscriptions, and its own end."""

import pytest

from headgate import (
    HandlerError,
    NoStageError,
    StageCrashed,
    Stop,
)
from headgate.protocol import messages as m
from headgate.protocol.messages import End
from tests.unit.protocol.fakes import consumer, producer, run, subscription

LEFT = End("cancel", "normal")


# --- ends of subscriptions --------------------------------------------------------------------------------------------

MODES = [
    ("permanent", "normal", True),
    ("permanent", "shutdown", True),
    ("permanent", ("shutdown", "why"), True),
    ("permanent", "oops", True),
    ("transient", "normal", False),
    ("transient", "shutdown", False),
    ("transient", ("shutdown", "why"), False),
    ("transient", "oops", True),
    ("temporary", "normal", False),
    ("temporary", "oops", False),
]


@pytest.mark.parametrize("kind", ["cancel", "down"])
@pytest.mark.parametrize(("mode", "reason", "ends"), MODES)
def test_cancel_modes(kind, mode, reason, ends):
    """GS-075 to GS-077, GS-080: the raw reason; handle_cancel comes first."""
    seen = []
    core, port, feed, made = consumer(
        {"handle_cancel": lambda end, peer: seen.append((end, peer, core.state))}, cancel=mode
    )
    port.take()
    end = End(kind, reason)
    feed(m.CANCELLED, made, end)
    assert seen == [(end, made, "running")]
    assert port.end == ([reason] if ends else [])
    assert port.take(m.CLOSED) == [(m.CLOSED, made, 0)]


def test_an_end_waits_behind_the_events_that_came_before_it():
    log = []
    handlers = {
        "handle_events": lambda events, source: log.append(events),
        "handle_cancel": lambda end, peer: log.append(end.kind),
    }
    core, _, _, made = consumer(handlers, max_demand=2, min_demand=1)
    for message in [(m.EVENTS, made, [1, 2]), (m.CANCELLED, made, End("down", "normal"))]:
        core.receive(message)
    run(core, handlers)
    assert log == [[1], [2], "down"]


def test_the_end_of_one_stream_of_several_ends_nobody():
    core, port, feed, made = consumer()
    second = subscription(producer="other")
    core.subscribe(second)
    feed()
    feed(m.CANCELLED, made, End("down", "normal", finished=True))
    assert core.state == "running"
    feed(m.CANCELLED, second, End("down", "normal", finished=True))
    assert port.end == ["normal"]


def test_the_canceller_lives_on():
    core, port, feed, made = consumer()
    port.take()
    assert core.cancel(made, "any reason")
    feed()
    assert core.state == "running"
    assert port.take(m.CANCEL) == [(m.CANCEL, made, End("cancel", "any reason"), 0, 0)]
    assert not core.cancel(made, "again")


# --- calls and other messages -----------------------------------------------------------------------------------------


def test_events_of_a_call_go_out_before_the_answer():
    core, port, feed = producer({"handle_call": lambda request: core.emit([1]) or "answer"})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 5, 0)
    port.order.clear()
    feed(m.CALL, "request", "token")
    assert port.order == ["events", "reply"]
    assert port.replies == [("token", "answer", None)]


def test_a_call_that_raises_is_answered_and_ends_the_stage():
    core, port, feed = producer({"handle_call": lambda request: 1 / 0})
    feed(m.CALL, "request", "token")
    [(token, _, error)] = port.replies
    assert token == "token"
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert core.state == "ended"


def test_a_call_without_a_handler_is_answered():
    core, port, feed = producer({})
    feed(m.CALL, "request", "token")
    [(_, _, error)] = port.replies
    assert isinstance(error, HandlerError)
    assert core.state == "running"


def test_calls_that_wait_when_the_stage_ends_are_answered():
    core, port, _ = producer({"handle_call": None, "handle_cast": None})
    core.receive((m.CAST, 1))
    core.receive((m.CALL, "request", "waiting"))
    core.receive((m.STOP, "normal"))
    core.returned(None)
    [(token, _, error)] = port.replies
    assert token == "waiting"
    assert isinstance(error, NoStageError)


def test_messages_without_a_handler_end_nobody():
    core, port, feed = producer({})
    feed(m.CAST, "cast")
    feed(m.INFO, "info")
    feed(m.TELL, "tell")
    assert core.state == "running"
    assert isinstance(port.errors[0], HandlerError)
    assert len(port.warnings) == 2


# --- the end ----------------------------------------------------------------------------------------------------------


def test_terminate_is_told_why_and_comes_before_the_peers_know():
    seen = []
    _core, port, feed = producer({"terminate": lambda reason: seen.append((reason, port.take(m.CANCELLED)))})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.STOP, "enough")
    assert seen == [("enough", [])]
    assert port.take(m.CANCELLED) == [(m.CANCELLED, made, End("down", "enough"))]


def test_there_is_no_terminate_after_a_kill():
    seen = []
    _core, port, feed = producer({"terminate": seen.append})
    feed(m.KILL, "killed")
    assert not seen
    assert port.end == ["killed"]


def test_a_terminate_that_raises_is_reported_and_the_reason_stays():
    _core, port, feed = producer({"terminate": lambda reason: 1 / 0})
    feed(m.STOP, "normal")
    assert port.end == ["normal"]
    assert isinstance(port.errors[0].__cause__, ZeroDivisionError)


def test_stop_in_a_handler_ends_the_stage_and_its_batch_counts_as_handled():
    def handle(events, source):
        raise Stop(("shutdown", "enough"))

    _core, port, feed, made = consumer({"handle_events": handle})
    port.take()
    feed(m.EVENTS, made, [1, 2])
    assert port.end == [("shutdown", "enough")]
    [(_, _, end, acked, handled)] = port.take(m.CANCEL)
    assert (end.reason, acked, handled) == (("shutdown", "enough"), 2, 2)


def test_what_a_crash_had_in_its_hands_was_not_handled():
    def handle(events, source):
        if 3 in events:
            raise ValueError(events)

    _core, port, feed, made = consumer({"handle_events": handle}, max_demand=4, min_demand=2)
    port.take()
    feed(m.EVENTS, made, [1, 2, 3, 4])
    [(_, which, end, acked, handled)] = port.take(m.CANCEL)
    assert (which, end.kind, acked, handled) == (made, "down", 2, 2)
    assert isinstance(end.reason, StageCrashed)


def test_a_kill_abandons_what_runs():
    core, port, _, made = consumer()
    port.take()
    core.receive((m.EVENTS, made, [1, 2]))
    core.receive((m.KILL, "killed"))
    [(_, _, _, acked, _)] = port.take(m.CANCEL)
    assert acked == 0
    assert core.callback is None


def test_the_first_reason_counts():
    core, port, _ = producer({"handle_cast": None})
    core.receive((m.CAST, 1))
    core.receive((m.STOP, "first"))
    core.receive((m.STOP, "second"))
    core.returned(None)
    assert port.end == ["first"]


def test_a_finishing_stage_ends_when_all_is_handled_and_says_so():
    core, port, feed = producer({"handle_demand": None})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    core.receive((m.ASK, made, 2, 0))
    core.finish()
    core.returned([1, 2, 3])
    assert core.state == "finishing"
    feed(m.ASK, made, 4, 2)
    assert core.state == "finishing"
    feed(m.ASK, made, 4, 3)
    assert port.end == ["normal"]
    assert port.take(m.CANCELLED) == [(m.CANCELLED, made, End("down", "normal", finished=True))]


def test_a_finishing_stage_asks_for_nothing_more():
    demands = []
    core, _, feed = producer({"handle_demand": lambda demand: demands.append(demand) or [1]})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 1, 0)
    core.finish()
    feed(m.ASK, made, 10, 0)
    assert demands == [1]


def test_a_stage_with_nothing_to_do_finishes_at_once():
    core, port, _ = producer({})
    core.finish("shutdown")
    assert port.end == ["shutdown"]


def test_who_subscribes_to_an_ended_stage_is_refused():
    core, port, _ = producer({})
    core.receive((m.STOP, "normal"))
    port.take()
    made = subscription()
    core.refuse((m.SUBSCRIBE, made))
    [(tag, which, error)] = port.take()
    assert (tag, which, error.missing) == (m.REFUSED, made, True)


# --- accumulate -------------------------------------------------------------------------------------------------------


def test_accumulated_asks_are_replayed_one_by_one():
    """G023."""
    demands = []
    core, _, feed = producer({"handle_demand": lambda demand: demands.append(demand) or [0] * demand}, accumulate=True)
    for name in "ab":
        made = subscription(name)
        feed(m.SUBSCRIBE, made)
        feed(m.ASK, made, 2, 0)
    assert demands == []
    core.set_demand("forward")
    feed()
    assert demands == [2, 2]


def test_accumulating_holds_events_too():
    core, port, feed = producer({})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 5, 0)
    port.take()
    core.set_demand("accumulate")
    core.emit([1])
    core.emit([2])
    assert port.events() == []
    core.set_demand("forward")
    assert port.events() == [("consumer", [1, 2])]


def test_demand_that_has_left_meanwhile_is_not_replayed():
    demands = []
    core, _, feed = producer({"handle_demand": lambda demand: demands.append(demand) or [0] * demand}, accumulate=True)
    made = subscription("a")
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 5, 0)
    feed(m.CANCEL, made, LEFT, 0, 0)
    core.set_demand("forward")
    feed()
    assert demands == []


def test_a_consumer_has_no_demand_to_hold():
    core, port, _, _ = consumer()
    core.set_demand("accumulate")
    assert len(port.warnings) == 1
