"""The options of `headgate.augment`, checked when they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from headgate.errors import OptionError
from headgate.pipeline.lookups import is_async
from headgate.pipeline.rates import RateLimiter
from headgate.protocol.circuits import CircuitBreaker
from headgate.protocol.retries import Retries
from headgate.runtime.options import check_count, check_seconds

FAIL: Final = "fail"
SKIP: Final = "skip"

_PAIR: Final = 2


def cache_maker(where: str, cache: Any) -> Callable[[], Any]:
    """Return a function that makes the cache: a fresh one for each event loop, whose clock it goes by."""
    if cache is None:
        return lambda: None
    if hasattr(cache, "get") and hasattr(cache, "__setitem__"):
        return lambda: cache
    size: Any
    seconds: Any
    size, seconds = cache if isinstance(cache, tuple) and len(cache) == _PAIR else (cache, None)
    expected = "a number of entries of at least 1, that and a number of seconds above 0, a cache, or None"
    check_count(where, "cache", size, 1, expected)
    if seconds is not None and not check_seconds(where, "cache", seconds, expected):
        raise OptionError(where, "cache", expected, cache)
    try:
        from cachetools import LRUCache, TTLCache  # noqa: PLC0415 (of an extra)
    except ImportError:
        extra = "a cache of yours, or None, as the extra headgate[augment] is not installed"
        raise OptionError(where, "cache", extra, cache) from None

    def make() -> Any:
        made: LRUCache[Any, Any] | TTLCache[Any, Any, float]
        if seconds is None:
            made = LRUCache(size)
        else:
            made = TTLCache(size, seconds, timer=lambda: asyncio.get_running_loop().time())
        return made

    return make


def check_functions(where: str, lookup: Any, key: Any, into: Any, on_error: Any) -> None:
    """Refuse what is no function, and where it is called at once, what is async."""
    if not callable(lookup):
        raise OptionError("augment", "lookup", "a function of a key", lookup)
    for option, value in (("key", key), ("into", into), ("on_error", on_error)):
        if callable(value) and is_async(value):
            raise OptionError(where, option, "a plain function", value)
    if key is not None and not callable(key):
        raise OptionError(where, "key", "a function of a message, or None", key)
    if not callable(into) and (not isinstance(into, str) or not into):
        raise OptionError(where, "into", "a key of the metadata, or a function of the message and the result", into)
    if not callable(on_error) and on_error not in {FAIL, SKIP}:
        expected = "'fail', 'skip', or a function of the message and the error"
        raise OptionError(where, "on_error", expected, on_error)


def check_kinds(where: str, rate: Any, batch: int, breaker: Any) -> None:
    """Refuse what is of another kind."""
    if rate is not None and not isinstance(rate, RateLimiter):
        raise OptionError(where, "rate", "a RateLimiter, or None", rate)
    if rate is not None and rate.keyed and batch > 1:
        raise OptionError(where, "rate", "a RateLimiter without keys, as a call has messages of several", rate)
    if breaker is not None and not isinstance(breaker, CircuitBreaker):
        raise OptionError(where, "breaker", "a CircuitBreaker, or None", breaker)


def decider(where: str, retry: Any) -> Any:
    """Return what says whether to call again: a policy, or the caller of a library."""
    if isinstance(retry, Mapping):
        return Retries(retry, where=where)
    if retry is not None and not hasattr(retry, "decide") and not callable(retry):
        raise OptionError(where, "retry", "a RetryPolicy, a dict of them, a caller such as stamina's, or None", retry)
    return retry
