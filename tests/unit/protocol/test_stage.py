"""One stage, message by message: what enters when, one callback at a time, and how it ends."""

import pytest

from headgate import (
    BroadcastDispatcher,
    BufferOverflowError,
    DemandDispatcher,
    HandlerError,
    Ignore,
    NoStageError,
    PeerError,
    StageCrashed,
    Stop,
    SubscriptionError,
)
from headgate.protocol import messages as m
from headgate.protocol.messages import End
from headgate.protocol.stage import StageCore
from tests.unit.protocol.fakes import Port, run, started, subscription

LEFT = End("cancel", "normal")


def producer(handlers=None, **options):
    return started(m.PRODUCER, handlers or {}, options.pop("dispatcher", None) or DemandDispatcher(), **options)


def consumer(handlers=None, **terms):
    core, port, feed = started(m.CONSUMER, {"handle_events": lambda events, source: None, **(handlers or {})})
    made = subscription(producer="producer", **terms)
    core.subscribe(made)
    feed()
    return core, port, feed, made


def middle(handle_events, *, max_demand=10, min_demand=5, **options):
    core, port, feed = started(m.PRODUCER_CONSUMER, {"handle_events": handle_events}, DemandDispatcher(), **options)
    up = subscription("stage", "up", max_demand=max_demand, min_demand=min_demand)
    core.subscribe(up)
    feed()
    down = subscription("down", "stage")
    feed(m.SUBSCRIBE, down)
    port.take()
    return core, port, feed, up, down


# --- asking -----------------------------------------------------------------------------------------------------------


def test_an_ask_becomes_demand_and_the_events_go_out():
    demands = []
    core, port, feed = producer({"handle_demand": lambda demand: demands.append(demand) or [0] * demand})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    assert port.take() == [(m.SUBSCRIBED, made)]
    feed(m.ASK, made, 10, 0)
    feed(m.ASK, made, 15, 10)
    assert demands == [10, 5]
    assert [len(events) for _, events in port.events()] == [10, 5]


def test_a_producer_that_gives_less_is_not_asked_again_for_the_same():
    demands = []
    core, port, feed = producer({"handle_demand": lambda demand: demands.append(demand) or [1]})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 10, 0)
    feed(m.ASK, made, 12, 1)
    assert demands == [10, 2]
    core.emit([2, 3])
    assert core.out.requested == 8
    assert sum(len(events) for _, events in port.events()) == 4


def test_a_producer_that_gives_more_is_not_asked_until_it_is_used_up():
    demands = []
    core, _, feed = producer({"handle_demand": lambda demand: demands.append(demand) or [0] * 25})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 10, 0)
    feed(m.ASK, made, 20, 10)
    assert demands == [10]
    feed(m.ASK, made, 30, 20)
    assert demands == [10, 5]


def test_events_come_by_emit_alone_when_there_is_no_handle_demand():
    core, port, feed = producer({})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    assert feed(m.ASK, made, 10, 0) == []
    core.emit([1])
    assert port.events() == [("consumer", [1])]


def test_an_ask_of_a_stranger_is_answered():
    _, port, feed = producer({})
    stranger = subscription()
    feed(m.ASK, stranger, 10, 0)
    assert port.take() == [(m.CANCELLED, stranger, End("cancel", "unknown_subscription"))]


def test_events_of_a_stranger_are_answered():
    _, port, feed, _ = consumer()
    port.take()
    stranger = subscription()
    feed(m.EVENTS, stranger, [1])
    assert port.take() == [(m.CANCEL, stranger, End("cancel", "unknown_subscription"), 0, 0)]


def test_a_producer_that_is_sent_events_says_so_and_lives():
    core, port, feed = producer({})
    feed(m.EVENTS, subscription(), [1])
    [error] = port.errors
    assert isinstance(error, PeerError)
    assert core.state == "running"


# --- one callback at a time -------------------------------------------------------------------------------------------


def test_while_a_callback_is_outstanding_messages_wait_in_order():
    core, _, _ = producer({"handle_cast": lambda message: None, "handle_call": lambda request: None})
    core.receive((m.CAST, 1))
    assert core.callback == ("handle_cast", (1,))
    core.receive((m.CAST, 2))
    core.receive((m.CALL, 3, "token"))
    assert core.callback == ("handle_cast", (1,))
    core.returned(None)
    assert core.callback == ("handle_cast", (2,))
    core.returned(None)
    assert core.callback == ("handle_call", (3,))


