"""`augment`: look messages up in an outside system, which is never asked for more than it stands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headgate.errors import AugmentError, HandlerError, OptionError
from headgate.pipeline.augment_options import FAIL, SKIP, cache_maker, check_functions, check_kinds, decider
from headgate.pipeline.lookups import Calls
from headgate.pipeline.rates import RateLimiter
from headgate.protocol.circuits import CircuitBreaker
from headgate.protocol.retries import RetryPolicy
from headgate.runtime.options import check_choice, check_count, check_name, check_seconds
from headgate.types import Message

_MISSING: Final = object()


class Cache(Protocol):
    """What ``cache=`` takes besides a size: any cache that is used like a dict."""

    def get(self, key: Any, default: Any) -> Any:
        """Return what is remembered for a key, or the default."""
        ...

    def __setitem__(self, key: Any, value: Any) -> None:
        """Remember."""
        ...


class Policy(Protocol):
    """What ``retry=`` takes: a `RetryPolicy`, or whatever decides like one."""

    def decide(self, error: Any, failed_attempts: int, chance: float) -> float | None:
        """Return the seconds to wait before the next attempt, or None: there is none."""
        ...


@dataclass(frozen=True, slots=True)
class AugmentStatistics:
    """What an `Augment` has done so far.

    Attributes:
        looked_up: Keys that were asked for outside.
        hits: Keys that were found in the cache.
        joined: Keys that somebody else was looking up just then.
        calls: Calls that have begun, retries included.
        batches: Calls with more than one key.
        retries: Calls that were to be made again.
        timeouts: Calls that took too long.
        rejected: How often nobody called, as the circuit was open.
        failed: Messages that could not be looked up, and ``skipped``: those of them that went on without.
        in_flight: Calls under way now, and ``most_in_flight``: at once so far.
        circuit: ``"closed"``, ``"open"`` or ``"half_open"``.
    """

    looked_up: int
    hits: int
    joined: int
    calls: int
    batches: int
    retries: int
    timeouts: int
    rejected: int
    failed: int
    skipped: int
    in_flight: int
    most_in_flight: int
    circuit: str


def augment(  # noqa: PLR0913 (each is a choice of its own)
    lookup: Callable[[Any], Any],
    *,
    key: Callable[[Message], Any] | None = None,
    into: str | Callable[[Message, Any], object] = "augmented",
    concurrency: int = 10,
    rate: RateLimiter | None = None,
    batch: int = 1,
    linger: float = 0.01,
    cache: int | tuple[int, float] | Cache | None = None,
    timeout: float | None = None,
    retry: Policy | Mapping[type[Exception], RetryPolicy | None] | Callable[[Callable[[], Any]], Any] | None = None,
    breaker: CircuitBreaker | None = None,
    on_error: str | Callable[[Message, AugmentError], Any] = FAIL,
    ordered: bool = True,
    name: str | None = None,
) -> Augment:
    """Look messages up in an outside system (an API, a database), which is never asked for more than it stands.

    It is given to a pipeline as a processing step, or called in a handler: ``message = await users(message)``. All who
    use it share its places, its rate, its cache and what is under way: a key that somebody looks up already is not
    looked up a second time. However calls fail, take too long or are cancelled: no more than ``concurrency`` are under
    way at once, and they begin no more often than ``rate`` allows. One that was given up counts until it has ended.

    Args:
        lookup: A function of a key that returns the result. A plain one runs in threads.
        key: A function of a message that says what to look up. Default: its data.
        into: Where the result goes: a key of ``message.metadata``, or a plain function of the message and the result.
            Default ``"augmented"``.
        concurrency: How many calls are under way at once at the most. Default 10.
        rate: How often calls may begin: a `RateLimiter`, which others may share. Default None: as often as there is
            room.
        batch: How many keys are looked up by one call, at the most. Above 1, ``lookup`` is given a list of keys, and
            returns a list of results in the same order, or a dict of results by key. A result that is an exception
            is the failure of that key alone, and so is a key that the dict does not have. Default 1.
        linger: Seconds that keys wait for others to share a call with. Default 0.01.
        cache: How many results are remembered, the least recently used ones are forgotten; or that and for how many
            seconds; or a cache of yours (`Cache`). Failures are not remembered. Sizes need the extra
            ``headgate[augment]``. Default None: nothing is.
        timeout: Seconds after which a call is given up: an async one is cancelled, a thread is left alone. It begins
            with the call, not while that waits for its turn. Default None: never.
        retry: A `RetryPolicy` that says whether and when to call again after what the call has raised, or a dict of
            exception classes and policies; or a caller such as ``stamina.AsyncRetryingCaller().on(OSError)`` or
            ``tenacity.AsyncRetrying(...)``. Default None: not at all.
        breaker: When to stop asking: a `CircuitBreaker`. Default None: never.
        on_error: What becomes of a message that could not be looked up: ``"fail"`` (default): `AugmentError` is raised;
            ``"skip"``: it goes on without a result; a plain function of the message and the error: what that returns
            is the result.
        ordered: As a step of a pipeline: messages leave it in the order in which they came. Default True.
        name: For errors, statistics and threads. Default: that of the function.

    Raises:
        OptionError: An option is of the wrong type or out of range, or needs an extra that is not installed.
    """
    own: str = getattr(lookup, "__name__", type(lookup).__name__)
    where = f"augment({own})"
    check_functions(where, lookup, key, into, on_error)
    check_count(where, "concurrency", concurrency, 1)
    check_count(where, "batch", batch, 1)
    check_seconds(where, "linger", linger)
    if timeout is not None and not check_seconds(where, "timeout", timeout, "a number of seconds above 0, or None"):
        raise OptionError(where, "timeout", "a number of seconds above 0, or None", timeout)
    check_kinds(where, rate, batch, breaker)
    check_choice(where, "ordered", ordered, (True, False))
    label = check_name(where, "name", name) or own
    make_cache = cache_maker(where, cache)
    calls = Calls(lookup, label, concurrency=concurrency, rate=rate, timeout=timeout, breaker=breaker)
    made = Augment(
        calls, batch=batch, linger=linger, retry=decider(where, retry), make_cache=make_cache, concurrency=concurrency
    )
    made.ordered = ordered
    made.key, made.into, made.on_error = key, into, on_error
    return made


class Augment:
    """What `augment` returns: call it with a message, and it returns that with the result on it.

    Attributes:
        name: Its name.
        concurrency: How many calls are under way at once at the most.
        width: How many messages a step may have in it at once, so that all calls can be under way and full.
        ordered: Whether messages leave a step in the order in which they came.
    """

    key: Callable[[Message], Any] | None = None
    into: str | Callable[[Message, Any], object] = "augmented"
    on_error: str | Callable[[Message, AugmentError], Any] = FAIL
    ordered: bool = True

    def __init__(
        self, calls: Calls, *, batch: int, linger: float, retry: Any, make_cache: Callable[[], Any], concurrency: int
    ) -> None:
        """Begin with nothing under way."""
        self.name = calls.name
        self.concurrency = concurrency
        self.width = concurrency * batch
        self._calls = calls
        self._batch = batch
        self._linger = linger
        self._retry = retry
        self._make_cache = make_cache
        self._chance: Callable[[], float] = random.random
        self._loop: asyncio.AbstractEventLoop | None = None
        self._users = 0
        self._looked_up = self._hits = self._joined = self._batches = self._retries = self._failed = self._skipped = 0
        self._begin()

    def __repr__(self) -> str:
        """Show its name."""
        return f"<Augment {self.name!r}>"

    async def __call__(self, message: Message) -> Message:
        """Look a message up, and return it with the result on it.

        Raises:
            AugmentError: It could not be looked up.
        """
        key = message.data if self.key is None else self.key(message)
        rate = self._calls.rate
        rate_key = rate.key_of(message) if rate is not None and rate.keyed else None
        try:
            result = await self._fetch(key, rate_key)
        except AugmentError as error:
            self._failed += 1
            if self.on_error == FAIL:
                raise
            if self.on_error == SKIP:
                self._skipped += 1
                return message
            assert callable(self.on_error)  # noqa: S101 (as was checked)
            result = self.on_error(message, error)
        if callable(self.into):
            self.into(message, result)
        else:
            message.metadata[self.into] = result
        return message

    async def look_up(self, key: Any) -> Any:
        """Look a key up, and return the result.

        Raises:
            AugmentError: It could not be looked up.
            OptionError: The rate limiter has keys, and there is no message to take one from.
        """
        rate = self._calls.rate
        if rate is not None and rate.keyed:
            raise OptionError(f"augment({self.name}).look_up", "rate", "a RateLimiter without keys", rate)
        return await self._fetch(key, None)

    async def open(self) -> None:
        """Be ready: a pipeline does this first. Who calls it by itself need not."""
        self._bind(None)
        self._users += 1

    async def close(self) -> None:
        """End what is under way, and let go of threads, when the last of those that have opened it closes it.

        Whoever waits gets an `AugmentError`. Called again, it begins afresh.
        """
        self._users = max(0, self._users - 1)
        if self._users:
            return
        self._close_filling()
        tasks = [trip.task for trip in self._trips if trip.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._calls.close()

    def statistics(self) -> AugmentStatistics:
        """Return what it has done so far."""
        calls = self._calls
        now = 0.0 if self._loop is None else self._loop.time()
        return AugmentStatistics(
            looked_up=self._looked_up,
            hits=self._hits,
            joined=self._joined,
            calls=calls.made,
            batches=self._batches,
            retries=self._retries,
            timeouts=calls.timeouts,
            rejected=calls.rejected,
            failed=self._failed,
            skipped=self._skipped,
            in_flight=calls.under_way,
            most_in_flight=calls.most,
            circuit="closed" if calls.circuit is None else calls.circuit.state(now),
        )

    # -- keys ---------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Forget what was under way on an event loop that is closed."""
        self._flights: dict[Any, _Flight] = {}
        self._trips: set[_Trip] = set()
        self._filling: _Trip | None = None
        self._cache = self._make_cache()
        self._calls.begin()

    def _bind(self, key: Any) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None and not self._loop.is_closed() and (self._trips or self._calls.alive):
                raise AugmentError(self.name, key, "it is at work on another event loop")
            if self._loop is not None:
                self._begin()
            self._loop = loop
        return loop

    async def _fetch(self, key: Any, rate_key: Any) -> Any:
        """Return the result for a key: from the cache, from somebody who looks it up already, or from outside."""
        loop = self._bind(key)
        try:
            hash(key)
        except TypeError as error:
            if self._cache is not None:
                raise AugmentError(self.name, key, error) from error
            flight = None
            ident: Any = object()  # nobody can share it
        else:
            if self._cache is not None and (known := self._cache.get(key, _MISSING)) is not _MISSING:
                self._hits += 1
                return known
            ident = key
            flight = self._flights.get(key)
        waiter = loop.create_future()
        if flight is not None:
            self._joined += 1
            flight.waiters[waiter] = None
        else:
            flight = self._flights[ident] = _Flight(key, ident, rate_key)
            flight.waiters[waiter] = None
            self._board(loop, flight)
        try:
            await waiter
        except asyncio.CancelledError:
            flight.waiters.pop(waiter, None)
            if not flight.waiters and not flight.landed:
                self._abandon(flight)
            raise
        if flight.error is not None:
            raise flight.failure(self.name)
        return flight.value

    def _land(self, flight: _Flight, value: Any = None, error: BaseException | None = None) -> None:
        """Let those who wait for a key go on."""
        flight.landed, flight.value, flight.error = True, value, error
        self._forget(flight)
        if error is None and self._cache is not None:
            self._cache[flight.key] = value
        for waiter in flight.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _abandon(self, flight: _Flight) -> None:
        """Nobody waits for a key any more: do not look it up, or no longer, unless others travel with it."""
        trip = flight.trip
        if trip is self._filling and trip is not None:
            trip.flights.remove(flight)
            self._forget(flight)
            if not trip.flights:
                self._close_filling()
        elif trip is not None and not any(each.waiters for each in trip.flights):
            for each in trip.flights:
                self._forget(each)
            if trip.task is not None:
                trip.task.cancel()

    def _forget(self, flight: _Flight) -> None:
        """Let nobody join it any more."""
        if self._flights.get(flight.ident) is flight:
            del self._flights[flight.ident]

    # -- calls --------------------------------------------------------------------------------------------------------

    def _board(self, loop: asyncio.AbstractEventLoop, flight: _Flight) -> None:
        """Put a key on a call that is being filled."""
        self._looked_up += 1
        trip = self._filling
        if trip is None:
            trip = self._filling = _Trip()
            if self._batch > 1:
                trip.timer = loop.call_later(self._linger, self._depart, loop, trip)
        trip.flights.append(flight)
        flight.trip = trip
        if len(trip.flights) >= self._batch:
            self._depart(loop, trip)

    def _depart(self, loop: asyncio.AbstractEventLoop, trip: _Trip) -> None:
        self._close_filling()
        self._trips.add(trip)
        trip.task = loop.create_task(self._travel(trip), name=f"headgate: {self.name}")
        trip.task.add_done_callback(lambda _: self._end(trip))

    def _close_filling(self) -> None:
        """Let nobody board any more."""
        if self._filling is not None and self._filling.timer is not None:
            self._filling.timer.cancel()
        self._filling = None

    async def _travel(self, trip: _Trip) -> None:
        """Look up the keys of a call, as often as it takes, and land them."""
        try:
            flights, results = await self._persist(trip)
        except Exception as error:  # noqa: BLE001 (it belongs to whoever waits)
            self._land_all(trip.flights, error)
        else:
            self._spread(flights, results)

    def _end(self, trip: _Trip) -> None:
        """Its task has ended, perhaps before it began: whoever still waits then does so in vain."""
        self._trips.discard(trip)
        self._land_all(trip.flights, AugmentError(self.name, None, "it was closed"))

    async def _persist(self, trip: _Trip) -> tuple[list[_Flight], Any]:
        """Call until it succeeds or is given up."""
        retry = self._retry
        if retry is None:
            return await self._attempt(trip)
        if not hasattr(retry, "decide"):
            return await self._by_caller(trip, retry)
        failed = 0
        while True:
            try:
                return await self._attempt(trip)
            except Exception as error:
                failed += 1
                wait = retry.decide(error, failed, self._chance())
                if wait is None:
                    raise
            self._retries += 1
            await asyncio.sleep(wait)

    async def _by_caller(self, trip: _Trip, caller: Callable[[Callable[[], Any]], Any]) -> tuple[list[_Flight], Any]:
        """Let a library decide: it is given a function to call until it succeeds."""
        tries = 0

        async def attempt() -> Any:
            nonlocal tries
            self._retries += tries > 0
            tries += 1
            return await self._attempt(trip)

        found: tuple[list[_Flight], Any] = await caller(attempt)
        return found

    async def _attempt(self, trip: _Trip) -> tuple[list[_Flight], Any]:
        """Make one call, for the keys that somebody still waits for."""
        flights = [each for each in trip.flights if each.waiters]
        for each in trip.flights:
            if not each.waiters:
                self._forget(each)
        if self._batch == 1:
            return flights, await self._calls.call(flights[0].key, flights[0].key, flights[0].rate_key)
        keys = [each.key for each in flights]
        self._batches += len(keys) > 1
        return flights, await self._calls.call(keys, keys)

    def _land_all(self, flights: Sequence[_Flight], error: BaseException) -> None:
        for flight in flights:
            if not flight.landed:
                self._land(flight, error=error)

    def _spread(self, flights: list[_Flight], results: Any) -> None:
        """Land the keys of a call with the result of each."""
        if self._batch == 1:
            self._land(flights[0], results)
            return
        if isinstance(results, Mapping):
            found = [_of(results, each.key) for each in flights]
        elif isinstance(results, Sequence) and not isinstance(results, str | bytes) and len(results) == len(flights):
            found = list(results)
        else:
            expected = f"a list of {len(flights)} results, or a dict of results by key"
            self._land_all(flights, HandlerError(self.name, "lookup", expected, results))
            return
        for flight, value in zip(flights, found, strict=True):
            if isinstance(value, Exception):
                self._land(flight, error=value)
            else:
                self._land(flight, value)


class _Flight:
    """A key that is looked up, and who waits for it."""

    __slots__ = ("error", "ident", "key", "landed", "rate_key", "trip", "value", "waiters")

    def __init__(self, key: Any, ident: Any, rate_key: Any) -> None:
        self.key = key
        self.ident = ident
        self.rate_key = rate_key
        self.waiters: dict[asyncio.Future[None], None] = {}  # in order
        self.trip: _Trip | None = None
        self.landed = False
        self.value: Any = None
        self.error: BaseException | None = None

    def failure(self, name: str) -> AugmentError:
        """Make an error of its own for each who waits."""
        error = self.error
        if isinstance(error, AugmentError):
            return type(error)(name, self.key, error.error)
        return AugmentError(name, self.key, error)


class _Trip:
    """Keys that are looked up by one call."""

    __slots__ = ("flights", "task", "timer")

    def __init__(self) -> None:
        self.flights: list[_Flight] = []
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


def _of(results: Mapping[Any, Any], key: Any) -> Any:
    try:
        return results[key]
    except (KeyError, TypeError) as error:  # or it cannot be a key
        return error
