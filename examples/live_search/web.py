"""The web page, and the stream of what is found: server-sent events, one for each change."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from .search import Searcher

PAGE: Final = Path(__file__).parent / "page"
FILES: Final = {"style.css": "text/css", "search.js": "text/javascript", "icon.svg": "image/svg+xml"}
LONGEST: Final = 200
HEADERS: Final = {
    # Nothing runs in the page but search.js, nothing is loaded from elsewhere: should anything of what the sites send
    # ever be taken for HTML, the browser refuses to run it.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Web:
    """Serves the page.

    Args:
        searcher: Begins searches.
        port: Where; 0: any that is free.
    """

    def __init__(self, searcher: Searcher, port: int) -> None:
        self.searcher = searcher
        self.port = port
        self.open = 0  # streams that somebody reads
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/search", self._search)
        app.router.add_get("/{file}", self._file)
        app.on_response_prepare.append(_harden)
        # handler_cancellation: when the reader leaves, the search is cancelled, and with it what it waits for.
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _page(self, request: web.Request) -> web.Response:
        answer = web.Response(text=(PAGE / "index.html").read_text(encoding="utf-8"), content_type="text/html")
        if "user" not in request.cookies:  # says who takes turns, nothing else
            answer.set_cookie("user", secrets.token_urlsafe(12), httponly=True, samesite="Strict")
        return answer

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        if name not in FILES:
            raise web.HTTPNotFound
        return web.Response(text=(PAGE / name).read_text(encoding="utf-8"), content_type=FILES[name])

    async def _search(self, request: web.Request) -> web.StreamResponse:
        question = " ".join(request.query.get("q", "").split())
        if not 0 < len(question) <= LONGEST:
            raise web.HTTPBadRequest(text=f"a question has 1 to {LONGEST} characters")
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await stream.prepare(request)
        sites = [{"name": each.name, "title": each.title} for each in self.searcher.sites]
        await _send(stream, "sites", {"question": question, "sites": sites})
        search = self.searcher.search(question, request.cookies.get("user"))
        self.open += 1
        try:
            loop = asyncio.get_running_loop()
            async for news in search:
                seconds = round(loop.time() - search.begins, 2)
                await _send(stream, "news", {**dataclasses.asdict(news), "seconds": seconds})
            await _send(stream, "done", {})
        except ConnectionError:  # it has left just now
            pass
        finally:
            self.open -= 1
            search.stop()
        return stream


async def _send(stream: web.StreamResponse, event: str, data: dict[str, Any]) -> None:
    """Send one event; JSON has no line breaks, which would end it."""
    await stream.write(f"event: {event}\ndata: {json.dumps(data)}\n\n".encode())


async def _harden(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers.update(HEADERS)
