"""Live search: one question goes to many sites, three at a time; one is slow, one stumbles once, one is down.

::

    python -m examples.live_search

Each site is one event, and each event gets one child of a `ConsumerSupervisor`: a plain function, so it runs in a
thread and may block. A site that fails is asked again after a wait, up to twice; then it is given up, and the others
have long been there. The sites are simulated by a small web server of this program's own. It prints::

    'canal' at 8 sites, at most 3 at a time:
      archive    3 hits after 1 try
      books      1 hit  after 1 try
      gazette    2 hits after 1 try
      library    5 hits after 1 try
      maps       1 hit  after 2 tries
      museum     4 hits after 1 try
      wiki       7 hits after 1 try
      forum      given up after 3 tries: 503 Service Unavailable

"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from headgate import Backoff, ConsumerSupervisor, DeadLetter, Supervisor, To, from_iterable

HITS = {"archive": 3, "books": 1, "gazette": 2, "library": 5, "maps": 1, "museum": 4, "wiki": 7, "forum": 0}
AT_ONCE = 3


class Sites(BaseHTTPRequestHandler):
    """All sites in one: /name?q=question."""

    asked: ClassVar[Counter[str]] = Counter()
    running = most = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        site, question = url.path[1:], parse_qs(url.query)["q"][0]
        with self.lock:
            Sites.asked[site] += 1
            Sites.running += 1
            Sites.most = max(Sites.most, Sites.running)
        time.sleep(0.2 if site == "library" else 0.01)  # that one is slow, and nobody waits for it but its own child
        down = site == "forum" or (site == "maps" and self.asked[site] == 1)
        with self.lock:  # before the answer: with it the next one may come
            Sites.running -= 1
        answer = json.dumps([f"{question} {number}" for number in range(HITS[site])]).encode()
        self.send_response(503 if down else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's word)
        """Say nothing."""


@contextmanager
def web() -> Iterator[tuple[str, int]]:
    """Let the sites run; give their address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Sites) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield "127.0.0.1", server.server_port
        server.shutdown()


async def main(question: str) -> None:
    found: dict[str, int] = {}
    missed: list[DeadLetter] = []
    with web() as address:

        def search(site: str) -> None:
            with closing(HTTPConnection(*address, timeout=5)) as connection:
                connection.request("GET", f"/{site}?q={question}")
                answer = connection.getresponse()
                hits = answer.read()
                if answer.status != 200:
                    raise OSError(f"{answer.status} {answer.reason}")
                found[site] = len(json.loads(hits))

        await Supervisor(
            [
                from_iterable(list(HITS), name="sites"),
                ConsumerSupervisor(
                    search,
                    child_restart="transient",
                    retries=2,
                    backoff=Backoff(first=0.05),
                    dead_letter=missed.append,
                    subscribe_to=[To("sites", max_demand=AT_ONCE, min_demand=0)],
                ),
            ]
        )
    assert Sites.most <= AT_ONCE  # noqa: S101 (the promise)
    print(f"{question!r} at {len(HITS)} sites, at most {AT_ONCE} at a time:")
    for site, hits in sorted(found.items()):
        tries = Sites.asked[site]
        print(f"  {site:10} {hits} {'hit ' if hits == 1 else 'hits'} after {tries} {'try' if tries == 1 else 'tries'}")
    for letter in missed:
        print(f"  {letter.event:10} given up after {letter.deliveries} tries: {letter.error}")


if __name__ == "__main__":
    logging.getLogger("headgate").setLevel(logging.CRITICAL)  # what is given up is printed above
    asyncio.run(main("canal"))
