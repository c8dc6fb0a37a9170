"""Messages that break the rules: for an unknown subscription, a second time, or to the wrong role."""

from types import SimpleNamespace

from headgate import End, PeerError, Subscription, SubscriptionError, Terms
from headgate.protocol import messages as m
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.stage import StageCore
from tests.parity.bench import RecordingPort
from tests.parity.registry import different


def running(role):
    """Return the core of a stage that has started, and its port."""
    port = RecordingPort("stage")
    dispatcher = None if role == m.CONSUMER else DemandDispatcher()
    core = StageCore(port, role, {m.HANDLE_DEMAND, m.HANDLE_EVENTS}, dispatcher)
    core.start()
    assert core.state == "running"
    return core, port


PEER = SimpleNamespace(name="peer")
US = SimpleNamespace(name="stage")


def test_a_second_subscription_of_the_same_name_is_refused():
    """G097: with a reason that says duplicated."""
    core, port = running(m.PRODUCER)
    subscription = Subscription(1, US, PEER, Terms())
    core.receive((m.SUBSCRIBE, subscription))
    assert port.messages == [(PEER, (m.SUBSCRIBED, subscription))]
    port.messages.clear()
    core.receive((m.SUBSCRIBE, subscription))
    [(to, (tag, refused, error))] = port.messages
    assert (to, tag, refused) == (PEER, m.REFUSED, subscription)
    assert isinstance(error, SubscriptionError)
    assert "duplicated_subscription" in str(error)
    assert list(core.out.subscribers) == [subscription]


def test_an_ask_for_an_unknown_subscription_is_answered_by_a_cancel():
    """G098: with a reason that says unknown."""
    core, port = running(m.PRODUCER)
    subscription = Subscription(1, US, PEER, Terms())
    core.receive((m.ASK, subscription, 10, 0))
    assert port.messages == [(PEER, (m.CANCELLED, subscription, End("cancel", "unknown_subscription")))]
    assert core.callback is None


@different(
    "G099",
    "who subscribes to a consumer gets a SubscriptionError; in the original it would wait for ever",
)
def test_a_subscribe_request_to_a_consumer_does_not_touch_it():
    """G099: the subscriber is told."""
    core, port = running(m.CONSUMER)
    subscription = Subscription(1, US, PEER, Terms())
    core.receive((m.SUBSCRIBE, subscription))
    [(to, (tag, refused, error))] = port.messages
    assert (to, tag, refused) == (PEER, m.REFUSED, subscription)
    assert "it is a consumer" in str(error)
    assert not error.missing
    assert (core.state, core.callback) == ("running", None)


def test_events_for_an_unknown_subscription_are_dropped_and_answered_by_a_cancel():
    """G100: with a reason that says unknown."""
    core, port = running(m.CONSUMER)
    subscription = Subscription(1, PEER, US, Terms())
    core.receive((m.EVENTS, subscription, [1, 2, 3]))
    assert port.messages == [(PEER, (m.CANCEL, subscription, End("cancel", "unknown_subscription"), 0, 0))]
    assert (core.state, core.callback) == ("running", None)


def test_events_for_a_producer_are_reported_and_ignored():
    """G101: it goes on."""
    core, port = running(m.PRODUCER)
    core.receive((m.EVENTS, Subscription(1, PEER, US, Terms()), [1, 2, 3]))
    [error] = port.errors
    assert isinstance(error, PeerError)
    assert "'stage' is a producer" in str(error)
    assert port.messages == []
    assert (core.state, core.callback) == ("running", None)
