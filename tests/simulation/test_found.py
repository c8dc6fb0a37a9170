"""What the simulator has found, each reduced to the few steps that it takes."""

from collections import defaultdict

import pytest

from headgate.protocol import messages as m
from headgate.protocol.dispatch.broadcast import BroadcastDispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.dispatch.keyed import FairDispatcher
from headgate.protocol.dispatch.partition import PartitionDispatcher
from headgate.protocol.lane import LANES
from headgate.protocol.messages import End, Subscription, Terms
from headgate.protocol.stage import StageCore
from headgate.testing.simulation.world import Store

ALL = frozenset({m.HANDLE_EVENTS, m.HANDLE_DEMAND, m.HANDLE_INFO, m.HANDLE_CALL, m.TERMINATE})
LEFT = End("cancel", "normal")


class Wire:
    """A port that remembers what went out."""

    def __init__(self, name="stage"):
        self.name = name
        self.out = []
        self.answers = {}
        self.told = defaultdict(list)
        self.owes = False
        self.reason = None

    def send(self, to, message):
        self.out.append((to, message))

    hand = ask = send

    def reply(self, token, value, error):
        assert token not in self.answers
        self.answers[token] = error

    def subscribed(self, subscription, error):
        self.told[subscription].append(error)

    def owe(self):
        self.owes = True

    def report(self, error):
        pass

    def warn(self, text):
        pass

    def shuffle(self, items):
        pass

    def spill(self, name):
        return Store()

    def lost(self, subscription, error):
        return False

    def bury(self, letter, token):
        raise NotImplementedError

    def ended(self, reason):
        self.reason = reason

    def sent(self, tag, subscription=None):
        return [each for _, each in self.out if each[0] == tag and subscription in (None, each[1])]

    def events(self, subscription=None):
        return [event for message in self.sent(m.EVENTS, subscription) for event in message[2]]


@pytest.fixture(params=["core", "lane"])
def start(request):
    """Start a stage, by the long way and by the fast lane."""

    def make(role, dispatcher=None, defined=ALL, **options):
        wire = Wire()
        kind = StageCore if request.param == "core" else LANES[role]
        if role != m.CONSUMER and dispatcher is None:
            dispatcher = DemandDispatcher()
        core = kind(wire, role, defined, dispatcher, **options)
        core.start()
        return core, wire

    return make


def subscription(number, consumer="c", **terms):
    return Subscription(number, "p", consumer, Terms(10, 5)._replace(**terms))


def join(core, number, asked, consumer="c", **terms):
    edge = subscription(number, consumer, **terms)
    core.receive((m.SUBSCRIBE, edge))
    if asked:
        core.receive((m.ASK, edge, asked, 0))
    return edge


def idle(core):
    """Let the handlers return nothing."""
    while core.callback is not None:
        core.returned(None)


def test_a_leave_does_not_overtake_its_own_subscription(start):
    """The consumer subscribes and dies while the producer's handler runs: it must not be subscribed for ever."""
    core, wire = start(m.PRODUCER)
    join(core, 1, 2)
    assert core.callback == (m.HANDLE_DEMAND, (2,))
    late = join(core, 2, 5, consumer="dead")
    core.receive((m.CANCEL, late, LEFT, 0, 0))
    core.returned([1, 2])
    core.emit([3, 4])
    assert late not in core.out.subscribers
    assert wire.events(late) == []


def test_both_ends_leave_at_once_and_nothing_is_handled_twice(start):
    """What a middle stage has handled and not acknowledged stays with it when the producer cancels at the same time."""
    core, wire = start(m.PRODUCER)
    edge = join(core, 1, 4)
    core.returned([1, 2, 3, 4])
    core.cancel(edge, "normal")
    core.receive((m.CANCEL, edge, LEFT, 1, 3))
    other = join(core, 2, 10, consumer="d")
    assert wire.events(other) == [4]
    core.receive((m.CLOSED, edge, 3))
    assert wire.events(other) == [4]


