# mypy: disable-error-code="var-annotated"
"""What a handler fails with is delivered again, counted and by itself, until the event that is to blame is alone."""

import pytest

from headgate import BroadcastDispatcher, DemandDispatcher, FairDispatcher, PartitionDispatcher, PriorityDispatcher
from headgate.errors import StageCrashed
from headgate.protocol import messages as m
from headgate.protocol.lane import LANES
from headgate.protocol.messages import DeadLetter, End
from headgate.protocol.stage import StageCore
from tests.unit.protocol.fakes import Port, subscription

DOWN = End("down", "boom")
CALLBACKS = {m.HANDLE_EVENTS, m.HANDLE_DEMAND}
BOOM = StageCrashed("c", ValueError("boom"))


@pytest.fixture(params=["core", "lane"])
def start(request):
    """Start a stage, by the long way and by the fast lane."""

    def make(role, dispatcher=None, **options):
        port = Port("stage")
        kind = StageCore if request.param == "core" else LANES[role]
        if role != m.CONSUMER and dispatcher is None:
            dispatcher = DemandDispatcher()
        core = kind(port, role, CALLBACKS, dispatcher, **options)
        core.start()
        return core, port

    return make


class Given:
    """A source, and what it sends to whom."""

    def __init__(self, start, events=(), *, dispatcher=None, asked=100, **options):
        self.core, self.port = start(m.PRODUCER, dispatcher, **{"max_deliveries": 3, **options})
        self.first = self.join("c", asked)
        if events:
            self.core.emit(list(events))

    def receive(self, *message):
        """Give it a message, and let its handlers return nothing."""
        self.core.receive(message)
        while self.core.callback is not None:
            self.core.returned(None)

    def join(self, name, asked=100, **terms):
        edge = subscription(name, "stage", max_demand=1000, **terms)
        self.receive(m.SUBSCRIBE, edge)
        if asked:
            self.ask(edge, asked)
        return edge

    def ask(self, edge, asked, acked=0):
        self.receive(m.ASK, edge, asked, acked)

    def fail(self, edge, start, stop, *, acked=None, reason=BOOM):
        """A consumer dies with these events in its handler; those before are handled."""
        acked = start if acked is None else acked
        self.receive(m.FAILED, edge, start, stop, reason)
        self.receive(m.CANCEL, edge, DOWN, acked, acked)

    def sent(self):
        """Take out what was sent: (consumer, events, number of the delivery)."""
        found = []
        for _, message in self.port.sent:
            if message[0] == m.EVENTS:
                found.append((message[1].consumer, list(message[2]), 1))
            elif message[0] == m.REDELIVERED:
                found.append((message[1].consumer, list(message[2]), message[3]))
        self.port.sent = []
        return found


def consumer(start, **terms):
    """Start a consumer that is subscribed to ``p``."""
    core, port = start(m.CONSUMER)
    edge = subscription("stage", "p", **terms)
    core.subscribe(edge)
    port.take()
    return core, port, edge


# -- the consumer tells ------------------------------------------------------------------------------------------------


def test_a_consumer_that_crashes_says_which_events_its_handler_had(start):
    """Not those that it had handled, nor those that it had not begun; and it says so before it leaves."""
    core, port, edge = consumer(start, max_demand=4, min_demand=2)
    core.receive((m.EVENTS, edge, [1, 2, 3, 4]))
    core.returned(None)
    core.receive((m.EVENTS, edge, [5, 6]))
    port.take()
    core.failed(ValueError("boom"))
    failed, cancel = port.take()
    assert failed[:4] == (m.FAILED, edge, 2, 4)
    assert isinstance(failed[4], StageCrashed)
    assert cancel[0] == m.CANCEL
    assert cancel[3:] == (2, 2)
    assert core.failure == (2, 1)


