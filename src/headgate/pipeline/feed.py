"""The feed: from one source to the processors, as far as they ask, in the order that was declared.

Its state lives as long as the pipeline runs; the stage that hands its messages out may crash and come again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import SourceError
from headgate.pipeline.acknowledger import Acknowledger
from headgate.pipeline.link import Link
from headgate.pipeline.options import DEAD_LETTER, DISCARD
from headgate.pipeline.processing import THROUGH
from headgate.pipeline.sourcing import left_behind
from headgate.protocol.children import Backoff
from headgate.protocol.intake import Intake
from headgate.types import DEFERRED, Joint, Message, Source

if TYPE_CHECKING:
    from headgate.pipeline.rates import RateLimiter
    from headgate.pipeline.run import Run
    from headgate.pipeline.sourcing import SourceStage

OVERFLOW_SECONDS: Final = 1.0
"""For how long messages of a key that has too many waiting go back to their source."""
_LONGEST: Final = 3600.0
"""Seconds after which to look at a rate limit again that lets nothing pass."""
_REFETCH: Final = Backoff(first=0.1, most=30.0)


class Feed:
    """Fetches messages and hands them out.

    Args:
        run: What the pipeline's stages share.
        source: Where they come from.
        index: Its number among the sources.

    Attributes:
        stage: The stage that hands them out, as long as it lives.
        exhausted: The source has said that there is nothing more.
        stopped: Nothing is fetched any more.
        books: What has become of the messages.
        intake: Chooses whose message is next; None: they go in the order in which they came.
    """

    def __init__(self, run: Run, source: Source, index: int) -> None:
        """Begin before the source is opened."""
        self.run = run
        self.source = source
        self.name = source.name or f"{type(source).__name__}-{index + 1}"
        self.link = Link(source, self.name, run.loop)
        self.books = Acknowledger(self.link, run.loop, run.report, run.settled, run.random.random, run.defer)
        self.books.returned = self.returned
        self.stage: SourceStage | None = None
        self._last: SourceStage | None = None
        self._fallen: list[SourceStage] = []  # those before it
        self.exhausted = False
        self.stopped = False
        self.fetching = 0
        self.fetches = 0
        self.errors = 0
        self._line: deque[Message] = deque()  # without an intake: what came back, or was fetched by a task
        self._injected: deque[Message] = deque()  # put in by hand, and not admitted by the rate limit yet
        self._ending = False
        self._opened = False
        self._draining: asyncio.Task[None] | None = None  # tells the source that nothing more is wanted
        self._job: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False  # it has nothing now
        self._token = 0  # of the rate limit, that was waited for
        self._waiter: asyncio.Task[None] | None = None  # for one
        self._asked_at = 0.0  # when the rate limit let the last fetch pass
        self._stirred = False  # since the last fetch began there was a reason to fetch again
        self._serving = False
        self._unwatch: list[Callable[[], object]] = []
        self._failures = 0
        self._going_back: dict[Message, Any] = {}  # of a source that keeps order: it does not know yet, and their keys
        self._gone_back: set[Any] = set()  # keys of which it was told while a fetch was under way
        self._throttled: dict[Any, deque[Message]] = {}  # messages whose key has no tokens left
        self._relief: dict[Any, asyncio.TimerHandle] = {}
        self.intake: Intake | None = run.make_intake()
        if self.intake is not None and run.serial is not None:
            self.books.release = self.leave
            if source.ordered:
                self.books.requeued = self._withdraw
        self._fetch_now = source.fetch
        self._ahead = min(run.lookahead, source.lookahead) if run.lookahead_by_source else run.lookahead
        self.sent = False  # something was sent without being asked for by `take`
        self._simple = (
            self.intake is None
            and self.link.fetches_directly
            and source.lease is None
            and run.rate_limit is None
            and run.key_limit is None
        )
        source.wake = self.wake

    # -- its life -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the source.

        Raises:
            SourceError: It raised.
        """
        try:
            await self.link.acall("open")
        except Exception as error:
            self.link.close()
            raise SourceError(self.name, "open", error) from error
        self._opened = True
        for limiter in (self.run.rate_limit, self.run.key_limit):
            if limiter is not None:
                self._unwatch.append(limiter.watch(self.limits_changed))

    async def close(self) -> None:
        """Tell the source what became of everything, and close it."""
        await self.quiet()
        if self._draining is not None:  # it is closed only after that
            await asyncio.wait([self._draining])
        await self.books.close()
        while self._unwatch:
            self._unwatch.pop()()
        if self._opened:
            self._opened = False
            try:
                await self.link.acall("close")
            except Exception as error:  # noqa: BLE001 (the user's source)
                self.run.report(SourceError(self.name, "close", error))
        self.link.close()

    async def quiet(self) -> None:
        """Fetch nothing any more; what a fetch that is under way brings goes back."""
        self.stopped = True
        self._simple = False  # nor is anything fetched right where it is asked for
        self._cancel_timer()
        await self._drop_token()
        if self._opened:
            if self._draining is None:
                self._draining = self.run.node.job(self._drain(), f"drain {self.name}")
            await asyncio.wait([self._draining], timeout=self.run.remaining())
        if self._job is not None:
            _, late = await asyncio.wait([self._job], timeout=self.run.remaining())
            for job in late:
                job.cancel()

    async def _drain(self) -> None:
        """Say so to the source, once."""
        try:
            await self.link.acall("drain")
        except Exception as error:  # noqa: BLE001 (the user's source)
            self.run.report(SourceError(self.name, "drain", error))

    def clear(self) -> list[Message]:
        """Take out all that waits: nobody has begun it."""
        waiting: Iterable[Message] = [*self._line, *self._injected]
        if self.intake is not None:
            waiting = [*self.intake.clear(), *waiting]
        for line in self._throttled.values():
            waiting = [*waiting, *line]
        self._throttled.clear()
        for timer in self._relief.values():
            timer.cancel()
        self._relief.clear()
        self._line.clear()
        self._injected.clear()
        return list(waiting)

    # -- what it has --------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Messages that were fetched and not handed out."""
        held = sum(map(len, self._throttled.values())) if self._throttled else 0
        return len(self._line) + len(self._injected) + held + (0 if self.intake is None else self.intake.waiting)

    @property
    def over(self) -> bool:
        """Whether nothing more comes, unless something goes back."""
        return (self.exhausted or self.stopped) and not self.fetching and not self.waiting

    @property
    def _living(self) -> SourceStage | None:
        """The stage, if it may send anything now: one that was killed has left without a word."""
        stage = self.stage
        return None if stage is None or self.run.gated or not stage.stage.ref.alive else stage

    def take_over(self, stage: SourceStage) -> None:
        """Hand out by this stage from now on; what a predecessor had not sent comes first."""
        before, self.stage = self._last, stage
        self._last = stage
        if before is not None:
            self._fallen.append(before)
            self.run.fallen()
            self.rescue()
        unsent = [] if before is None else before.unsent()
        if unsent:
            self.run.left(len(unsent))
            self.put_back(unsent)

    def rescue(self) -> None:
        """Hand out again what processors that fell had from a stage that fell before them: nobody else has it."""
        lost: list[Message] = []
        done: list[Message] = []
        for before in self._fallen:
            for message in left_behind(before):
                if message.outcome is not None or message.owner is THROUGH:
                    if message.outcome != DEFERRED:
                        done.append(message)
                elif message not in self.run.waiting:
                    lost.append(message)
        if done:  # those who were through with them fell before they could say so
            self.leave(done)
        if lost:
            self.put_back(lost)

    def put_back(self, messages: list[Message]) -> None:
        """Take messages to be handed out (again), ahead of those that came later."""
        if self.stopped:
            for message in messages:
                self.run.give_back(message)
            return
        if self.intake is None:
            self._line.extendleft(reversed(messages))
        else:
            # What was made of a message has its key, and must not wait for that to be let go: it goes past the others.
            out = self.intake.is_out
            made = [each for each in messages if isinstance(each.keeper, Joint) and not out(each)]
            self._line.extendleft(reversed(made))
            self.intake.put_back([each for each in messages if each not in made] if made else messages)
        self.serve_soon()

    def inject(self, messages: list[Message]) -> None:
        """Take messages that do not come from the source, behind what waits."""
        if self.stopped:
            for message in messages:
                self.run.give_back(message)
            return
        self._injected.extend(messages)
        self.serve_soon()

    def _admit_injected(self, wanted: int) -> None:
        """Let messages that were put in by hand go on as the rate limit allows: they do not come past it."""
        injected = self._injected
        admitted = self._admitted(min(wanted, len(injected))) if wanted > 0 else 0
        messages = [injected.popleft() for _ in range(admitted)]
        if self.intake is None:
            self._line.extend(messages)
        elif messages:
            self._offer(messages)

    def leave(self, messages: list[Message]) -> None:
        """Take note that messages have left the processors: the next ones of their keys may go."""
        if self.intake is not None and self.intake.release(messages):
            self.serve_soon()

    def _withdraw(self, message: Message) -> None:
        """Give back what waits behind a message that goes back to its source: it keeps the order of the key."""
        if self.intake is None or self.stopped:
            return
        key = self._key(message)
        if key is None:
            return
        self._going_back[message] = key
        for behind in self.intake.withdraw(key):
            self.run.give_back(behind)

    # -- handing out --------------------------------------------------------------------------------------------------

    def take(self, demand: int) -> list[Message] | None:
        """Hand out messages for demand: at once if the source is one that answers at once.

        Args:
            demand: How many are asked for now.
        """
        run = self.run
        if run.gated:
            return None
        if not self._simple or self._line or self._injected or self._resting or self.exhausted:
            self.serve_soon()
            return None
        if self.sent:  # perhaps for this demand: the stage is asked for it a little later than `serve` sees it
            owed = 0 if self.stage is None else self.stage.owed
            self.sent = owed != demand
            demand = min(demand, owed)
            if not demand:
                return None
        # A source that answers at once, and nothing that comes in between: the hot path.
        self._stirred = False
        try:
            messages: list[Message] | None = self._fetch_now(demand)
            if type(messages) is list and len(messages) == demand and type(messages[0]) is Message:
                self.fetches += 1
                self._failures = 0
                books = self.books
                in_flight = books.in_flight
                sound = True
                for message in messages:
                    message.keeper = books
                    in_flight[message] = None
                    if message.reason is not None:
                        sound = False
                books.fetched += demand
                stage = self.stage
                if not sound or stage is None:
                    return self._given(self._hand_out(self._sound(messages)))
                run.in_steps += demand  # `_hand_out` and `_given`, spelt out
                stage.given += demand
                stage.latest = messages
                return messages
            messages = self.link.check(messages, demand)
        except Exception as error:  # noqa: BLE001 (the user's source)
            self._failed(error, demand)
            return None
        return self._given(self._hand_out(self._fetched(messages, demand)))

    def _given(self, messages: list[Message] | None) -> list[Message] | None:
        """Note what the stage is about to send: it may be killed before it can."""
        if messages and self.stage is not None:
            self.stage.given += len(messages)
            self.stage.latest = messages
        return messages

    def serve_soon(self) -> None:
        """Look at what is owed, once in a turn."""
        if not self._serving:
            self._serving = True
            self.run.loop.call_soon(self.serve)

    def serve(self) -> None:
        """Send what is owed, as far as there is something, and fetch the rest."""
        self._serving = False
        stage = self._living
        if stage is None:
            return
        for key in [each for each in self._throttled if each not in self._relief]:
            self._relieve(key)
        owed = stage.owed
        if self._injected:
            self._admit_injected(owed - len(self._line))
        if owed and (self._line or self.intake is not None):
            messages = self._next(owed)
            if messages:
                stage.send(self._hand_out(messages))
                owed = stage.owed
        wanted = self.wanted(owed)
        if wanted <= 0 or self.stopped or self.fetching:
            return
        if not self.link.fetches_directly:
            self._fetch_later()
        elif self.intake is None:
            fetched = self._fetch(wanted)
            messages = self._throttle(fetched)
            if messages:
                stage.send(self._hand_out(messages))
            if len(messages) < len(fetched):  # what is behind those that have to wait may have a key with tokens
                self.serve_soon()
        elif self._offer(self._fetch(wanted)):
            self.serve_soon()

    def wanted(self, owed: int) -> int:
        """Return how many messages to fetch now."""
        intake = self.intake
        if self._resting or self.exhausted or self._going_back:
            return 0  # what is fetched before the source knows of those would have to go back, perhaps again and again
        if self._throttled and sum(map(len, self._throttled.values())) >= self.run.pipeline.max_waiting:
            return 0  # else all that the keys without tokens have would be fetched
        if intake is None:
            return owed - len(self._line)
        return min(max(owed - intake.ready, self._ahead - intake.waiting), intake.room)

    def _next(self, count: int) -> list[Message]:
        line = self._line
        messages = [line.popleft() for _ in range(min(count, len(line)))]
        if self.intake is not None and len(messages) < count:
            messages += self.intake.take(count - len(messages))
        return self._throttle(messages)

    def _hand_out(self, messages: list[Message] | None) -> list[Message] | None:
        if not messages:
            return None
        self.run.in_steps += len(messages)
        return messages

    def _offer(self, messages: list[Message]) -> int:
        """Put messages into the intake; those for which a function of the user's raises fail."""
        intake = self.intake
        assert intake is not None  # noqa: S101 (the callers see to it)
        if self._going_back or self._gone_back:
            messages = self._without_overtakers(messages)
        intake.offer(messages)
        if intake.errors:
            errors, intake.errors = intake.errors, []
            for message, error in errors:
                message.reason = error
            self.run.fail([message for message, _ in errors], None)
        if self.source.redelivers and self.source.ordered:  # it keeps their order meanwhile
            for messages_of_key in intake.overflow().values():
                for message in messages_of_key:
                    self.run.give_back(message, OVERFLOW_SECONDS)
        return len(messages)

    # -- rates by key -------------------------------------------------------------------------------------------------

    def _throttle(self, messages: list[Message]) -> list[Message]:
        """Hold back messages whose key has no tokens left; they come back when it has."""
        limiter = self.run.key_limit
        if limiter is None or not messages:
            return messages
        passed: list[Message] = []
        for message in messages:
            try:
                key = limiter.key_of(message)
                line = self._throttled.get(key)
                free = line is None and (key is None or limiter.try_acquire(1, key))
            except Exception as error:  # noqa: BLE001 (the user's function, or a key without a hash)
                self.run.fail([message.fail(error)], None)
                continue
            if free:
                passed.append(message)
                continue
            if line is None:
                line = self._throttled[key] = deque()
                self._relieve_later(key, limiter.next_in(key))
            line.append(message)
        return passed

    def limits_changed(self) -> None:
        """Look again at who has to wait: a rate limit was changed, perhaps in another thread."""
        if not self.run.here():
            self.run.loop.call_soon_threadsafe(self.limits_changed)
            return
        for key in list(self._throttled):
            self._relieve(key)
        if not self.exhausted:
            self._go_on()

    def _relieve_later(self, key: Any, seconds: float) -> None:
        before = self._relief.pop(key, None)
        if before is not None:
            before.cancel()
        self._relief[key] = self.run.loop.call_later(min(seconds, _LONGEST), self._relieve, key)

    def _relieve(self, key: Any) -> None:
        """Send what a key has tokens for by now."""
        limiter, line = self.run.key_limit, self._throttled.get(key)
        if limiter is None or line is None:
            return
        stage = self._living
        if stage is None:  # nobody can send anything now: `serve` looks again
            if key in self._relief:
                self._relief.pop(key).cancel()
            return
        passed: list[Message] = []
        while line and limiter.try_acquire(1, key):
            passed.append(line.popleft())
        if line:
            self._relieve_later(key, limiter.next_in(key))
        else:
            del self._throttled[key]
            if key in self._relief:
                self._relief.pop(key).cancel()
        if passed:
            stage.send(self._hand_out(passed))
        self.serve_soon()

    # -- fetching -----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Fetch again: there is something. May be called from any thread."""
        loop = self.run.loop
        if self.run.here():
            self._woken()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(self._woken)

    def returned(self, messages: Sequence[Message]) -> None:
        """Take note that something went back to the source: it has something to hand out again."""
        for message in messages:
            key = self._going_back.pop(message, None)
            if key is not None and self.fetching:
                self._gone_back.add(key)
        self._woken()

    def _without_overtakers(self, messages: list[Message]) -> list[Message]:
        """Give back what was fetched while the source did not know yet that an earlier one of its key goes back."""
        keys = {*self._going_back.values(), *self._gone_back}
        passed: list[Message] = []
        for message in messages:
            if message.keeper is self.books and self._key(message) in keys:
                self.run.give_back(message)
            else:
                passed.append(message)
        return passed

    def _key(self, message: Message) -> Any:
        """Return the key that a message keeps its order by; None if it has none."""
        try:
            key = None if self.run.serial is None else self.run.serial(message)
            hash(key)
        except Exception:  # noqa: BLE001 (the user's function; the intake lets the message fail)
            return None
        return key

    def _woken(self) -> None:
        self._stirred = True
        self.exhausted = False
        self._go_on()

    def _admitted(self, wanted: int) -> int:
        """Return how many may be fetched by the rate limit; when none may, look again when one may."""
        limiter = self.run.rate_limit
        if limiter is None:
            return wanted
        admitted, self._token = self._token, 0
        admitted += limiter.try_acquire(wanted - admitted)
        if admitted < wanted and not self.stopped:
            # Nobody else looks again: who has asked for more waits. Others may share the limit, so it is in their line.
            self._resting = True
            self._cancel_timer()
            if self._waiter is None:
                name = f"headgate: rate {self.name}"
                self._waiter = self.run.loop.create_task(self._wait_for_token(limiter), name=name)
        self._asked_at = self.run.loop.time()
        return admitted

    async def _wait_for_token(self, limiter: RateLimiter) -> None:
        await limiter.acquire()
        if self._waiter is not asyncio.current_task():  # it has left the line in the same turn
            limiter.give_back(1)
            return
        self._waiter, self._token = None, 1
        self._go_on()

    def _leave_line(self) -> None:
        """Want no token: there is nothing to fetch now."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.cancel()
        if self._token and self.run.rate_limit is not None:
            self._token = 0
            self.run.rate_limit.give_back(1)

    async def _drop_token(self) -> None:
        """Leave the line of those who wait for the rate limit."""
        waiter = self._waiter
        self._leave_line()
        if waiter is not None:
            await asyncio.wait([waiter])

    def _fetch(self, wanted: int) -> list[Message]:
        """Fetch from a source that answers at once."""
        if self._resting or self.exhausted or wanted <= 0:
            return []
        admitted = self._admitted(wanted)
        if not admitted:
            return []
        self._stirred = False
        try:
            messages = self.link.check(self.source.fetch(admitted), admitted)
        except Exception as error:  # noqa: BLE001 (the user's source)
            self._failed(error, admitted)
            return []
        return self._fetched(messages, admitted)

    def _fetched(self, messages: list[Message] | None, admitted: int) -> list[Message]:
        self.fetches += 1
        self._failures = 0
        count = len(messages) if messages else 0
        if count < admitted:
            if not count and not self._stirred:
                self._leave_line()  # else the tokens that go back would let it ask again, and again
            if self.run.rate_limit is not None:
                self.run.rate_limit.give_back(admitted - count, taken=self._asked_at)
            if self._stirred:
                self.serve_soon()
            elif messages is None:
                self.exhausted = True
                self.run.check_end_soon()
            elif not count:
                self._rest()
            else:  # that need not have been all
                self.serve_soon()
        if not messages:
            return []
        self.books.take_in(messages)
        return self._sound(messages)

    def _sound(self, messages: list[Message]) -> list[Message]:
        """Give up messages that their source could not read: no retry makes them better."""
        bad = [message for message in messages if message.reason is not None]
        if not bad:
            return messages
        if self.run.pipeline.on_failure != DISCARD:
            for message in bad:
                self.books.configured[message] = {"on_failure": DEAD_LETTER}
        self.run.give_up(bad)
        return [message for message in messages if message not in set(bad)]

    def _rest(self) -> None:
        """Wait until the source has something again. An async one that may wait by itself is asked again."""
        if self.source.poll is not None:
            self._again_in(self.source.poll)
        else:
            self._resting = True

    def _failed(self, error: Exception, admitted: int) -> None:
        """Try a source again that has raised, after a while."""
        self.errors += 1
        self._failures += 1
        if self.run.rate_limit is not None:
            self.run.rate_limit.give_back(admitted, taken=self._asked_at)
        fault = SourceError(self.name, "fetch", error)
        self.run.report(fault)
        if self.source.failed:  # for good: what is under way is finished, and then the pipeline has failed
            self.exhausted = True
            self.run.failure = self.run.failure or fault
            self.run.check_end_soon()
            return
        self._again_in(max(0.001, _REFETCH.delay(self._failures, self.run.random.random())))

    def _fetch_later(self) -> None:
        if self._job is None:
            self.fetching = 1
            self._job = self.run.loop.create_task(self._pump(), name=f"headgate: fetch from {self.name}")

    async def _pump(self) -> None:
        """Fetch as long as something is wanted."""
        try:
            while not self.stopped and not self.run.gated and self.stage is not None:
                wanted = self.wanted(self.stage.owed)
                admitted = self._admitted(wanted) if wanted > 0 else 0
                if not admitted:
                    break
                self._stirred = False
                try:
                    fetched = await self.link.acall("fetch", admitted)
                    messages = self._fetched(self.link.check(fetched, admitted), admitted)
                except Exception as error:  # noqa: BLE001 (the user's source)
                    self._failed(error, admitted)
                    break
                self._came(messages)
        finally:
            self.fetching = 0
            self._job = None
            if not self.stopped:
                self.serve_soon()
            self.run.check_end_soon()

    def _came(self, messages: list[Message]) -> None:
        """Hand out what an asynchronous fetch has brought."""
        if self.stopped:
            for message in messages:
                self.run.give_back(message)
        elif self.intake is not None:
            self._offer(messages)
            self._gone_back.clear()
            self.serve()
        else:
            self._line.extend(messages)
            self.serve()

    def _again_in(self, seconds: float) -> None:
        self._cancel_timer()
        self._resting = True
        self._timer = self.run.loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._cancel_timer()
        self._resting = False
        self.serve_soon()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
