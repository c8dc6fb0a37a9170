"""Oracles for whole runs: the exact order of a fair or a priority dispatcher, and whom a stuck consumer holds up."""

# ruff: noqa: SLF001 (a white-box test kit)
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from headgate.testing.simulation.oracles import Violation

if TYPE_CHECKING:
    from headgate.testing.simulation.scenario import Slot
    from headgate.testing.simulation.world import Site, World


class Recorder:
    """Remembers the batches that one slot has sent, in order."""

    def __init__(self) -> None:
        """Start empty."""
        self.sent: list[list[Any]] = []

    def __call__(self, site: Site, batch: Any) -> None:  # noqa: ARG002 (the oracle's form)
        """Note a batch."""
        self.sent.append(list(batch))


def preload(source: Slot) -> None:
    """Let a source emit everything before anybody is served: then the order is a function of the events alone."""
    source.options.update(accumulate=True, buffer_size=None, buffer_keep=None)
    script = source.script
    script.part = script.late = script.over = 0.0
    script.push = 1.0
    source.crashes = False
    source.ranked = Recorder()


def _check(source: Slot, expected: list[Any]) -> None:
    """Compare. One drain makes one message for each subscriber, so each is only known to be a part of the whole."""
    place = {event: index for index, event in enumerate(expected)}
    for batch in source.ranked.sent:
        places = [place[event] for event in batch]
        if places != sorted(places):
            raise Violation("served-order", f"{source.name} sent {batch}, the order is {expected}")
    first: set[Any] = set()
    for start in range(len(source.ranked.sent)):
        first.update(source.ranked.sent[start])
    if len(source.sinks) == 1 and [event for batch in source.ranked.sent for event in batch] != expected:
        raise Violation("served-order", f"{source.name} sent {source.ranked.sent}, the order is {expected}")


def fair_turns(
    source: Slot, key: Callable[[Any], Any], weights: Mapping[Any, int], quantum: int
) -> Callable[[World], None]:
    """Return the check that keys were served in rounds, each its share."""

    def check(world: World) -> None:
        if source.starts > 1 or not source.site.core._finished:
            return
        source.sinks = [slot for slot in world.scenario.slots if source in [up for up, _ in slot.upstream]]
        lines: dict[Any, deque[Any]] = {}
        for event in source.site.emitted:
            lines.setdefault(key(event), deque()).append(event)
        expected: list[Any] = []
        while lines:
            for name in list(lines):
                line = lines[name]
                share = min(len(line), quantum * weights.get(name, 1))
                expected += [line.popleft() for _ in range(share)]
                if not line:
                    del lines[name]
        _check(source, expected)

    return check


def by_rank(source: Slot, priority: Callable[[Any], float], ageing: int | None) -> Callable[[World], None]:
    """Return the check that events left by rank."""

    def rank(numbered: tuple[int, Any]) -> tuple[float, int]:
        number, event = numbered
        return (priority(event), number) if ageing is None else (priority(event) * ageing + number, number)

    def check(world: World) -> None:
        if source.starts > 1 or not source.site.core._finished:
            return
        source.sinks = [slot for slot in world.scenario.slots if source in [up for up, _ in slot.upstream]]
        _check(source, [event for _, event in sorted(enumerate(source.site.emitted), key=rank)])

    return check


def others_done(world: World) -> None:
    """A stuck partition that may shed, spill or has room holds nobody up.

    Raises:
        Violation: An event of another partition is left although nothing moves any more.
    """
    stuck = {slot.name for slot in world.scenario.slots if slot.stuck}
    if world.faults:
        return
    for slot in world.scenario.slots:
        core = slot.site.core
        if (
            slot.role == "producer"
            and slot.script.left
            and not slot.done
            and core.state == "running"
            and not core.out.accumulating
        ):
            raise Violation("held-up", f"{slot.name} has {slot.script.left} events left, only {stuck} is stuck")
