"""How much may be done when: token buckets, for one resource or for each of many keys. Pure: time comes in.

A bucket is the *generic cell rate algorithm* in its form as a continuous-state leaky bucket (ITU-T Recommendation
I.371, "Traffic control and congestion control in B-ISDN", annex A; ATM Forum, Traffic Management 4.0). It remembers how
full it is and since when, and nothing per token. What it admits, it admits smoothly: in any window of ``T`` seconds at
most ``burst + rate * T``, wherever the window begins. A counter that is set back every interval admits twice as much
around the moment at which it is set back.

Clocks may jump. One that goes forward by an hour fills the bucket, one that goes back by an hour does not stop it for
an hour: each jump lets at most one burst more pass.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any, Final

UNLIMITED: Final = 1 << 62
"""How many are available where there is no limit (``rate=inf``): an integer, to be compared with counts."""

_SLACK: Final = 1e-9
"""Share of a burst by which sums of floats may miss it: a token that is due is not refused over the last bit."""


class Bucket:
    """Tokens for one resource: ``rate`` of them come every ``per`` seconds, and ``burst`` are kept at most.

    Args:
        rate: How many come; 0: none any more, ``math.inf``: there is no limit.
        per: In so many seconds.
        burst: How many are kept at most, which is how many can be taken at once; at least 1. It starts full.
        now: The time in seconds.

    Attributes:
        rate: Tokens a second.
        burst: How many can be taken at once.
    """

    __slots__ = ("_at", "_born", "_fastest", "_level", "burst", "rate")

    def __init__(self, rate: float, per: float, burst: int, now: float = 0.0) -> None:
        """Begin full."""
        self.rate = self._fastest = rate / per
        self.burst = burst
        self._level = 0.0  # how many were taken and have not come again: more than `burst` when some are reserved
        self._at = self._born = now

    def available(self, now: float) -> int:
        """Return how many can be taken now."""
        if self.rate == math.inf:
            return UNLIMITED
        self._drain(now)
        return max(0, math.floor(self.burst * (1 + _SLACK) - self._level))

    def full(self, now: float) -> bool:
        """Say whether it is as good as new."""
        self._drain(now)
        return self._level <= 0.0

    def wait(self, n: int, now: float, ahead: int = 0) -> float:
        """Return the seconds until so many can be taken, 0 if now; ``math.inf``: never, as things are.

        Args:
            n: How many.
            now: The time.
            ahead: How many others are to take before that.
        """
        self._drain(now)
        excess = self._level + ahead + n - self.burst
        if excess <= self.burst * _SLACK or self.rate == math.inf:
            return 0.0
        if n > self.burst or not self.rate:
            return math.inf
        # Never so short that the clock would stay where it is: whoever waits for it has to get on.
        return max(self._at - now + excess / self.rate, math.ulp(now))

    def take(self, n: int, now: float) -> float:
        """Take so many if they are there, and none otherwise.

        Returns:
            0.0 if they were taken; otherwise the seconds until they can be (if nobody takes any before), or
            ``math.inf``: never, since they are more than the burst, or no more come.
        """
        wait = self.wait(n, now)
        if not wait:
            self._level += n
        return wait

    def reserve(self, n: int, now: float) -> float:
        """Take so many now, to be used later: whoever takes any after this waits behind them.

        Returns:
            The seconds after which they may be used. Uses at these times keep to the limit as well.
            ``math.inf``: never; then nothing was taken.
        """
        wait = self.wait(n, now)
        if wait != math.inf:
            self._level += n
        return wait

    def give_back(self, n: int, now: float, taken: float | None = None) -> None:
        """Put back what was taken and not used.

        Args:
            n: How many.
            now: The time.
            taken: When they were taken; None: just now. As many as may have come since then are not put back: somebody
                else may have used the room that they had left. None are while others wait for what they have
                reserved, as these go by when they were told.
        """
        lost = 0.0
        if taken is not None and taken != now:
            # Nobody knows how long ago it was when the clock was set back; and before this bucket there was another
            # one, which was full when it was forgotten.
            unknown = taken > now or taken < self._born
            lost = n if unknown else (now - taken) * self._fastest
        self._drain(now)
        if self._level <= self.burst:
            self._level = max(0.0, self._level - max(0.0, n - lost))

    def update(
        self, *, rate: float | None = None, per: float = 1.0, burst: int | None = None, now: float = 0.0
    ) -> None:
        """Change the limit; what was taken stays taken.

        Args:
            rate: How many come; None: as before.
            per: In so many seconds; it belongs to ``rate``.
            burst: How many are kept at most; None: as before.
            now: The time.
        """
        self._drain(now)
        if rate is not None:
            self.rate = rate / per
            self._fastest = max(self._fastest, self.rate)
        if burst is not None:
            self.burst = burst

    def _drain(self, now: float) -> None:
        """Let the tokens come that are due by now."""
        passed = now - self._at
        if passed > 0.0:
            came = passed * self.rate if self.rate != math.inf else self._level
            self._level = max(0.0, self._level - came)
            self._at = now
        # Times of several threads are a little out of order: then it waits for the clock to come up to where it was.
        # If that would take longer than to fill it from empty, the clock has been set back, and a new time begins.
        elif passed < 0.0 and -passed * self.rate > self.burst:
            self._at = now


class KeyedBuckets:
    """A bucket for each key, made when the key is first used.

    Only a full bucket is forgotten, since it is as good as a new one: no key gets more than its share by being
    forgotten. So there can be more than ``most``: those used within the last ``burst / rate`` seconds.

    Args:
        rate: As `Bucket`, for each key.
        per: As `Bucket`.
        burst: As `Bucket`.
        most: From how many keys on the ones least recently used are forgotten.

    Attributes:
        crowded: How often a key came on top of ``most`` of which none could be forgotten.
    """

    __slots__ = ("_buckets", "_burst", "_most", "_per", "_rate", "crowded")

    def __init__(self, rate: float, per: float, burst: int, most: int = 100_000) -> None:
        """Begin with no key."""
        self._rate, self._per, self._burst = rate, per, burst
        self._most = most
        self._buckets: OrderedDict[Any, Bucket] = OrderedDict()
        self.crowded = 0

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._buckets)

    def use(self, key: Any, now: float) -> Bucket:
        """Return the bucket of a key, to take from it."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            self._buckets.move_to_end(key)
            return bucket
        self._forget(now)
        bucket = self._buckets[key] = Bucket(self._rate, self._per, self._burst, now)
        return bucket

    def look(self, key: Any, now: float) -> Bucket:
        """Return the bucket of a key, to look at it: a key that was never used is not remembered for that."""
        return self._buckets.get(key) or Bucket(self._rate, self._per, self._burst, now)

    def update(
        self, *, rate: float | None = None, per: float = 1.0, burst: int | None = None, now: float = 0.0
    ) -> None:
        """Change the limit of every key, as `Bucket.update`."""
        if rate is not None:
            self._rate, self._per = rate, per
        if burst is not None:
            self._burst = burst
        for bucket in self._buckets.values():
            bucket.update(rate=rate, per=per, burst=burst, now=now)

    def _forget(self, now: float) -> None:
        """Make room for one more, as far as it can be."""
        # Whoever was used least recently is full first, or nearly so: two looks for each key that comes make it shrink.
        for _ in range(2):
            if len(self._buckets) < self._most:
                return
            key, bucket = next(iter(self._buckets.items()))
            if not bucket.full(now):
                self.crowded += 1
                return
            del self._buckets[key]
