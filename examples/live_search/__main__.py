"""The example as a program: a web page, or one search in the terminal."""

from __future__ import annotations

import argparse
import asyncio
import logging

import headgate

from .app import PORT, LiveSearch
from .search import ASKING, FOUND


async def show(question: str) -> None:
    """Search, and print what comes when it comes."""
    app = LiveSearch(port=None)
    titles = {site.name: site.title for site in app.searcher.sites}
    async with app:
        search = app.searcher.search(question)
        async for news in search:
            if news.state == ASKING:
                continue
            seconds = asyncio.get_running_loop().time() - search.begins
            count = len(news.results)
            what = f"{count} result{'' if count == 1 else 's'}" if news.state == FOUND else f"{news.state}: {news.why}"
            print(f"{seconds:5.2f} s  {titles[news.site]:18} {what}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.live_search", description=__doc__)
    parser.add_argument("question", nargs="?", help="search for this in the terminal; without: serve a web page")
    parser.add_argument("--port", type=int, default=PORT, help="of the web page (%(default)s)")
    options = parser.parse_args()
    if options.question:
        logging.getLogger("headgate").setLevel(logging.CRITICAL)  # what fails is printed
        asyncio.run(show(options.question))
    else:
        headgate.run(LiveSearch(options.port), log_level="error")


if __name__ == "__main__":
    main()