@pytest.mark.parametrize(("reason", "blamed"), [("killed", True), ("normal", False), (("shutdown", 1), False)])
def test_a_kill_blames_the_events_only_when_its_reason_is_abnormal(start, reason, blamed):
    core, port, edge = consumer(start, max_demand=4, min_demand=0)
    core.receive((m.EVENTS, edge, [1, 2]))
    port.take()
    core.receive((m.KILL, reason))
    tags = [message[0] for message in port.take()]
    assert tags == ([m.FAILED, m.CANCEL] if blamed else [m.CANCEL])


def test_a_stage_that_crashes_between_batches_blames_nothing(start):
    core, port, edge = consumer(start, max_demand=4, min_demand=0)
    core.receive((m.EVENTS, edge, [1, 2]))
    core.returned(None)
    port.take()
    core.receive((m.KILL, "killed"))
    assert [message[0] for message in port.take()] == [m.CANCEL]
    assert core.failure is None


def test_a_consumer_knows_the_number_of_the_delivery(start):
    core, _, edge = consumer(start, max_demand=4, min_demand=2)
    core.receive((m.EVENTS, edge, [1]))
    core.receive((m.REDELIVERED, edge, [2, 3, 4], 3))
    core.receive((m.EVENTS, edge, [5]))
    window = core.into.windows[edge]
    seen = []
    while core.callback is not None:
        seen.append((core.callback[1][0], window.deliveries))
        core.returned(None)
    assert seen == [([1], 1), ([2, 3], 3), ([4], 3), ([5], 1)]
    assert not window.suspects


def test_a_failure_says_how_often_its_events_were_delivered(start):
    core, _, edge = consumer(start, max_demand=4, min_demand=2)
    core.receive((m.REDELIVERED, edge, [1, 2], 3))
    core.failed(ValueError("boom"))
    assert core.failure == (2, 3)


def test_events_sent_again_to_nobody_are_answered(start):
    """Like those that are sent for the first time: they go back with the leave."""
    core, port, _ = consumer(start)
    stranger = subscription("stage", "q")
    core.receive((m.REDELIVERED, stranger, [1], 2))
    assert [message[:2] for message in port.take(m.CANCEL)] == [(m.CANCEL, stranger)]


# -- the producer counts -----------------------------------------------------------------------------------------------


def test_what_a_handler_failed_with_comes_again_apart_from_the_rest(start):
    """What lay before the handler was never tried: it comes as if for the first time, and behind."""
    given = Given(start, [1, 2, 3, 4, 5, 6])
    given.sent()
    given.fail(given.first, 1, 3)
    given.join("d")
    assert given.sent() == [("d", [2, 3], 2), ("d", [4, 5, 6], 1)]


def test_what_a_middle_stage_had_handled_is_not_blamed(start):
    """It was handled and its output was not safe: it comes back, ahead of what the handler failed with."""
    given = Given(start, [1, 2, 3, 4, 5])
    given.sent()
    given.fail(given.first, 3, 4, acked=1)
    given.join("d")
    assert given.sent() == [("d", [2, 3], 1), ("d", [4], 2), ("d", [5], 1)]


def test_newer_events_do_not_pass_what_comes_again(start):
    given = Given(start, [1, 2])
    given.sent()
    given.fail(given.first, 0, 1)
    given.core.emit([3, 4])
    given.join("d")
    assert given.sent() == [("d", [1], 2), ("d", [2, 3, 4], 1)]


def crash_on(given, poison, most=50):
    """Let consumers come, one after the other, of which each dies of these events; return what each was given."""
    edge, log = given.first, []
    for number in range(most):
        at = 0
        for _, batch, count in given.sent():
            log.append((batch, count))
            if poison & set(batch):
                given.fail(edge, at, at + len(batch))
                break
            at += len(batch)
        else:
            given.ask(edge, 100, at)
            return log
        edge = given.join(f"c{number}")
    raise AssertionError("it does not end")