def test_work_that_was_begun_comes_before_messages_that_came_later():
    core, _, _, made = consumer({"handle_cast": lambda message: None}, max_demand=4, min_demand=2)
    core.receive((m.EVENTS, made, [1, 2, 3, 4]))
    core.receive((m.CAST, "later"))
    log = [each[1][0] for each in run(core, {})]
    assert log == [[1, 2], [3, 4], "later"]


def test_what_a_callback_led_to_comes_before_both():
    core, port, _ = producer({"handle_cast": lambda message: None, "handle_info": lambda message: None})
    core.receive((m.CAST, 1))
    core.receive((m.CAST, 2))
    core.info("led to")
    log = [each[1][0] for each in run(core, {})]
    assert log == [1, "led to", 2]


@pytest.mark.parametrize("message", [(m.STOP, "normal"), (m.KILL, "killed")])
def test_a_stop_and_a_kill_need_not_wait_in_line(message):
    core, port, _ = producer({"handle_cast": lambda message: None})
    core.receive((m.CAST, 1))
    core.receive((m.CAST, 2))
    core.receive(message)
    if message[0] == m.STOP:
        assert core.state == "running", "the callback is finished first"
        core.returned(None)
    assert port.end == [message[1]]


def test_a_leave_takes_effect_at_once():
    core, port, _ = producer({"handle_cast": lambda message: None})
    made, other = subscription("a"), subscription("b")
    for each in (made, other):
        core.receive((m.SUBSCRIBE, each))
        core.receive((m.ASK, each, 2, 0))
    core.emit([1, 2])
    port.take()
    core.receive((m.CAST, 1))
    core.receive((m.CANCEL, made, LEFT, 0, 0))
    assert port.events() == [("b", [1, 2])], "its events went on while the callback still runs"


# --- starting ---------------------------------------------------------------------------------------------------------


def test_started_comes_first():
    port = Port()
    core = StageCore(port, m.PRODUCER, {"started", "handle_cast"}, DemandDispatcher())
    core.start()
    assert (core.state, core.callback) == ("starting", ("started", ()))
    core.receive((m.CAST, 1))
    core.returned(None)
    assert (core.state, core.callback) == ("running", ("handle_cast", (1,)))


def test_a_stage_may_decide_not_to_run():
    port = Port()
    core = StageCore(port, m.PRODUCER, {"started", "terminate"}, DemandDispatcher())
    core.start()
    core.failed(Ignore())
    assert core.state == "ended"
    assert isinstance(port.end[0], Ignore)


def test_a_crash_in_started_ends_it_with_its_cause():
    port = Port()
    core = StageCore(port, m.PRODUCER, {"started"}, DemandDispatcher())
    core.start()
    error = ValueError("no")
    core.failed(error)
    [reason] = port.end
    assert isinstance(reason, StageCrashed)
    assert reason.__cause__ is error


# --- subscribing ------------------------------------------------------------------------------------------------------


def test_the_callback_of_the_consumer_comes_before_its_first_ask():
    core, port, _ = started(m.CONSUMER, {"handle_events": None, "handle_subscribe": None})
    made = subscription(producer="producer")
    core.subscribe(made)
    assert core.callback == ("handle_subscribe", ("producer", made.terms, made))
    assert not port.take(m.ASK)
    core.returned(None)
    assert port.asks() == [(1000, 0)]


def test_the_callback_of_the_consumer_may_choose_manual():
    core, port, _ = started(m.CONSUMER, {"handle_events": None, "handle_subscribe": None})
    core.subscribe(subscription(producer="producer"))
    core.returned("manual")
    assert not port.take(m.ASK)


@pytest.mark.parametrize("value", ["Manual", 5, True, [], ("manual",)])
def test_another_answer_of_the_consumer_is_an_error(value):
    core, port, _ = started(m.CONSUMER, {"handle_events": None, "handle_subscribe": None})
    core.subscribe(subscription(producer="producer"))
    core.returned(value)
    assert isinstance(port.end[0].__cause__, HandlerError)


def test_a_producer_cannot_choose_manual():
    core, port, _ = producer({"handle_subscribe": None})
    core.receive((m.SUBSCRIBE, subscription()))
    core.returned("manual")
    error = port.end[0].__cause__
    assert isinstance(error, HandlerError)
    assert "'automatic'" in str(error)


