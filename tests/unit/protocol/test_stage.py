# mypy: disable-error-code="func-returns-value"
"""One stage, message by message: what enters when, one callback at a time, and how it ends."""

import pytest

from headgate import (
    BroadcastDispatcher,
    BufferOverflowError,
    DemandDispatcher,
    HandlerError,
    Ignore,
    PeerError,
    StageCrashed,
    SubscriptionError,
)
from headgate.protocol import messages as m
from headgate.protocol.messages import End
from headgate.protocol.stage import StageCore
from tests.ids import shown
from tests.unit.protocol.fakes import Port, consumer, middle, producer, run, started, subscription

LEFT = End("cancel", "normal")


# --- asking -----------------------------------------------------------------------------------------------------------


def test_an_ask_becomes_demand_and_the_events_go_out():
    demands = []
    _core, port, feed = producer({"handle_demand": lambda demand: demands.append(demand) or [0] * demand})
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
    _core, _, feed = producer({"handle_demand": lambda demand: demands.append(demand) or [0] * 25})
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
    core, _port, _ = producer({"handle_cast": lambda message: None, "handle_info": lambda message: None})
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
    core, _port, feed, made = consumer()
    feed(m.REFUSED, made, SubscriptionError("stage", "producer", "no"))
    assert core.state == "running"
    assert not core.into.windows


# --- middle stages ----------------------------------------------------------------------------------------------------


def test_a_middle_stage_handles_nothing_that_nobody_wants():
    _core, port, feed, up, down = middle(lambda events, source: events)
    assert feed(m.EVENTS, up, [1, 2, 3]) == []
    assert not port.asks()
    feed(m.ASK, down, 2, 0)
    assert port.events() == [("down", [1, 2])]


def test_a_middle_stage_that_gives_nothing_goes_on_asking():
    _core, port, feed, up, down = middle(lambda events, source: None, max_demand=4, min_demand=2)
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
    core, _port, _ = started(m.PRODUCER_CONSUMER, {"handle_events": None, "handle_info": None}, DemandDispatcher())
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


@pytest.mark.parametrize("value", [5, "text", b"x", {"a": 1}, {1}, iter([1]), object(), True], ids=shown)
def test_a_producer_that_returns_no_sequence_ends_with_a_typed_error(value):
    _core, port, feed = producer({"handle_demand": lambda demand: value})
    made = subscription()
    feed(m.SUBSCRIBE, made)
    feed(m.ASK, made, 1, 0)
    error = port.end[0].__cause__
    assert isinstance(error, HandlerError)
    assert (error.stage, error.callback, error.got) == ("stage", "handle_demand", value)


@pytest.mark.parametrize("value", [[1], (1,), 5, "text", {"a": 1}], ids=shown)
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
    core, port, feed = producer(
        {"handle_discarded": lambda count: seen.append(count) or True}, buffer_size=2, buffer_keep="last"
    )
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