def test_a_middle_stage_that_leaves_takes_only_its_own_demand_with_it(start):
    """Its unhandled events came off the dispatcher's count once more, so the others waited for ever."""
    core, wire = start(m.PRODUCER)
    first = join(core, 1, 10)
    core.returned([1, 2, 3, 4])
    second = join(core, 2, 2, consumer="d")
    idle(core)
    third = join(core, 3, 2, consumer="e")
    idle(core)
    core.receive((m.CANCEL, first, LEFT, 1, 2))
    assert core.out.dispatcher.wanted == 2
    core.emit([5, 6])
    assert sorted(wire.events(second) + wire.events(third)) == [3, 4, 5, 6]


def test_confirmations_of_a_leave_keep_their_order(start):
    """A middle stage leaves, confirms the rest, and answers an event that came late: no handled event comes back."""
    core, wire = start(m.PRODUCER)
    edge = join(core, 1, 6)
    core.returned([1, 2, 3, 4])
    assert core.callback is None
    core.receive((m.ASK, subscription(9), 1, 0))  # unknown; nothing happens but an answer
    other = join(core, 2, 5, consumer="d")
    assert core.callback is not None
    core.receive((m.CANCEL, edge, LEFT, 0, 4))
    core.receive((m.CLOSED, edge, 4))
    core.receive((m.CANCEL, edge, End("cancel", "unknown_subscription"), 0, 0))
    core.returned(None)
    assert wire.events(other) == []
    assert core.out.empty()


def test_events_that_come_after_a_leave_do_not_undo_what_was_said(start):
    """A middle stage that has left and still owes acknowledgements says nothing about events that were on their way."""
    core, wire = start(m.PRODUCER_CONSUMER)
    out = join(core, 1, 10)
    edge = subscription(2, consumer="stage")
    core.subscribe(edge)
    core.receive((m.EVENTS, edge, [1]))
    core.returned([1])
    core.cancel(edge, "normal")
    core.receive((m.EVENTS, edge, [2]))
    assert [message[3:] for message in wire.sent(m.CANCEL, edge)] == [(0, 1)]
    core.receive((m.ASK, out, 10, 1))
    assert wire.sent(m.CLOSED, edge) == [(m.CLOSED, edge, 1)]


def test_infos_that_wait_among_the_work_pass_in_order(start):
    """Two of them behind events that waited for demand sent each other to the back, for ever."""
    core, _ = start(m.PRODUCER_CONSUMER)
    edge = subscription(2, consumer="stage")
    core.subscribe(edge)
    core.receive((m.EVENTS, edge, [1, 2]))
    core.receive((m.INFO, "a"))
    core.receive((m.INFO, "b"))
    join(core, 1, 10)
    assert core.callback[0] == m.HANDLE_EVENTS
    core.returned(["x"])
    assert core.callback == (m.HANDLE_INFO, ("a",))
    core.returned(None)
    assert core.callback == (m.HANDLE_INFO, ("b",))


def test_a_call_is_answered_when_its_handler_is_killed(start):
    core, wire = start(m.CONSUMER)
    core.receive((m.CALL, "how?", "token"))
    assert core.callback == (m.HANDLE_CALL, ("how?",))
    core.receive((m.KILL, "killed"))
    assert wire.answers["token"] is not None


def test_nothing_runs_after_the_end(start):
    """A consumer leaves while ``terminate`` runs: there is no stage left that ``handle_cancel`` could be told."""
    core, _ = start(m.PRODUCER, defined=ALL | {m.HANDLE_CANCEL})
    edge = join(core, 1, 0)
    core.stop("normal")
    assert core.callback == (m.TERMINATE, ("normal",))
    core.receive((m.CANCEL, edge, LEFT, 0, 0))
    core.returned(None)
    assert core.state == "ended"
    assert core.callback is None
    assert not core.cancel(edge, "normal")
    assert core.callback is None