def test_a_refused_subscription_is_answered_and_changes_nothing():
    core, port, feed = producer({}, dispatcher=BroadcastDispatcher())
    first, second = subscription("a"), subscription("a")
    feed(m.SUBSCRIBE, first)
    port.take()
    feed(m.SUBSCRIBE, second)
    [(tag, which, error)] = port.take()
    assert (tag, which) == (m.REFUSED, second)
    assert isinstance(error, SubscriptionError)
    assert not error.missing
    assert list(core.out.subscribers) == [first]


def test_the_same_subscription_twice_is_refused():
    _, port, feed = producer({})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    port.take()
    feed(m.SUBSCRIBE, made)
    assert port.take()[0][0] == m.REFUSED


def test_a_consumer_has_nothing_to_subscribe_to():
    _, port, feed, _ = consumer()
    port.take()
    feed(m.SUBSCRIBE, subscription())
    [(tag, _, error)] = port.take()
    assert tag == m.REFUSED
    assert "it is a consumer" in str(error)


def test_a_producer_cannot_subscribe():
    core, port, _ = producer({})
    made = subscription()
    core.subscribe(made)
    [(which, error)] = port.subscriptions
    assert which is made
    assert "a producer cannot subscribe" in str(error)


@pytest.mark.parametrize(("mode", "lives"), [("permanent", False), ("transient", False), ("temporary", True)])
def test_a_missing_producer_stops_all_but_temporary_consumers(mode, lives):
    core, port, feed, made = consumer(cancel=mode)
    feed(m.REFUSED, made, SubscriptionError("stage", "producer", "there is none", missing=True))
    assert (core.state == "running") is lives
    assert port.subscriptions[0][1].missing


def test_a_refusal_stops_nobody():
    core, port, feed, made = consumer()
    feed(m.REFUSED, made, SubscriptionError("stage", "producer", "no"))
    assert core.state == "running"
    assert not core.into.windows


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
    core, port, feed, made = consumer({"handle_cancel": lambda end, peer: seen.append((end, peer, core.state))}, cancel=mode)
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


# --- middle stages ----------------------------------------------------------------------------------------------------


def test_a_middle_stage_handles_nothing_that_nobody_wants():
    core, port, feed, up, down = middle(lambda events, source: events)
    assert feed(m.EVENTS, up, [1, 2, 3]) == []
    assert not port.asks()
    feed(m.ASK, down, 2, 0)
    assert port.events() == [("down", [1, 2])]


def test_a_middle_stage_that_gives_nothing_goes_on_asking():
    core, port, feed, up, down = middle(lambda events, source: None, max_demand=4, min_demand=2)
    feed(m.ASK, down, 1, 0)
    for turn in range(1, 10):
        feed(m.EVENTS, up, [0, 0, 0, 0])
        asks = port.asks()
        assert asks[-1] == (4 + 4 * turn, 4 * turn)


def test_an_input_is_acknowledged_when_its_outputs_are():
    core, port, feed, up, down = middle(lambda events, source: events * 2, max_demand=4, min_demand=0)
    feed(m.ASK, down, 100, 0)
    feed(m.EVENTS, up, [1, 2, 3, 4])
    assert port.asks() == [(8, 0)], "more is asked, and nothing acknowledged"
    feed(m.ASK, down, 100, 7)
    core.flush()
    assert not port.asks()
    feed(m.ASK, down, 100, 8)
    core.flush()
    assert port.asks() == [(8, 4)]


def test_a_middle_stage_holds_an_info_behind_what_waits():
    log = []
    core, port, _ = started(m.PRODUCER_CONSUMER, {"handle_events": None, "handle_info": None}, DemandDispatcher())
    handlers = {"handle_events": lambda events, source: log.append(events), "handle_info": log.append}
    up, down = subscription("stage", "up"), subscription("down", "stage")
    core.subscribe(up)
    core.receive((m.SUBSCRIBE, down))
    run(core, {})
    core.receive((m.EVENTS, up, [1]))
    core.receive((m.INFO, "after 1"))
    run(core, handlers)
    assert log == []
    core.receive((m.ASK, down, 1, 0))
    run(core, handlers)
    assert log == [[1], "after 1"]


