"""The outside system: a web service that knows who the senders are. It is slow, and not always well.

It stands `AT_ONCE` calls at a time, and `PER_SECOND`; who asks for more gets an error, and is counted.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

AT_ONCE: Final = 4
PER_SECOND: Final = 50
PATIENCE: Final = 0.5
"""Seconds that the service is waited for."""


class ProfileService:
    """The service, on a free port of this machine."""

    def __init__(self) -> None:
        self.running = self.most = self.calls = self.refused = 0
        self._lock = threading.Lock()
        self._recent: deque[float] = deque()
        self._chance = random.Random()
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, found = service.answer(parse_qs(urlsplit(self.path).query)["ids"][0].split(","))
                body = json.dumps(found).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except ConnectionError:  # nobody waits for it any more
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's word)
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="profiles", daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, ids: list[str]) -> tuple[int, dict[str, Any]]:
        """Take 10 to 40 ms; now and then fail, or take too long."""
        now = time.monotonic()
        with self._lock:
            self.calls += 1
            self.running += 1
            self.most = max(self.most, self.running)
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            self._recent.append(now)
            refused = self.running > AT_ONCE
            self.refused += refused
            luck = self._chance.random()
        time.sleep(0.6 if luck > 0.99 else 0.01 + 0.03 * self._chance.random())
        with self._lock:  # before the answer: with it the next call may come
            self.running -= 1
        if refused or luck < 0.05:
            return 503, {}
        return 200, {each: {"name": each.replace("-", " ").title(), "present": hash(each) % 3 > 0} for each in ids}

    def look_up(self, ids: list[str]) -> dict[str, Any]:
        """Ask the service about several users with one call. A plain function: `augment` runs it in threads."""
        assert self._server is not None  # noqa: S101 (it runs while the pipeline does)
        with closing(HTTPConnection("127.0.0.1", self._server.server_port, timeout=PATIENCE)) as connection:
            connection.request("GET", f"/users?ids={','.join(ids)}")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise OSError(f"{answer.status} {answer.reason}")
        found: dict[str, Any] = json.loads(body)
        return found
