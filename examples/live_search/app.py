"""What runs: the sites, a pipeline for each of them, and the web page."""

from __future__ import annotations

import os
from types import TracebackType

from headgate import Supervision, Supervisor

from .search import Searcher, SitePipeline
from .sites import SITES, Client, Sites
from .web import Web

PORT = int(os.environ.get("LIVE_SEARCH_PORT", "8080"))


class LiveSearch(Supervisor):
    """The pipelines under one supervisor; around them what they ask and who asks them.

    Args:
        port: Of the web page; 0: any that is free. None: no web page.
    """

    def __init__(self, port: int | None = PORT) -> None:
        self.sites = Sites()
        self.client = Client(self.sites)
        pipelines = [SitePipeline(site, self.client.ask) for site in SITES]
        self.searcher = Searcher(pipelines)
        self.web = None if port is None else Web(self.searcher, port)
        super().__init__(pipelines, name="live_search")

    async def __aenter__(self) -> Supervision:
        await self.sites.start()
        await self.client.start()
        running = await super().__aenter__()
        if self.web is not None:
            await self.web.start()
            print(f"live search: http://127.0.0.1:{self.web.port}/ (Ctrl-C ends it)", flush=True)
        return running

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.web is not None:
            await self.web.stop()
        await super().__aexit__(kind, error, traceback)
        await self.client.stop()
        await self.sites.stop()


app = LiveSearch()