def test_the_expansion_of_a_middle_stage_is_bounded():
    """genstage.md GS-115: there 496 events wait at a demand of 4."""
    core, port, feed, up, down = middle(lambda events, source: events * 50, max_demand=10, min_demand=9)
    feed(m.ASK, down, 4, 0)
    feed(m.EVENTS, up, list(range(10)))
    assert core.out.queue.size <= 1000 + 50
    assert sum(len(events) for _, events in port.events()) == 4


# --- what callbacks return --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [5, "text", b"x", {"a": 1}, {1}, iter([1]), object(), True], ids=repr)
def test_a_producer_that_returns_no_sequence_ends_with_a_typed_error(value):
    core, port, feed = producer({"handle_demand": lambda demand: value})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 1, 0)
    error = port.end[0].__cause__
    assert isinstance(error, HandlerError)
    assert (error.stage, error.callback, error.got) == ("stage", "handle_demand", value)


@pytest.mark.parametrize("value", [[1], (1,), 5, "text", {"a": 1}], ids=repr)
def test_a_consumer_that_returns_something_is_told_and_lives(value):
    core, port, feed, made = consumer({"handle_events": lambda events, source: value})
    feed(m.EVENTS, made, [1])
    [error] = port.errors
    assert isinstance(error, HandlerError)
    assert "a consumer dispatches no events" in str(error)
    assert core.state == "running"
    assert core.into.handled == 1


def test_a_surplus_is_reported_with_the_events_themselves():
    core, port, feed = producer({"handle_demand": lambda demand: list(range(demand + 5))}, buffer_size=3)
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 10, 0)
    [error] = port.errors
    assert isinstance(error, BufferOverflowError)
    assert error.refused == [13, 14]
    assert core.state == "running"


def test_a_surplus_of_emit_is_raised_where_it_was_emitted():
    core, _, _ = producer({}, buffer_size=2)
    with pytest.raises(BufferOverflowError) as caught:
        core.emit([1, 2, 3])
    assert caught.value.refused == [3]
    assert core.out.queue.size == 2


def test_what_the_buffer_drops_is_told():
    seen = []
    core, port, feed = producer({"handle_discarded": lambda count: seen.append(count) or True}, buffer_size=2, buffer_keep="last")
    core.emit([1, 2, 3, 4, 5])
    feed()
    assert seen == [3]
    assert "3 events" in port.warnings[0]


@pytest.mark.parametrize(("answer", "logged"), [(True, 1), (False, 0), (None, 0)])
def test_the_callback_decides_whether_a_drop_is_logged(answer, logged):
    core, port, feed = producer({"handle_discarded": lambda count: answer}, buffer_size=1, buffer_keep="first")
    core.emit([1, 2])
    feed()
    assert len(port.warnings) == logged


def test_a_drop_is_logged_when_there_is_no_callback():
    core, port, feed = producer({}, buffer_size=1, buffer_keep="first")
    core.emit([1, 2])
    feed()
    assert len(port.warnings) == 1


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
    core, port, feed = producer({"terminate": lambda reason: seen.append((reason, port.take(m.CANCELLED)))})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.STOP, "enough")
    assert seen == [("enough", [])]
    assert port.take(m.CANCELLED) == [(m.CANCELLED, made, End("down", "enough"))]


def test_there_is_no_terminate_after_a_kill():
    seen = []
    core, port, feed = producer({"terminate": seen.append})
    feed(m.KILL, "killed")
    assert not seen
    assert port.end == ["killed"]


def test_a_terminate_that_raises_is_reported_and_the_reason_stays():
    core, port, feed = producer({"terminate": lambda reason: 1 / 0})
    feed(m.STOP, "normal")
    assert port.end == ["normal"]
    assert isinstance(port.errors[0].__cause__, ZeroDivisionError)


def test_stop_in_a_handler_ends_the_stage_and_its_batch_counts_as_handled():
    def handle(events, source):
        raise Stop(("shutdown", "enough"))

    core, port, feed, made = consumer({"handle_events": handle})
    port.take()
    feed(m.EVENTS, made, [1, 2])
    assert port.end == [("shutdown", "enough")]
    [(_, _, end, acked, handled)] = port.take(m.CANCEL)
    assert (end.reason, acked, handled) == (("shutdown", "enough"), 2, 2)


def test_what_a_crash_had_in_its_hands_was_not_handled():
    def handle(events, source):
        if 3 in events:
            raise ValueError(events)

    core, port, feed, made = consumer({"handle_events": handle}, max_demand=4, min_demand=2)
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
