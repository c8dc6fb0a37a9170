"""Sums and counts of delays. Whole numbers only: they are exact, and add up the same in any order. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from .flight import LATE_AFTER, Flight

Key = TypeVar("Key")


@dataclass(slots=True)
class Tally:
    """What a group of flights adds up to. Means and shares are divisions of these, made when somebody looks.

    Attributes:
        flights: All of them: `cancelled` + `departed`.
        cancelled: Never departed.
        departed: Departed: `diverted` + `arrived`.
        diverted: Departed, and not known to have landed where they should.
        arrived: Landed where they should.
        departure_minutes: Sum of the departure delays of those that departed.
        arrival_minutes: Sum of the arrival delays of those that arrived.
        late: Arrived more than 15 minutes late.
        worst: The longest arrival delay in minutes; None when none arrived.
    """

    flights: int = 0
    cancelled: int = 0
    departed: int = 0
    diverted: int = 0
    arrived: int = 0
    departure_minutes: int = 0
    arrival_minutes: int = 0
    late: int = 0
    worst: int | None = None

    def add(self, flight: Flight) -> None:
        """Count one flight."""
        self.flights += 1
        if flight.departure_delay is None:
            self.cancelled += 1
            return
        self.departed += 1
        self.departure_minutes += flight.departure_delay
        delay = flight.arrival_delay
        if delay is None:
            self.diverted += 1
            return
        self.arrived += 1
        self.arrival_minutes += delay
        if delay > LATE_AFTER:
            self.late += 1
        if self.worst is None or delay > self.worst:
            self.worst = delay


def tally(flights: Iterable[Flight], keys: Callable[[Flight], Iterable[Key]]) -> dict[Key, Tally]:
    """Add up flights by group.

    Args:
        flights: The flights.
        keys: The groups that a flight counts in, one or more.

    Returns:
        The sums of every group.
    """
    groups: dict[Key, Tally] = {}
    for flight in flights:
        for key in keys(flight):
            group = groups.get(key)
            if group is None:
                group = groups[key] = Tally()
            group.add(flight)
    return groups
