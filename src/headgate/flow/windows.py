"""Windows: which events of an endless stream are taken together. Descriptions only; `windowing` does it.

A description is frozen data plus functions of yours, so it can be sent to where the work is done::

    windows.fixed(3600, by="at", allowed_lateness=60)
    windows.sliding(timedelta(minutes=10), every=timedelta(minutes=1), by="at", watermark=watermarks.out_of_order(30))
    windows.session(gap=1800, by="at", trigger=triggers.on_watermark(early=triggers.periodically(10)))

Durations are seconds or a timedelta. Event times are numbers or datetimes (see `headgate.flow.times`); where they are
numbers in another unit than seconds, durations given as numbers are in that unit, too.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple

from headgate.errors import OptionError
from headgate.flow.times import Duration, Field, in_seconds, reader, seconds
from headgate.flow.triggers import Custom, Trigger
from headgate.flow.watermarks import Strategy


class Window(NamedTuple):
    """One window.

    Attributes:
        kind: ``"global"``, ``"count"``, ``"fixed"``, ``"sliding"``, ``"session"``, ``"periodic"``.
        id: What tells it from others of its worker (of its key, for counts and sessions): its start in event time; its
            number from 0 on for ``count`` and ``periodic``; ``"global"``.
        start: Its first moment, of the same type as event times (UTC where these are aware datetimes); None where
            windows are not of event time.
        end: The first moment after it. Of a session: a gap after its last event.
    """

    kind: str
    id: Any
    start: Any = None
    end: Any = None


@dataclass(frozen=True)
class WindowSpec:
    """What all windows have in common.

    Attributes:
        trigger: When a window gives something before it closes; default None: only then.
    """

    kind: ClassVar[str] = ""
    _: KW_ONLY
    trigger: Trigger | None = None

    def __post_init__(self) -> None:
        """Check the trigger.

        Raises:
            OptionError: It is none, or it waits for a watermark where there is none.
        """
        if self.trigger is None:
            return
        if not isinstance(self.trigger, Trigger):
            raise OptionError(self.where, "trigger", "a trigger of headgate.flow.triggers", self.trigger)
        if self.trigger.needs_watermark() and not isinstance(self, EventTimeSpec):
            raise OptionError(self.where, "trigger", "one that needs no watermark", self.trigger)

    @property
    def where(self) -> str:
        """What errors call it."""
        return f"windows.{self.kind}"


@dataclass(frozen=True)
class GlobalSpec(WindowSpec):
    """One window, which closes at the end."""

    kind: ClassVar[str] = "global"


@dataclass(frozen=True)
class CountSpec(WindowSpec):
    """Windows of ``count`` events of a key (of a worker, if there are no keys) in the order of their coming.

    Attributes:
        count: Events of a window, at least 1.
        fill: If the last window closes with its last event, an empty one follows at the end.
    """

    kind: ClassVar[str] = "count"
    count: int
    _: KW_ONLY
    fill: bool = False

    def __post_init__(self) -> None:
        """Check the number."""
        super().__post_init__()
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise OptionError(self.where, "count", "a whole number, 1 or more", self.count)


@dataclass(frozen=True)
class PeriodicSpec(WindowSpec):
    """Windows of processing time, numbered from when the worker began.

    Attributes:
        every: How long each is, in seconds or as a timedelta.
        fill: As `FixedSpec`.
    """

    kind: ClassVar[str] = "periodic"
    every: Duration
    _: KW_ONLY
    fill: int = 0

    def __post_init__(self) -> None:
        """Check both."""
        super().__post_init__()
        seconds(self.every, self.where, "every")
        _whole(self.fill, self.where, "fill")


@dataclass(frozen=True)
class EventTimeSpec(WindowSpec):
    """What windows of event time have in common.

    Attributes:
        by: Event -> its time; or the name of a field, or an index.
        allowed_lateness: How far the watermark may have passed a window's end before that closes. An event is late when
            its window has closed, and only then.
        watermark: How the watermark of a source follows from its events. Default None: whoever runs the window
            chooses: `watermarks.at_end` where the input is known to end, else ``watermarks.out_of_order(0)``.
        idle_after: Seconds of processing time without an event after which a source no longer holds the watermark
            back; default None: never.
    """

    _: KW_ONLY
    by: Field
    allowed_lateness: Duration = 0
    watermark: Strategy | None = None
    idle_after: Duration | None = None

    def __post_init__(self) -> None:
        """Check what they have in common."""
        super().__post_init__()
        reader(self.by, self.where, "by")
        seconds(self.allowed_lateness, self.where, "allowed_lateness", zero=True)
        if self.watermark is not None and not isinstance(self.watermark, Strategy):
            raise OptionError(self.where, "watermark", "a strategy of headgate.flow.watermarks", self.watermark)
        if self.idle_after is not None:
            seconds(self.idle_after, self.where, "idle_after")


@dataclass(frozen=True)
class FixedSpec(EventTimeSpec):
    """Windows side by side: ``[offset + k * size, offset + (k + 1) * size)``, for every whole ``k``.

    Attributes:
        size: How long each is.
        offset: Where the grid lies, from 1970-01-01 00:00 on (of UTC where times are aware), or from 0.
        fill: Only windows with data exist. Up to so many empty ones between two of these are given as well, where
            there are no keys; of a longer gap, none. Default 0.
    """

    kind: ClassVar[str] = "fixed"
    size: Duration
    _: KW_ONLY
    offset: Duration = 0
    fill: int = 0

    def __post_init__(self) -> None:
        """Check what it adds."""
        super().__post_init__()
        seconds(self.size, self.where, "size")
        _offset(self.offset, self.where)
        _whole(self.fill, self.where, "fill")


@dataclass(frozen=True)
class SlidingSpec(EventTimeSpec):
    """Windows that overlap: ``[offset + k * every, offset + k * every + size)``, for every whole ``k``.

    Attributes:
        size: How long each is.
        every: How far apart they begin; at most ``size``, so that every event is in one.
        offset: As `FixedSpec`.
        fill: As `FixedSpec`.
    """

    kind: ClassVar[str] = "sliding"
    size: Duration
    every: Duration
    _: KW_ONLY
    offset: Duration = 0
    fill: int = 0

    def __post_init__(self) -> None:
        """Check what it adds."""
        super().__post_init__()
        seconds(self.size, self.where, "size")
        seconds(self.every, self.where, "every")
        if in_seconds(self.every) > in_seconds(self.size):
            raise OptionError(self.where, "every", f"at most 'size' ({self.size})", self.every)
        _offset(self.offset, self.where)
        _whole(self.fill, self.where, "fill")


@dataclass(frozen=True)
class SessionSpec(EventTimeSpec):
    """Windows of one key that end when ``gap`` has passed without an event of it.

    Two events exactly a gap apart are of two sessions. An event between two sessions that is less than a gap away from
    both makes them one; their accumulators are combined.

    Attributes:
        gap: How long.
    """

    kind: ClassVar[str] = "session"
    gap: Duration

    def __post_init__(self) -> None:
        """Check what it adds."""
        super().__post_init__()
        seconds(self.gap, self.where, "gap")
        if self.trigger is not None and isinstance(self.trigger, Custom):
            raise OptionError(self.where, "trigger", "no custom one, as two of them cannot become one", self.trigger)


def global_(*, trigger: Trigger | None = None) -> GlobalSpec:
    """Take all events together: one window, which closes at the end."""
    return GlobalSpec(trigger=trigger)


def count(size: int, *, fill: bool = False, trigger: Trigger | None = None) -> CountSpec:
    """Take so many events together, of a key or of a worker without keys. See `CountSpec`."""
    return CountSpec(size, fill=fill, trigger=trigger)


def fixed(
    size: Duration,
    by: Field,
    *,
    offset: Duration = 0,
    allowed_lateness: Duration = 0,
    watermark: Strategy | None = None,
    idle_after: Duration | None = None,
    fill: int = 0,
    trigger: Trigger | None = None,
) -> FixedSpec:
    """Take together what happened in the same hour, on the same day, ... See `FixedSpec`.

    Args:
        size: How long each window is, in seconds or as a timedelta.
        by: Event -> its time; or the name of a field, or an index.
        offset: Where the grid of windows lies.
        allowed_lateness: How far the watermark may have passed a window's end before that closes.
        watermark: How the watermark of a source follows from its events.
        idle_after: Seconds without an event after which a source no longer holds the watermark back.
        fill: How many empty windows in a row are given as well.
        trigger: When a window gives something before it closes.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """
    return FixedSpec(
        size,
        by=by,
        offset=offset,
        allowed_lateness=allowed_lateness,
        watermark=watermark,
        idle_after=idle_after,
        fill=fill,
        trigger=trigger,
    )


tumbling = fixed
"""Another word for `fixed`."""


def sliding(  # noqa: PLR0913 (each is a choice of its own)
    size: Duration,
    every: Duration,
    by: Field,
    *,
    offset: Duration = 0,
    allowed_lateness: Duration = 0,
    watermark: Strategy | None = None,
    idle_after: Duration | None = None,
    fill: int = 0,
    trigger: Trigger | None = None,
) -> SlidingSpec:
    """Take together what happened within ``size``, anew ``every`` so often. See `SlidingSpec`; the rest as `fixed`."""
    return SlidingSpec(
        size,
        every,
        by=by,
        offset=offset,
        allowed_lateness=allowed_lateness,
        watermark=watermark,
        idle_after=idle_after,
        fill=fill,
        trigger=trigger,
    )


def session(
    gap: Duration,
    by: Field,
    *,
    allowed_lateness: Duration = 0,
    watermark: Strategy | None = None,
    idle_after: Duration | None = None,
    trigger: Trigger | None = None,
) -> SessionSpec:
    """Take together what happened with no ``gap`` in between. See `SessionSpec`; the rest as `fixed`."""
    return SessionSpec(
        gap,
        by=by,
        allowed_lateness=allowed_lateness,
        watermark=watermark,
        idle_after=idle_after,
        trigger=trigger,
    )


def periodic(every: Duration, *, fill: int = 0, trigger: Trigger | None = None) -> PeriodicSpec:
    """Take together what comes in the same span of processing time. See `PeriodicSpec`."""
    return PeriodicSpec(every, fill=fill, trigger=trigger)


def _offset(value: Any, where: str) -> None:
    """Check a duration that may be negative."""
    size = abs(value) if isinstance(value, (int, float, timedelta)) else value
    seconds(size, where, "offset", zero=True)


def _whole(value: Any, where: str, option: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(where, option, "a whole number, 0 or more", value)
