"""A pipeline for each site: the questions of everybody wait in its queue, and as many are asked as the site stands."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headgate import (
    CircuitBreaker,
    CircuitOpenError,
    LookupTimeoutError,
    Message,
    Pipeline,
    Processors,
    QueueFullError,
    RateLimiter,
    RetryPolicy,
    Skip,
    augment,
)
from headgate.connectors.memory import MemoryQueue

PATIENCE: Final = 6.0
"""Seconds after which a search is over, whoever has not answered."""

ASKING: Final = "asking"
FOUND: Final = "found"
FAILED: Final = "failed"
TIMED_OUT: Final = "timed out"
NOT_ASKED: Final = "not asked"
ENDS: Final = (FOUND, FAILED, TIMED_OUT, NOT_ASKED)


@dataclass(frozen=True)
class Site:
    """What a site is called, and what it stands."""

    name: str
    title: str
    at_once: int = 2
    per_second: float = 20.0
    timeout: float = 2.0


@dataclass(frozen=True)
class Result:
    """One hit."""

    title: str
    url: str
    text: str


@dataclass(frozen=True)
class News:
    """Something has become of a question to a site."""

    site: str
    state: str
    results: Sequence[Result] = ()
    why: str = ""


Ask = Callable[[Site, str], Awaitable[list[Result]]]
"""Asks a site, over the network."""


class Search:
    """One search of one user: an asynchronous iterator of news, which ends when every site has an end."""

    def __init__(self, question: str, user: str, sites: Sequence[str], seconds: float = PATIENCE) -> None:
        self.question = question
        self.user = user
        self.over = False
        self.begins = asyncio.get_running_loop().time()
        self._ends = self.begins + seconds
        self._open = set(sites)
        self._news: asyncio.Queue[News] = asyncio.Queue()  # two entries for each site at the most
        self._tasks: set[asyncio.Task[Any]] = set()

    def tell(self, news: News) -> None:
        """Have something to tell."""
        if not self.over:
            self._news.put_nowait(news)

    async def unless_over(self, work: Awaitable[Any]) -> Any:
        """Wait for something, as long as somebody wants to know."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self.over:
                raise Skip("nobody waits for it any more") from None
            raise
        finally:
            self._tasks.discard(task)

    def stop(self) -> None:
        """Nobody reads it any more: its places at the sites are free for others, at once."""
        self.over = True
        for task in self._tasks:
            task.cancel()

    async def __aiter__(self) -> AsyncIterator[News]:
        loop = asyncio.get_running_loop()
        try:
            while self._open:
                try:
                    news = await asyncio.wait_for(self._news.get(), self._ends - loop.time())
                except TimeoutError:
                    break
                if news.state in ENDS:
                    self._open.discard(news.site)
                yield news
            for site in sorted(self._open):
                yield News(site, TIMED_OUT, why=f"no answer within {self._ends - self.begins:g} seconds")
        finally:
            self.stop()


class SitePipeline(Pipeline):
    """All questions to one site, whoever has them: users in turn, and never more than it stands."""

    fair_by = staticmethod(lambda message: message.data.user)  # one who asks a lot does not keep others waiting
    on_failure = "discard"  # an answer that comes later is of no use to anybody

    def __init__(self, site: Site, ask: Ask) -> None:
        self.site = site
        self.questions = MemoryQueue(size=10_000, name=site.name)

        async def look_up(question: str) -> list[Result]:
            return await ask(site, question)

        self.look_up = augment(
            look_up,
            name=site.name,
            key=lambda message: message.data.question,
            into="results",
            concurrency=site.at_once,
            rate=RateLimiter(site.per_second, burst=site.at_once),
            cache=(1000, 30.0),  # what somebody else has just asked is known; who asks the same now shares the call
            timeout=site.timeout,
            retry=RetryPolicy(attempts=3, first=0.05, on=ConnectionError),
            breaker=CircuitBreaker(failures=4, seconds=5.0),  # a site that is down is left in peace
        )
        # As many as the site stands: the others wait in the queue, where those nobody waits for cost nothing.
        super().__init__(name=site.name, source=self.questions, processors=Processors(concurrency=site.at_once))

    async def handle_message(self, message: Message) -> None:
        search: Search = message.data
        if search.over:
            raise Skip("nobody waits for it any more")
        search.tell(News(self.site.name, ASKING))
        await search.unless_over(self.look_up(message))
        search.tell(News(self.site.name, FOUND, message.metadata["results"]))

    def handle_failed(self, messages: list[Message]) -> None:
        for message in messages:
            message.data.tell(self._failure(message.reason))

    def _failure(self, reason: Any) -> News:
        name = self.site.name
        if isinstance(reason, LookupTimeoutError):
            return News(name, TIMED_OUT, why=f"no answer within {self.site.timeout:g} seconds")
        if isinstance(reason, CircuitOpenError):
            return News(name, NOT_ASKED, why="it has failed too often just now; it is asked again in a few seconds")
        return News(name, FAILED, why=str(reason.__cause__ or reason))


class Searcher:
    """Begins searches.

    Args:
        pipelines: One for each site; they have to run.
    """

    def __init__(self, pipelines: Sequence[SitePipeline]) -> None:
        self.pipelines = {each.site.name: each for each in pipelines}
        self._numbers = itertools.count(1)

    @property
    def sites(self) -> list[Site]:
        return [each.site for each in self.pipelines.values()]

    def search(self, question: str, user: str | None = None, seconds: float = PATIENCE) -> Search:
        """Ask all sites; iterate over what is returned."""
        search = Search(question, user or f"user {next(self._numbers)}", list(self.pipelines), seconds)
        for name, pipeline in self.pipelines.items():
            try:
                pipeline.questions.put(search)
            except QueueFullError:
                search.tell(News(name, NOT_ASKED, why="too many people are waiting for it"))
        return search
