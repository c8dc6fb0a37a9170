"""The public kit for dispatchers: every built-in passes, and one that breaks the contract does not."""

from typing import Any

import pytest

from headgate.errors import SubscriptionError
from headgate.protocol.buffer import Buffer
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.broadcast import BroadcastDispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.dispatch.keyed import FairDispatcher, PriorityDispatcher
from headgate.protocol.dispatch.partition import PartitionDispatcher
from headgate.protocol.messages import Terms
from headgate.testing import ConformanceError, check_dispatcher


def some_nowhere(event):
    if event % 7 == 0:
        return None
    if event % 11 == 0:
        raise ValueError(event)
    return "elsewhere" if event % 13 == 0 else event % 4


BUILT_IN: dict[str, Any] = {
    "demand": DemandDispatcher,
    "largest": lambda: DemandDispatcher(order="largest"),
    "shuffle": lambda: DemandDispatcher(shuffle=True),
    "broadcast": BroadcastDispatcher,
    "broadcast-replay": lambda: BroadcastDispatcher(replay=3),
    "broadcast-drop": lambda: BroadcastDispatcher(slow="drop", lag=5),
    "broadcast-detach": lambda: BroadcastDispatcher(slow="detach", lag=5),
    "broadcast-wait": lambda: BroadcastDispatcher(wait_for=2),
    "partition": lambda: PartitionDispatcher(4),
    "partition-block": lambda: PartitionDispatcher(4, hash=some_nowhere, queue_size=3),
    "partition-shed": lambda: PartitionDispatcher(4, hash=some_nowhere, queue_size=3, stuck="shed"),
    "partition-spill": lambda: PartitionDispatcher(4, hash=some_nowhere, queue_size=2, stuck="spill"),
    "fair": lambda: FairDispatcher(lambda event: event % 3),
    "fair-weights": lambda: FairDispatcher(lambda event: event % 3, weights={0: 3}, quantum=2),
    "fair-cap": lambda: FairDispatcher(lambda event: event % 3, cap=4),
    "priority": lambda: PriorityDispatcher(lambda event: event % 3),
    "priority-strict": lambda: PriorityDispatcher(lambda event: event % 3, ageing=None),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_dispatchers_keep_the_contract(name):
    check_dispatcher(BUILT_IN[name])


def test_selectors_and_weights_are_part_of_it():
    def terms(number):
        return Terms(weight=1 + number, selector=(lambda event: event % 2) if number == 1 else None)

    check_dispatcher(DemandDispatcher, terms=terms)
    check_dispatcher(BroadcastDispatcher, terms=terms)


class Greedy(DemandDispatcher):
    """Delivers more than was asked for."""

    def dispatch(self, batch, size, token):
        if self._line and size > self._line[0].pending:
            self.outlet.deliver(self._line[0], batch, size, token)
            return size
        return super().dispatch(batch, size, token)


class Leaky(DemandDispatcher):
    """Says that it took what it has thrown away."""

    def dispatch(self, batch, size, token):
        return max(super().dispatch(batch, size, token), min(1, size))


class Backwards(DemandDispatcher):
    """Gives back in the wrong order."""

    def cancel(self, subscriber, pieces):
        return super().cancel(subscriber, pieces)[::-1]


class Forgetful(DemandDispatcher):
    """Gives nothing back."""

    def cancel(self, subscriber, pieces):
        super().cancel(subscriber, pieces)
        return []


class Haunted(DemandDispatcher):
    """Goes on counting the demand of those that have left."""

    def cancel(self, subscriber, pieces):
        if subscriber in self._line:
            self._line.remove(subscriber)
        return pieces


class Shy(DemandDispatcher):
    """Wants events and takes none."""

    def dispatch(self, batch, size, token):
        return 0


class Untokened(DemandDispatcher):
    """Loses the tokens."""

    def dispatch(self, batch, size, token):
        return super().dispatch(batch, size, None)


class Changed(DemandDispatcher):
    """Refuses, but not before it has changed."""

    def subscribe(self, subscriber):
        if subscriber.terms.partition == 3:
            self.wanted += 1
            raise SubscriptionError("a", "b", "no")
        super().subscribe(subscriber)


class Impatient(PartitionDispatcher):
    """Lets infos pass the events that are queued."""

    def hold(self, info):
        if super().hold(info):
            self.outlet.release(("info", 99))
            return True
        return False


class Mute(PartitionDispatcher):
    """Does not tell what is queued inside."""

    def queued(self):
        return {}


class Stack(Buffer):
    """Loses what is put back."""

    def put_front(self, pieces):
        pass


class Stacked(DemandDispatcher):
    def queue(self):
        return Stack()


class Hasty(DemandDispatcher):
    """Its queue lets infos pass."""

    def queue(self):
        class Passing(Buffer):
            def hold(self, message):
                if super().hold(message):
                    self._free.append(message)
                    return True
                return False

        return Passing()


@pytest.mark.parametrize(
    ("make", "rules"),
    [
        (Greedy, {"beyond-demand"}),
        (Leaky, {"conservation"}),
        (Backwards, {"return-order"}),
        (Forgetful, {"conservation"}),
        (Haunted, {"wanted"}),
        (Shy, {"wanted"}),
        (Untokened, {"tokens"}),
        (Changed, {"refusal"}),
        (lambda: Impatient(4, queue_size=3), {"info"}),
        (lambda: Mute(4, queue_size=3), {"conservation"}),
        (Stacked, {"queue"}),
        (Hasty, {"info"}),
        (Dispatcher, None),
    ],
    ids=lambda value: getattr(value, "__name__", "") if not isinstance(value, set) else "-".join(value),
)
def test_a_broken_dispatcher_is_found(make, rules):
    """Each breaks one part of the contract; the error names the part and shows the calls that led to it."""
    with pytest.raises((ConformanceError, NotImplementedError)) as caught:
        check_dispatcher(make)
    if rules is not None:
        assert isinstance(caught.value, ConformanceError)
        assert caught.value.rule in rules
        assert "the last calls" in str(caught.value)
