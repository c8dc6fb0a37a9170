"""The far side of a simulated pipeline: a broker that knows what became of everything.

Payloads are tuples: the broker's name, the number of the item, the number of the delivery, and one mark more for each
message that was made of another. What is told of a message is therefore told of a delivery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from headgate import Message

if TYPE_CHECKING:
    from headgate.testing.shell.pipelines.sources import SimSource
    from headgate.testing.shell.pipelines.world import PipelineWorld

Unit = tuple[Any, ...]

BACK: Final = ("ack", "nack", "discard", "dead_letter")
SETTLED: Final = ("acked", "discarded", "lettered")


class Item:
    """One message, as its broker knows it.

    Attributes:
        state: ``"waiting"``, ``"out"``, or how it ended.
        deliveries: How often it was handed out, as far as that counts.
        due: From when on it may be handed out.
        poison: The handler that always fails with it, as long as there are faults: of a step, or -1 of batches.
    """

    def __init__(self, broker: Broker, number: int, key: Any, size: int) -> None:
        """Wait."""
        self.broker = broker
        self.number = number
        self.key = key
        self.size = size
        self.state = "waiting"
        self.deliveries = 0
        self.due = 0.0
        self.patience: float | None = None
        self.deadline: float | None = None
        self.poison: int | None = None
        self.delivery: Delivery | None = None


class Delivery:
    """One time that an item was handed out, and all that is known of what was done with it since.

    Attributes:
        number: Its own.
        unit: The payload of its message.
        life: The life of the pipeline in which it was fetched.
        units: What has to be handled before it may be acknowledged: itself, or what was made of it.
        finished: Those of them that were.
        through: Those that have left the last step.
        told: What its source was told; ``unsure``: and raised, so that it may be told again.
        expired: Its lease has passed.
        begun: A handler was given it.
        failures: Reasons why it may be given up or given back; ``excuses``: why a handler may see it once more, after
            a stage has ended; ``tries``: so often its batch has failed, which does not say anything of itself.
    """

    def __init__(self, item: Item, number: int, life: int) -> None:
        """Be handed out."""
        self.item = item
        self.number = number
        self.life = life
        self.unit: Unit = (item.broker.name, item.number, number)
        self.units: set[Unit] = {self.unit}
        self.finished: set[Unit] = set()
        self.through: set[Unit] = set()
        self.told: str | None = None
        self.unsure = False
        self.expired = False
        self.until: float | None = None
        self.deadline: float | None = None
        self.begun = False
        self.failures = 0
        self.excuses = 0
        self.tries = 0
        self.runs: Counter[tuple[Any, Unit]] = Counter()

    def __repr__(self) -> str:
        """Show what it is about."""
        return f"delivery {self.number} of {self.item.broker.name}-{self.item.number}"

    @property
    def open(self) -> set[Unit]:
        """What is not handled yet."""
        return self.units - self.finished

    def forget_parts(self, unit: Unit) -> None:
        """Expect nothing of what was made of a unit: nobody has taken it in, or it is made anew."""
        made = {each for each in self.units if len(each) > len(unit) and each[: len(unit)] == unit}
        self.units -= made - self.finished

    def replace(self, unit: Unit, parts: list[Unit], *, keep: bool = False) -> None:
        """Let others stand for a unit, or stand beside it."""
        if not keep:
            self.finished.add(unit)
        self.units.update(parts)


class Broker:
    """What sources fetch from: it outlives pipelines.

    Args:
        world: The run.
        name: Its name, the first part of payloads.
        total: How many items will be put.
        ordered: Of a key one item is out at a time, the first; the others wait.
        lease: Seconds after which an item without outcome is handed out again; None: never.
    """

    def __init__(self, world: PipelineWorld, name: str, total: int, *, ordered: bool, lease: float | None) -> None:
        """Begin empty."""
        self.world = world
        self.name = name
        self.total = total
        self.ordered = ordered
        self.lease = lease
        self.redelivers = True
        self.keeps_letters = True
        self.max_deliveries: int | None = None
        self.patient = False  # it says that there is nothing more only when everything is settled
        self.line: list[Item] = []
        self.out: dict[Item, None] = {}
        self.items: list[Item] = []
        self.closed = False
        self.requeues: set[Any] = set()  # keys of which something came back
        self.source: SimSource | None = None

    # -- what goes in -------------------------------------------------------------------------------------------------

    def put(self, item: Item) -> None:
        """Take a new item."""
        self.items.append(item)
        self.line.append(item)
        self._wake()

    def finish(self) -> None:
        """Take no more."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self.source is not None:
            self.source.stir()

    @property
    def unsettled(self) -> list[Item]:
        """What is not done with."""
        return [item for item in self.items if item.state not in SETTLED and not item.state.startswith("gone")]

    # -- what goes out ------------------------------------------------------------------------------------------------

    def take(self, count: int) -> list[Delivery]:
        """Hand out what may be."""
        world, now = self.world, self.world.loop.time()
        self.expire()
        taken: list[Delivery] = []
        blocked = {item.key for item in self.out} if self.ordered else set()
        for item in list(self.line):
            if len(taken) >= count:
                break
            if self.ordered and item.key in blocked:
                continue
            blocked.add(item.key)
            if item.due > now:
                if not self.ordered:
                    blocked.discard(item.key)
                continue
            taken.append(self._hand_out(item, now))
        world.note("handed out", self.name, [delivery.unit for delivery in taken])
        return taken

    def _hand_out(self, item: Item, now: float) -> Delivery:
        world = self.world
        self.line.remove(item)
        self.out[item] = None
        item.state = "out"
        item.deliveries += 1
        delivery = item.delivery = Delivery(item, len(world.deliveries), world.life)
        world.deliveries.append(delivery)
        if self.lease is not None:
            delivery.until = now + self.lease
        if item.patience is not None:
            item.deadline = item.deadline or now + item.patience
            delivery.deadline = item.deadline
        return delivery

    def give_back(self, delivery: Delivery, delay: float, *, counted: bool) -> None:
        """Take one back."""
        item = delivery.item
        if not counted:
            item.deliveries -= 1
        item.state = "waiting"
        item.due = self.world.loop.time() + delay
        del self.out[item]
        self.requeues.add(item.key)
        at = len(self.line)
        if self.ordered or self.world.user.random() < 0.5:  # noqa: PLR2004 (some)
            at = next((index for index, each in enumerate(self.line) if each.number > item.number), at)
        self.line.insert(at, item)

    def expire(self) -> None:
        """Take back what nobody has cared for in time."""
        now = self.world.loop.time()
        for item in list(self.out):
            delivery = item.delivery
            assert delivery is not None  # noqa: S101 (it is out)
            if delivery.until is not None and delivery.until <= now:
                self.world.lease_expired(delivery)
                delivery.expired = True
                self.give_back(delivery, 0.0, counted=True)

    def reopen(self) -> None:
        """Have everything again that is out: whoever had it is gone."""
        for item in list(self.out):
            delivery = item.delivery
            assert delivery is not None  # noqa: S101 (it is out)
            delivery.expired = True
            self.give_back(delivery, 0.0, counted=True)

    def next_due(self) -> float | None:
        """Return when something can be handed out again that cannot now."""
        now = self.world.loop.time()
        times = [item.due for item in self.line if item.due > now]
        times += [each.delivery.until for each in self.out if each.delivery and each.delivery.until is not None]
        return min(times, default=None)

    # -- what is told -------------------------------------------------------------------------------------------------

    def tell(self, method: str, messages: Sequence[Message], delay: float, *, counted: bool) -> list[Message] | None:
        """Take note of outcomes; return those that come too late."""
        self.expire()
        lost: list[Message] = []
        for message in messages:
            delivery = self.world.told(self, method, message, counted=counted)
            if delivery.expired:
                lost.append(message)
            elif delivery.item.state == "out":  # else it was told before, and raised afterwards
                self._settle(delivery, method, delay, counted=counted)
        self._wake()
        return lost or None

    def _settle(self, delivery: Delivery, method: str, delay: float, *, counted: bool) -> None:
        if method == "nack" and self.redelivers:
            self.give_back(delivery, delay, counted=counted)
            return
        del self.out[delivery.item]
        endings = {"ack": "acked", "discard": "discarded", "dead_letter": "lettered", "nack": "gone back"}
        delivery.item.state = endings[method]

    def extend(self, messages: Sequence[Message], seconds: float) -> None:
        """Prolong leases."""
        self.expire()
        self.world.note("extended", self.name, [message.receipt.unit for message in messages])
        until = self.world.loop.time() + seconds
        for message in messages:
            delivery: Delivery = message.receipt
            if not delivery.expired:
                delivery.until = until
