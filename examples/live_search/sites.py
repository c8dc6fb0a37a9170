"""The sites that are searched: made up, all on one port of this machine. They count how they are asked."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter, defaultdict
from typing import Any, Final

from aiohttp import ClientSession, TCPConnector, web

from .search import Result, Site

SITES: Final = (
    Site("wiki", "Open Wiki"),
    Site("gazette", "Evening Gazette"),
    Site("library", "City Library", timeout=4.0),  # slow
    Site("maps", "Old Maps"),  # stumbles now and then
    Site("archive", "Radio Archive"),
    Site("forum", "Boaters' Forum"),  # down
    Site("museum", "Museum of Water"),  # never answers
    Site("books", "Second-hand Books"),
)
SECONDS: Final = {"wiki": 0.05, "gazette": 0.35, "library": 1.4, "maps": 0.15, "archive": 0.6, "books": 0.8}
HITS: Final = {"wiki": 5, "gazette": 3, "library": 4, "maps": 2, "archive": 1, "books": 2}
TITLES: Final = (
    ("{} in a nutshell", "What everybody should know about {}, and what most get wrong."),
    ("A short history of {}", "From the first drawings to the present day, with forty plates."),
    ("{} after dark", "Our reporter spent a night there, and came back with wet feet."),
    ("Letters about {}, 1893", "Between an engineer and his sister, who knew better."),
    ("Why {} matters", "A lecture, given twice, as nobody had come the first time."),
    ("The {} question", "Minutes of a meeting that lasted from noon to midnight."),
)
# What somebody else has written is data, whatever it looks like. This one wants to be a program.
HOSTILE: Final = {
    "title": "{} <img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>",
    "url": "javascript:document.title='owned'",
    "text": "</script><b>bold</b> & \"quoted\" 'text' — shown as it was written.",
}


class Sites:
    """All sites in one server: ``/NAME?q=QUESTION``."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.left: Counter[str] = Counter()  # who asked has gone before the answer
        self.times: defaultdict[str, list[float]] = defaultdict(list)
        self.slowness = 1.0
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{site}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.Response:
        name, question = request.match_info["site"], request.query["q"]
        self.asked[name] += 1
        self.running[name] += 1
        self.most[name] = max(self.most[name], self.running[name])
        self.times[name].append(time.monotonic())
        try:
            if name == "museum":
                await asyncio.Event().wait()  # nobody will set it
            await asyncio.sleep(SECONDS.get(name, 0.1) * self.slowness)
        except asyncio.CancelledError:
            self.left[name] += 1
            raise
        finally:
            self.running[name] -= 1
        if name == "forum" or (name == "maps" and self.asked[name] % 3 == 1):
            return web.Response(status=503)
        return web.json_response(hits(name, question))


def hits(name: str, question: str) -> list[dict[str, str]]:
    """Make up what a site finds, the same each time."""
    start = hashlib.sha256(name.encode()).digest()[0]
    chosen = [TITLES[(start + number) % len(TITLES)] for number in range(HITS[name])]
    found = [
        {
            "title": _sentence(title.format(question)),
            "url": f"https://{name}.example/{number}",
            "text": text.format(question),
        }
        for number, (title, text) in enumerate(chosen)
    ]
    if name == "wiki":
        found[2] = {key: value.replace("{}", question) for key, value in HOSTILE.items()}
    return found


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


class Client:
    """Asks the sites."""

    def __init__(self, sites: Sites) -> None:
        self._sites = sites
        self._session: ClientSession | None = None

    async def start(self) -> None:
        # Each question has a connection of its own: when it is given up, the site sees that at once.
        self._session = ClientSession(connector=TCPConnector(force_close=True, limit=0))

    async def stop(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, site: Site, question: str) -> list[Result]:
        """Ask a site, and believe nothing."""
        assert self._session is not None  # noqa: S101 (it runs while the pipelines do)
        address = f"http://127.0.0.1:{self._sites.port}/{site.name}"
        async with self._session.get(address, params={"q": question}) as answer:
            if answer.status == 503:
                raise ConnectionError(f"{answer.status} {answer.reason}")  # worth another try
            answer.raise_for_status()
            return [_result(each) for each in await answer.json()][:20]


def _result(hit: Any) -> Result:
    """Take over what a site has sent: strings of a sensible length, and no address but a web address."""
    title, url, text = (str(hit[key]) for key in ("title", "url", "text"))
    return Result(title[:200], url if url.startswith(("https://", "http://")) else "", text[:500])