def test_whoever_subscribes_gets_an_answer(start):
    """The producer ends, or the consumer changes its mind, before the subscription was confirmed."""
    core, wire = start(m.CONSUMER)
    ended, withdrawn = subscription(1, cancel="temporary"), subscription(2)
    core.subscribe(ended)
    core.receive((m.CANCELLED, ended, End("down", "normal")))
    core.subscribe(withdrawn)
    core.cancel(withdrawn, "normal")
    assert wire.told[ended]
    assert wire.told[withdrawn]


def test_a_stage_that_finishes_asks_for_nothing_more(start):
    """Else a middle stage of an endless source never finishes."""
    core, wire = start(m.PRODUCER_CONSUMER)
    out = join(core, 1, 100, max_demand=100)
    edge = subscription(2, consumer="stage")
    core.subscribe(edge)
    core.receive((m.EVENTS, edge, list(range(5))))
    core.finish()
    asks = len(wire.sent(m.ASK))
    core.returned(list(range(5)))
    core.receive((m.EVENTS, edge, list(range(5))))
    core.returned(list(range(5)))
    assert [message[2] for message in wire.sent(m.ASK)[asks:]] in ([], [10])
    core.receive((m.ASK, out, 100, 10))
    assert core.callback is not None
    core.returned(None)
    assert core.state == "ended"


def test_an_info_does_not_pass_events_that_a_partition_sends_back(start):
    """The dispatcher takes a part of a batch and then blocks; the info behind the batch waits for the rest."""
    route = PartitionDispatcher(2, hash=lambda event: 0 if event < 5 else 1, queue_size=2)
    core, wire = start(m.PRODUCER, route, accumulate=True)
    slow = join(core, 1, 0, partition=0)
    join(core, 2, 10, consumer="d", partition=1)
    core.emit([0, 1, 2, 3, 4, 5])
    core.receive((m.INFO, "after"))
    core.set_demand("forward")
    core.receive((m.ASK, slow, 2, 0))
    assert wire.events(slow) == [0, 1]
    assert core.callback is None or core.callback[0] != m.HANDLE_INFO
    core.receive((m.ASK, slow, 5, 0))
    assert wire.events() == [0, 1, 2, 3, 4, 5]
    while core.callback[0] != m.HANDLE_INFO:
        core.returned(None)


def test_an_info_waits_for_what_was_spilled(start):
    """The outside store counts as well as the queue."""
    route = PartitionDispatcher(2, hash=lambda event: event % 2, queue_size=1, stuck="spill")
    core, wire = start(m.PRODUCER, route)
    edge = join(core, 1, 0, partition=0)
    join(core, 2, 10, consumer="d", partition=1)
    core.returned([0, 2, 4])
    assert route.queued() == {0: 3}
    idle(core)
    core.receive((m.INFO, "after"))
    seen = []
    for asked in range(1, 5):
        core.receive((m.ASK, edge, asked, 0))
        while core.callback is not None:
            if core.callback[0] == m.HANDLE_INFO:
                seen.append(wire.events(edge))
            core.returned(None)
    assert seen == [[0, 2, 4]]


def test_what_an_expelled_consumer_hands_back_is_first_in_its_partition(start):
    core, wire = start(m.PRODUCER, PartitionDispatcher(1, hash=lambda event: 0))
    edge = join(core, 1, 3, partition=0)
    core.returned([0, 1, 2])
    core.cancel(edge, "normal")
    core.out.dispatcher._enqueue(core.out.dispatcher._lanes[0], [3, 4], 2, None)
    core.receive((m.CLOSED, edge, 1))
    other = join(core, 2, 10, consumer="d", partition=0)
    assert wire.events(other)[:4] == [1, 2, 3, 4]