def test_a_batch_of_eight_with_its_sixth_event_poison(start):
    """Whole as often as was said, then in halves: seven are handled, one is dead."""
    given = Given(start, [1, 2, 3, 4, 5, 6, 7, 8])
    log = crash_on(given, {6})
    assert [each for each in log if 6 in each[0]] == [
        ([1, 2, 3, 4, 5, 6, 7, 8], 1),
        ([1, 2, 3, 4, 5, 6, 7, 8], 2),
        ([1, 2, 3, 4, 5, 6, 7, 8], 3),
        ([5, 6, 7, 8], 4),
        ([5, 6], 5),
        ([6], 6),
    ]
    assert [each for each in log if 6 not in each[0]] == [([1, 2, 3, 4], 4), ([5], 6), ([7, 8], 5)]
    ((letter, token),) = given.port.letters
    assert (letter.event, letter.deliveries, letter.stage) == (6, 6, "stage")
    assert token is None
    assert given.core.out.discarded == {"dead letter": 1}
    assert given.core.out.in_flight() == 0


@pytest.mark.parametrize("most", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_each_poison_event_is_found_and_no_other_is_given_up(start, most, size):
    events = list(range(size))
    poison = {0, size // 2, size - 1}
    given = Given(start, events, max_deliveries=most)
    log = crash_on(given, poison, 200)
    assert {letter.event for letter, _ in given.port.letters} == poison
    assert all(letter.deliveries >= most for letter, _ in given.port.letters)
    counts = [count for batch, count in log if batch == events]
    assert counts[:most] == list(range(1, most + 1)) or size == 1
    assert given.core.out.handled == size - len(poison)


def test_without_a_limit_events_come_back_for_ever_and_are_not_counted(start):
    given = Given(start, [1, 2], max_deliveries=None)
    edge = given.first
    for number in range(10):
        assert [each[1:] for each in given.sent()] == [([1, 2], 1)]
        given.fail(edge, 0, 2)
        edge = given.join(f"c{number}")
    assert not given.port.letters


def test_a_message_that_was_joined_comes_apart_when_it_fails(start):
    """Two emissions went out as one message: each is a suspect of its own."""
    given = Given(start, asked=0)
    given.core.emit([1, 2])
    given.core.emit([3])
    given.ask(given.first, 10)
    assert given.sent() == [("c", [1, 2, 3], 1)]
    given.fail(given.first, 0, 3)
    given.join("d")
    assert given.sent() == [("d", [1, 2], 2), ("d", [3], 2)]


def test_demand_may_cut_what_comes_again(start):
    """The count stays with both parts."""
    given = Given(start, [1, 2, 3, 4])
    given.sent()
    given.fail(given.first, 0, 4)
    edge = given.join("d", 3)
    assert given.sent() == [("d", [1, 2, 3], 2)]
    given.ask(edge, 10, 3)
    assert given.sent() == [("d", [4], 2)]


def test_what_comes_again_may_go_to_several(start):
    given = Given(start, [1, 2, 3, 4])
    given.sent()
    d, e = given.join("d", 0), given.join("e", 0)
    given.fail(given.first, 0, 4)
    given.ask(d, 2)
    given.ask(e, 2)
    assert given.sent() == [("d", [1, 2], 2), ("e", [3, 4], 2)]


def test_a_part_of_what_came_again_that_was_not_tried_keeps_its_count(start):
    """The next handler takes smaller batches, and fails with the first of them."""
    given = Given(start, [1, 2, 3, 4])
    given.sent()
    given.fail(given.first, 0, 4)
    edge = given.join("d")
    given.sent()
    given.fail(edge, 0, 2)
    given.join("e")
    assert given.sent() == [("e", [1, 2], 3), ("e", [3, 4], 2)]


def test_at_most_once_nothing_comes_again_and_nothing_is_dead(start):
    given = Given(start, [1, 2], delivery="at_most_once", max_deliveries=1)
    given.sent()
    given.fail(given.first, 0, 2)
    given.join("d")
    assert given.sent() == []
    assert not given.port.letters
    assert given.core.out.discarded == {"consumer left": 2}


def test_the_failure_takes_effect_while_a_handler_runs(start):
    """The leave does, so what it refers to must have come before it."""
    given = Given(start, [1, 2])
    given.sent()
    other = given.join("d", 0)
    given.core.receive((m.ASK, given.first, 200, 0))
    assert given.core.callback == (m.HANDLE_DEMAND, (100,))
    given.core.receive((m.FAILED, given.first, 0, 1, BOOM))
    given.core.receive((m.CANCEL, given.first, DOWN, 0, 0))
    given.core.returned(None)
    given.ask(other, 10)
    assert given.sent() == [("d", [1], 2), ("d", [2], 1)]


def test_a_consumer_that_was_expelled_says_what_it_failed_with_too(start):
    given = Given(start, [1, 2, 3])
    given.sent()
    given.core.cancel(given.first, "normal")
    given.fail(given.first, 1, 2)
    given.join("d")
    assert given.sent() == [("d", [2], 2), ("d", [3], 1)]


# -- dispatchers -------------------------------------------------------------------------------------------------------


def test_a_partition_gives_it_to_the_successor_of_the_partition(start):
    given = Given(start, dispatcher=PartitionDispatcher(2, hash=lambda event: event % 2), asked=0)
    first = given.join("d", partition=0)
    other = given.join("e", partition=1)
    given.core.emit([0, 1, 2, 3])
    assert given.sent() == [("d", [0, 2], 1), ("e", [1, 3], 1)]
    given.fail(first, 0, 1)
    given.core.emit([4])
    given.ask(other, 100, 2)
    assert given.sent() == []
    given.join("f", partition=0)
    assert [each for each in given.sent() if each[0] == "f"] == [("f", [0], 2), ("f", [2, 4], 1)]


def test_a_broadcast_gives_nothing_again_to_others(start):
    """They have their own copies; what the dead one had is counted."""
    given = Given(start, dispatcher=BroadcastDispatcher())
    other = given.join("d")
    given.core.emit([1, 2])
    given.sent()
    given.fail(given.first, 0, 1)
    given.ask(other, 100, 2)
    given.join("e")
    assert given.sent() == []
    assert given.core.out.discarded == {"subscriber left": 2}


def test_a_broadcast_gives_it_again_to_the_heir(start):
    """One whose supervisor starts it again goes on where its predecessor was."""
    given = Given(start, dispatcher=BroadcastDispatcher())
    edge = given.join("d", heir=("d",))
    given.core.emit([1, 2, 3])
    given.sent()
    given.fail(edge, 1, 2)
    given.join("d", heir=("d",))
    assert given.sent() == [("d", [2], 2), ("d", [3], 1)]


def test_an_heir_may_come_before_its_predecessor_has_left(start):
    """Messages of two stages come in any order. The stage must be able to finish, and nothing be lost."""
    given = Given(start, dispatcher=BroadcastDispatcher(), asked=0)
    given.receive(m.CANCEL, given.first, DOWN, 0, 0)
    edge = given.join("d", heir=("d",))
    given.core.emit([1, 2])
    given.sent()
    heir = given.join("d#2", heir=("d",))
    given.receive(m.CANCEL, edge, DOWN, 0, 0)
    assert [each[1] for each in given.sent()] == [[1, 2]]
    given.ask(heir, 100, 2)
    given.core.finish()
    assert given.core.state == "ended"


@pytest.mark.parametrize("cap", [None, 1, 2])
def test_a_fair_dispatcher_gives_it_again_first_and_as_it_was(start, cap):
    """Its keys wait meanwhile as far as they are at their caps; with the last they go on."""
    given = Given(start, dispatcher=FairDispatcher(lambda event: event % 2, cap=cap), asked=4)
    given.core.emit([0, 1, 2, 3, 4, 5])
    (_, batch, _), *_ = given.sent()
    given.fail(given.first, 0, len(batch))
    edge = given.join("d", 100)
    sent = given.sent()
    assert sent[0] == ("d", batch, 2)
    at = 0
    while sent:
        at += sum(len(each[1]) for each in sent)
        given.ask(edge, 100, at)
        sent = given.sent()
    assert at == 6
    assert given.core.out.in_flight() == 0


def test_a_priority_dispatcher_gives_it_again_first_and_as_it_was(start):
    given = Given(start, dispatcher=PriorityDispatcher(lambda event: event, ageing=None), asked=0)
    given.core.emit([5, 6])
    given.ask(given.first, 2)
    given.core.emit([1, 2])
    given.sent()
    given.fail(given.first, 0, 2)
    given.join("d")
    assert given.sent() == [("d", [5, 6], 2), ("d", [1, 2], 1)]


# -- dead letters ------------------------------------------------------------------------------------------------------


def test_a_dead_letter_says_what_who_and_why(start):
    given = Given(start, [7], max_deliveries=1)
    given.sent()
    given.fail(given.first, 0, 1)
    ((letter, _),) = given.port.letters
    assert letter == DeadLetter(7, "stage", "c", 1, BOOM)
    assert DeadLetter(7, "stage", "c", 1, "killed").error is None
    assert "killed" in DeadLetter(7, "stage", "c", 1, "killed").traceback
    given.join("d")
    assert given.sent() == []


def test_a_source_does_not_finish_before_its_dead_letters_are_safe(start):
    given = Given(start, [7], max_deliveries=1)
    given.fail(given.first, 0, 1)
    given.core.finish()
    assert given.core.state == "finishing"
    given.core.safe(given.port.letters[0][1])
    assert given.core.state == "ended"


def test_that_a_letter_is_safe_may_come_after_the_end(start):
    given = Given(start, [7], max_deliveries=1)
    given.fail(given.first, 0, 1)
    given.core.stop("normal")
    given.core.safe(given.port.letters[0][1])
    assert given.core.state == "ended"


def test_an_input_is_done_with_when_the_dead_letter_of_its_output_is_safe(start):
    """Until then it would come again from upstream, if the middle stage died."""
    core, port, up, down = middle(start, max_deliveries=1)
    core.receive((m.EVENTS, up, [1]))
    core.returned(["a"])
    core.receive((m.FAILED, down, 0, 1, BOOM))
    core.receive((m.CANCEL, down, DOWN, 0, 0))
    core.flush()
    assert core.into.windows[up].acked == 0
    core.safe(port.letters[0][1])
    assert core.into.windows[up].acked == 1


def test_a_middle_stage_takes_the_acknowledgement_of_what_came_again(start):
    core, _, up, down = middle(start, max_deliveries=3)
    core.receive((m.EVENTS, up, [1, 2]))
    core.returned(["a", "b"])
    core.receive((m.FAILED, down, 0, 2, BOOM))
    core.receive((m.CANCEL, down, DOWN, 0, 0))
    again = subscription("d", "stage")
    core.receive((m.SUBSCRIBE, again))
    core.receive((m.ASK, again, 10, 0))
    core.receive((m.ASK, again, 10, 2))
    assert core.into.windows[up].acked == 2


def test_a_letter_that_is_safe_lets_its_key_go_on(start):
    given = Given(start, dispatcher=FairDispatcher(lambda event: 0, cap=1), asked=1, max_deliveries=1)
    given.core.emit([1, 2])
    given.sent()
    given.fail(given.first, 0, 1)
    given.join("d")
    assert given.sent() == []
    given.core.safe(given.port.letters[0][1])
    assert given.sent() == [("d", [2], 1)]


def middle(start, **options):
    """Start a middle stage between ``p`` and ``d``."""
    core, port = start(m.PRODUCER_CONSUMER, **options)
    up, down = subscription("stage", "p", max_demand=10, min_demand=5), subscription("d", "stage")
    core.subscribe(up)
    core.receive((m.SUBSCRIBE, down))
    core.receive((m.ASK, down, 10, 0))
    port.take()
    return core, port, up, down
