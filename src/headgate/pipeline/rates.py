"""`RateLimiter`: no more than a rate allows, for all who share it."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import Any

from headgate.errors import OptionError
from headgate.protocol.limits import Bucket, KeyedBuckets
from headgate.runtime.options import check_count
from headgate.types import Message

_WHERE = "RateLimiter"


@dataclass(frozen=True, slots=True)
class RateStatistics:
    """What a `RateLimiter` has done so far.

    Attributes:
        admitted: How many were let through.
        waited: How many calls of ``acquire`` had to wait.
        waiting: How many wait now.
        keys: How many keys are remembered; 1 for a limiter without keys.
        crowded: How often a key came when all that are remembered were in use; see `RateLimiter`.
    """

    admitted: int
    waited: int
    waiting: int
    keys: int
    crowded: int


class RateLimiter:
    """A limit on how often something is done, shared by whoever is given it: pipelines, steps, augments, handlers.

    It is a token bucket: in any window of T seconds at most ``burst + rate / per * T`` are let through, wherever the
    window begins, and whatever is cancelled or changed meanwhile. Those who wait come in the order in which they
    asked, and nothing polls. It may be used by several event loops and threads.

    A limiter with keys has a bucket for each of them. A key is forgotten when 100,000 others were used since, but only
    when its bucket is full again, so that nobody gets more than its share.

    Args:
        rate: How many are let through, on the average, in ``per`` seconds. 0: none until `update`, but for a burst that
            was given; ``math.inf``: there is no limit.
        per: In so many seconds. Default 1.
        burst: How many are let through at once after a pause, at least 1. Default: ``rate``, rounded up, so that what
            is allowed in ``per`` seconds may also come at once. 1: evenly spaced.
        key: A function that tells to which key a `Message` belongs; True: whoever asks says the key. Default None: one
            limit for all.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    def __init__(
        self,
        rate: float,
        *,
        per: float = 1.0,
        burst: int | None = None,
        key: Callable[[Message], Any] | bool | None = None,
    ) -> None:
        """Begin with full buckets."""
        _check(rate, per, burst)
        if key is not None and key is not True and not callable(key):
            raise OptionError(_WHERE, "key", "a function of a message, True, or None", key)
        self._rate, self._per = rate, per
        self._fixed = burst is not None
        self._burst = _default_burst(rate) if burst is None else burst
        self._key = key
        self._one = Bucket(rate, per, self._burst)
        if not rate and not self._fixed:  # nothing at all
            self._one.take(self._burst, 0.0)
        self._many = None if key is None else KeyedBuckets(rate, per, self._burst)
        self._lines: dict[Any, OrderedDict[_Waiter, None]] = {}  # of keys for which somebody waits
        # A coroutine that is collected leaves its line wherever that happens: even here, with the lock held.
        self._lock = RLock()
        self._admitted = self._waited = 0
        self._watchers: dict[Callable[[], None], None] = {}

    def __repr__(self) -> str:
        """Show the limit."""
        return f"<RateLimiter {self._rate:g} per {self._per:g} s, burst {self._burst}>"

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def rate(self) -> float:
        """How many are let through in ``per`` seconds."""
        return self._rate

    @property
    def per(self) -> float:
        """In how many seconds."""
        return self._per

    @property
    def burst(self) -> int:
        """How many are let through at once."""
        return self._burst

    @property
    def keyed(self) -> bool:
        """Whether each key has a limit of its own."""
        return self._many is not None

    def key_of(self, message: Message) -> Any:
        """Return the key that a message belongs to, to be given to `acquire`; None for a limiter without keys.

        Raises:
            OptionError: The limiter has keys, and no function that tells them.
        """
        if self._key is True:
            raise OptionError(_WHERE, "key", "a function of a message, as a message is to be let through", self._key)
        return self._key(message) if callable(self._key) else None

    # -- passing ------------------------------------------------------------------------------------------------------

    async def acquire(self, n: int = 1, key: Any = None) -> None:
        """Wait until so many may pass, behind all who wait already. It returns at the moment at which they may.

        One who is cancelled while waiting takes nothing, and holds nobody up.

        Args:
            n: How many; at most ``burst``.
            key: Whose, for a limiter with keys.

        Raises:
            OptionError: They are more than ``burst``, also when that becomes smaller while they wait; or there is a key
                and should be none, or the other way round.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            check_count(f"{_WHERE}.acquire", "n", n, 1)
            self._check_key("acquire", key)
            self._check_fit(n)
            line = self._lines.get(key)
            if line is None:
                if not self._bucket(key, loop.time()).take(n, loop.time()):
                    self._admitted += n
                    return
                line = self._lines[key] = OrderedDict()
            waiter = _Waiter(n, loop)
            line[waiter] = None
            self._waited += 1
        try:
            while not self._turn(key, line, waiter):
                await waiter.future
        finally:
            self._leave(key, line, waiter)

    def try_acquire(self, n: int = 1, key: Any = None) -> int:
        """Let pass as many as may right now.

        Args:
            n: How many would like to.
            key: Whose, for a limiter with keys.

        Returns:
            How many may, 0 to ``n``. 0 as long as somebody waits in `acquire`: nobody is overtaken.
        """
        with self._lock:
            self._check_key("try_acquire", key)
            if key in self._lines:
                return 0
            now = _now()
            bucket = self._bucket(key, now)
            count = min(n, bucket.available(now))
            if count <= 0:
                return 0
            bucket.take(count, now)
            self._admitted += count
            return count

    def give_back(self, n: int, key: Any = None, *, taken: float | None = None) -> None:
        """Put back what was let pass and did not.

        What may have come since then is not put back, as somebody else may have had it.

        Args:
            n: How many.
            key: Whose, for a limiter with keys.
            taken: When that was, by the event loop's clock; None: just now.
        """
        with self._lock:
            self._check_key("give_back", key)
            now = _now()
            self._bucket(key, now).give_back(n, now, taken)
            self._admitted -= n
            line = self._lines.get(key)
            if line:
                _wake_first(line)

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Have a function called, in whichever thread, when the limit is changed by `update`.

        Returns:
            A function that ends it.
        """
        self._watchers[changed] = None
        return lambda: self._watchers.pop(changed, None)

    def available(self, key: Any = None) -> int:
        """Return how many `try_acquire` would let pass right now, at the most."""
        with self._lock:
            self._check_key("available", key)
            now = _now()
            return 0 if key in self._lines else self._look(key, now).available(now)

    def next_in(self, key: Any = None) -> float:
        """Return the seconds until one more may pass, behind those who wait; 0 if now, ``math.inf`` if the rate is 0.

        It is what is known now: others may come before, and the limit may change.
        """
        with self._lock:
            self._check_key("next_in", key)
            now = _now()
            ahead = sum(waiter.n for waiter in self._lines.get(key, ()))
            return self._look(key, now).wait(1, now, ahead)

    # -- changes ------------------------------------------------------------------------------------------------------

    def update(self, *, rate: float | None = None, per: float | None = None, burst: int | None = None) -> None:
        """Change the limit, from now on and for those who wait already. What was let through stays counted.

        Args:
            rate: As for the limiter; None: as before.
            per: As for the limiter; None: as before.
            burst: As for the limiter; None: as before, or as follows from the rate if none was ever given.

        Raises:
            OptionError: An option is of the wrong type or out of range; then nothing has changed.
        """
        rate = self._rate if rate is None else rate
        per = self._per if per is None else per
        _check(rate, per, burst)
        with self._lock:
            self._fixed = self._fixed or burst is not None
            self._rate, self._per = rate, per
            if burst is not None:
                self._burst = burst
            elif not self._fixed:
                self._burst = _default_burst(rate)
            buckets = self._one if self._many is None else self._many
            buckets.update(rate=rate, per=per, burst=self._burst, now=_now())
            for key, line in list(self._lines.items()):
                _wake_first(line)
                if not line:
                    del self._lines[key]
                for waiter in [each for each in line if each.n > self._burst]:
                    waiter.wake()  # to be told
        for changed in list(self._watchers):
            changed()

    def statistics(self) -> RateStatistics:
        """Return what it has done so far."""
        with self._lock:
            return RateStatistics(
                admitted=self._admitted,
                waited=self._waited,
                waiting=sum(map(len, self._lines.values())),
                keys=1 if self._many is None else len(self._many),
                crowded=0 if self._many is None else self._many.crowded,
            )

    # -- lines --------------------------------------------------------------------------------------------------------

    def _turn(self, key: Any, line: OrderedDict[_Waiter, None], waiter: _Waiter) -> bool:
        """Let one who waits pass if it is the first and may; otherwise it is to be woken when it may.

        Nothing is taken on its behalf before it runs: what is let through is used now, not later, and a cancellation
        has nothing to give back.
        """
        with self._lock:
            self._check_fit(waiter.n)
            waiter.renew()
            if next(iter(line)) is not waiter:
                return False
            now = waiter.loop.time()
            wait = self._bucket(key, now).take(waiter.n, now)
            if not wait:
                self._admitted += waiter.n
                return True
            if wait != math.inf:
                waiter.timer = waiter.loop.call_at(now + wait, waiter.ring)
            return False

    def _leave(self, key: Any, line: OrderedDict[_Waiter, None], waiter: _Waiter) -> None:
        """Let it go, and the one behind it be the first."""
        with self._lock:
            waiter.renew()
            first = next(iter(line), None) is waiter
            line.pop(waiter, None)
            if first:
                _wake_first(line)
            if not line and self._lines.get(key) is line:
                del self._lines[key]

    def _bucket(self, key: Any, now: float) -> Bucket:
        return self._one if self._many is None else self._many.use(key, now)

    def _look(self, key: Any, now: float) -> Bucket:
        return self._one if self._many is None else self._many.look(key, now)

    def _check_key(self, method: str, key: Any) -> None:
        if (key is None) is self.keyed:
            expected = "given, as each key has a limit of its own" if self.keyed else "left out, as it has no keys"
            raise OptionError(f"{_WHERE}.{method}", "key", expected, key)

    def _check_fit(self, n: int) -> None:
        if n > self._burst and self._rate != math.inf:
            raise OptionError(f"{_WHERE}.acquire", "n", f"at most {self._burst}, the burst of the limiter", n)


