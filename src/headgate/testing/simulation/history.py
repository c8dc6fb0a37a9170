"""What consumers handled, checked at the end in the manner of Jepsen's queue checker.

Lost: expected and never handled, beyond what was discarded and counted, or went with the source that held it.
Unexpected: handled, but nobody emitted it. Duplicated: handled more often than crashes explain.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from headgate.testing.simulation.oracles import Violation

if TYPE_CHECKING:
    from headgate.testing.simulation.world import Edge, Site, World

LOSSY = ("buffer full", "partition full", "slow subscriber", "consumer left", "key raised", "priority raised")
"""Reasons for which events are dropped that somebody was to get."""


class History:
    """Everything that was handled, by event and by subscription."""

    def __init__(self) -> None:
        """Start empty."""
        self.handled: Counter[Any] = Counter()
        self.by_edge: dict[Any, list[Any]] = {}

    def handle(self, site: Site, edge: Edge, events: Any) -> None:  # noqa: ARG002 (for tracing)
        """Note that a consumer's handler has returned."""
        self.handled.update(events)
        seen = self.by_edge.get(edge)
        if seen is None:
            seen = self.by_edge[edge] = []
        seen.extend(events)


def check(world: World) -> None:
    """Compare what was handled to what was emitted, at the end of a run.

    Raises:
        Violation: An event was lost, duplicated or made up.
    """
    scenario = world.scenario
    if scenario.copies:
        _check_copies(world)
        return
    expected: Counter[Any] = Counter()
    for slot in scenario.slots:
        if not slot.upstream:
            expected.update(scenario.outputs(slot.script.given()))
    handled = world.history.handled
    unexpected = [event for event in handled if event not in expected]
    if unexpected:
        raise Violation("unexpected", f"handled, but never emitted: {unexpected[:5]}")
    if scenario.lossy:  # at most once: what was delivered may be gone
        world.excused.update(event[:2] for site in world.sites for edge in site.edges for event in edge.stream)
    gone = world.blame.dead() | world.kept
    lost = [
        event
        for event in expected
        if not handled[event]
        and event[:2] not in world.excused
        and not any(event[:size] in gone for size in range(2, len(event) + 1))
    ]
    dropped = sum(_dropped(site) for site in world.sites) - world.returned
    if len(lost) > dropped * scenario.factor:
        raise Violation("lost", f"{len(lost)} events were lost ({dropped} discarded and counted): {lost[:5]}")
    twice = sum(count - 1 for count in handled.values() if count > 1)
    twice += sum(handled[event] for event in world.blame.dead())
    if twice > world.allowed:
        several = [event for event, count in handled.items() if count > 1]
        raise Violation(
            "duplicated", f"{twice} events were handled again, crashes explain {world.allowed}: {several[:5]}"
        )


def _check_copies(world: World) -> None:
    """A broadcast: every subscription has an unbroken run of what its selector chooses (unless it was slow or left)."""
    scenario = world.scenario
    broadcasters = [slot for slot in scenario.slots if slot.copies]
    for edge, events in world.history.by_edge.items():
        producer = edge.producer
        if not producer.slot.copies:
            continue
        chosen = [event for event in producer.emitted if edge.terms.selector is None or edge.terms.selector.peek(event)]
        place = {event: index for index, event in enumerate(chosen)}
        places = [place.get(event, -1) for event in events]
        if -1 in places:
            raise Violation("unexpected", f"{edge} was given what its selector does not choose: {events}")
        if any(after <= before for before, after in pairwise(places)):
            raise Violation("reordered", f"{edge} handled out of order or twice: {events}")
        if scenario.unbroken and places and places[-1] - places[0] - len(places) + 1 > _dropped(producer):
            raise Violation("lost", f"{edge} has gaps: {events} of {chosen}")
    for slot in broadcasters:
        _check_steady(world, slot.sites(world))


def _check_steady(world: World, sites: list[Site]) -> None:
    """Who was subscribed before the first event and to the end has handled everything."""
    if len(sites) != 1 or not sites[0].core._finished:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return
    producer = sites[0]
    for slot in world.scenario.slots:
        if (
            not slot.steady
            or not slot.starts
            or producer.slot not in [up for up, _ in slot.upstream]
            or slot.starts > 1
        ):
            continue
        edges = [edge for edge in slot.site.edges if edge.producer is producer]
        if len(edges) != 1 or edges[0] not in producer.steady or edges[0] not in producer.core.out.subscribers:
            continue
        edge = edges[0]
        chosen = [event for event in producer.emitted if edge.terms.selector is None or edge.terms.selector.peek(event)]
        seen = world.history.by_edge.get(edge, []) if slot.role == "consumer" else edge.stream
        dropped = sum(_dropped(site) for site in sites)
        if len(chosen) - len(seen) > dropped:
            raise Violation("lost", f"{edge} was subscribed all along and handled {seen} of {chosen}")


def _dropped(site: Site) -> int:
    out = site.core.out
    return 0 if out is None else sum(count for reason, count in out.discarded.items() if reason in LOSSY)