def test_a_fair_queue_is_bounded_while_the_stage_accumulates(start):
    core, _ = start(
        m.PRODUCER, FairDispatcher(lambda event: event % 2), accumulate=True, buffer_size=3, buffer_keep="last"
    )
    core.emit(list(range(10)))
    assert core.out.queue.size == 3
    assert core.out.discarded == {"buffer full": 7}


def test_accumulating_holds_the_next_demand_at_once(start):
    """The fast lane went on asking until something else came along."""
    core, _ = start(m.PRODUCER)
    edge = join(core, 1, 2)
    core.returned([1, 2])
    core.set_demand("accumulate")
    core.receive((m.ASK, edge, 4, 2))
    assert core.callback is None
    core.receive((m.ASK, edge, 5, 2))
    core.set_demand("forward")
    assert core.callback == (m.HANDLE_DEMAND, (2,))
    core.returned([3, 4])
    assert core.callback == (m.HANDLE_DEMAND, (1,))  # one by one, as they came


def test_an_emit_that_overflows_leaves_the_stage_in_order(start):
    """What was kept of it goes out with the next demand, ahead of newer events."""
    core, wire = start(m.PRODUCER, buffer_size=1)
    edge = join(core, 1, 1)
    core.returned([1])
    with pytest.raises(Exception, match="expected at most"):
        core.emit([2, 3])
    core.receive((m.ASK, edge, 3, 1))
    assert core.callback == (m.HANDLE_DEMAND, (1,))
    core.returned([4])
    assert wire.events(edge) == [1, 2, 4]


def test_an_expelled_consumer_lifts_the_cap_of_its_keys_as_it_goes_on(start):
    core, wire = start(m.PRODUCER, FairDispatcher(lambda event: 0, cap=1))
    edge = join(core, 1, 2)
    core.returned([1, 2])
    other = join(core, 2, 5, consumer="d")
    idle(core)
    core.cancel(edge, "normal")
    idle(core)
    assert wire.events(other) == []
    core.receive((m.ASK, edge, 2, 1))
    assert wire.events(other) == [2]


def test_caps_survive_a_batch_that_was_handled_in_part(start):
    """A middle stage leaves with the first event of a batch acknowledged, two handled, and one not."""
    core, wire = start(m.PRODUCER, FairDispatcher(lambda event: event % 4, cap=2))
    edge = join(core, 1, 4)
    core.returned([0, 1, 2, 3])
    core.receive((m.ASK, edge, 4, 1))
    core.receive((m.CANCEL, edge, LEFT, 1, 3))
    other = join(core, 2, 10, consumer="d")
    idle(core)
    assert wire.events(other) == [3]
    core.receive((m.CLOSED, edge, 3))
    core.receive((m.ASK, other, 10, 1))
    assert core.out.in_flight() == 0
    assert not core.out.queue._keys


def test_a_source_whose_events_all_go_nowhere_still_hears_its_messages(start):
    """Its handler is called again and again; a message must not wait until that ends."""
    core, _ = start(m.PRODUCER, PartitionDispatcher(1, hash=lambda event: None))
    join(core, 1, 5, partition=0)
    core.receive((m.CALL, "still there?", "token"))
    core.returned([1, 2])
    assert core.callback[0] == m.HANDLE_CALL


def test_the_last_that_was_waited_for_lets_the_others_have_what_is_there(start):
    core, wire = start(m.PRODUCER, BroadcastDispatcher(wait_for=2, slow="drop"))
    edge = join(core, 1, 3)
    core.emit([1, 2])
    assert wire.events(edge) == []
    join(core, 2, 0, consumer="d", manual=True)
    assert wire.events(edge) == [1, 2]


def test_at_most_once_counts_what_a_leaving_middle_stage_had(start):
    core, _ = start(m.PRODUCER, delivery="at_most_once")
    edge = join(core, 1, 4)
    core.returned([1, 2, 3, 4])
    core.receive((m.CANCEL, edge, LEFT, 1, 2))
    core.receive((m.CLOSED, edge, 2))
    assert core.out.discarded == {"consumer left": 2}