class _Waiter:
    """One call of ``acquire`` that waits."""

    __slots__ = ("future", "loop", "n", "timer")

    def __init__(self, n: int, loop: asyncio.AbstractEventLoop) -> None:
        self.n = n
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()
        self.timer: asyncio.TimerHandle | None = None

    def renew(self) -> None:
        """Have nothing to wake it, and something to wait for."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.future.done():
            self.future = self.loop.create_future()

    def wake(self) -> bool:
        """Let it look again, from whatever thread; False if its loop is closed."""
        if _running() is self.loop:
            self.ring()
            return True
        try:
            self.loop.call_soon_threadsafe(self.ring)
        except RuntimeError:
            return False
        return True

    def ring(self) -> None:
        """Let it look again, from its own loop."""
        if not self.future.done():
            self.future.set_result(None)


def _wake_first(line: OrderedDict[_Waiter, None]) -> None:
    """Let the first of a line look again; those whose loop is closed will never run, and leave it."""
    while line and not next(iter(line)).wake():
        line.popitem(last=False)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _now() -> float:
    """Return the time of the loop that runs here, or what loops take for it by default."""
    loop = _running()
    return time.monotonic() if loop is None else loop.time()


def _default_burst(rate: float) -> int:
    return 1 if rate == math.inf else max(1, math.ceil(rate))


def _check(rate: Any, per: Any, burst: Any) -> None:
    if not _is_number(rate) or not rate >= 0:
        raise OptionError(_WHERE, "rate", "a number of at least 0", rate)
    if not _is_number(per) or not 0 < per < math.inf:
        raise OptionError(_WHERE, "per", "a number of seconds above 0", per)
    if burst is not None:
        check_count(_WHERE, "burst", burst, 1, "an integer of at least 1, or None")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
