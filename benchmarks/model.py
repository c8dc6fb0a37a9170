"""What a row is: contenders that do the same work, and the metrics taken from each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Kind = Literal["limit", "headgate", "peer"]
"""``limit``: the plain Python loop. ``headgate``: the library. ``peer``: what else one could use."""

Better = Literal["higher", "lower"]

Sample = Mapping[str, float]
"""One measurement: metric name to value, in the unit that the row's `Metric` states."""

TARGET_SECONDS = 0.35
"""How long one measurement of a rate shall take at scale 1."""

PROBE_SECONDS = 0.02
"""A calibration run shorter than this says too little about the speed."""

GROWTH = 8
"""Each calibration run that was too short is followed by one this many times as long."""


class WrongResultError(Exception):
    """A contender lost, doubled or changed events: its time means nothing and the run fails."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure that every contender of a row yields.

    Attributes:
        name: Key in the sample.
        unit: Unit of the value.
        better: Which direction is the good one.
    """

    name: str
    unit: str
    better: Better


class Measure(Protocol):
    """How a contender is measured."""

    def prepare(self, scale: float) -> None:
        """Warm up, and choose the size of the measurements.

        Args:
            scale: Factor on the duration of every measurement.
        """

    def take(self, scale: float) -> Sample:
        """Measure once.

        Args:
            scale: Factor on the duration.

        Returns:
            A value for each metric of the row.

        Raises:
            WrongResultError: The contender did not do its work.
        """


RATE = Metric("rate", "events/s", "higher")


@dataclass(slots=True)
class Rate:
    """Events per second of a function that moves a given number of events.

    Contenders differ by a factor of 1,000, so each gets its own number of events (as `timeit` does it): the
    warm-up doubles as calibration, and all repetitions then use the same number.

    Attributes:
        run: Moves that many events, checks the result, returns the seconds between the first and the last
            event.
        grain: The number of events is a multiple of this, so that all batches and partitions are whole.
        events: The number chosen by `prepare`.
    """

    run: Callable[[int], float]
    grain: int = 4_000
    events: int = 0

    def prepare(self, scale: float) -> None:
        """Find the number of events that takes about `TARGET_SECONDS`."""
        events = self.grain
        while (seconds := self.run(events)) < PROBE_SECONDS * min(scale, 1.0):
            events *= GROWTH
        grains = round(events / seconds * TARGET_SECONDS * scale / self.grain)
        self.events = self.grain * max(1, grains)

    def take(self, scale: float) -> Sample:
        """Move the events once."""
        return {RATE.name: self.events / self.run(self.events)}


@dataclass(slots=True)
class Timed:
    """Several figures of a function that runs for a given time.

    Attributes:
        run: Runs that many seconds, checks the result, returns the metrics.
        seconds: Duration at scale 1.
        warm_up: Duration of the warm-up at scale 1; 0 where every measurement is a fresh process.
    """

    run: Callable[[float], Sample]
    seconds: float
    warm_up: float = 0.0

    def prepare(self, scale: float) -> None:
        """Run once for a short time, so that no measurement pays for imports and cold code."""
        if self.warm_up:
            self.run(self.warm_up * scale)

    def take(self, scale: float) -> Sample:
        """Run once for the full time."""
        return self.run(self.seconds * scale)


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work of a row."""

    name: str
    kind: Kind
    measure: Measure


@dataclass(frozen=True, slots=True)
class Row:
    """The same work, done by several contenders.

    Attributes:
        name: Name on the command line and in the JSON.
        summary: One line that says what is measured.
        contenders: In the order in which they take turns.
        metrics: What each yields.
    """

    name: str
    summary: str
    contenders: tuple[Contender, ...]
    metrics: tuple[Metric, ...] = field(default=(RATE,))
