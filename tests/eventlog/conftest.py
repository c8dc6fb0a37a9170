"""The same tests on every store: in memory, in a file, in PostgreSQL."""

import asyncio
import itertools

import pytest

from headgate.eventlog import EventLog
from tests.eventlog.server import server

STORES = ["memory", "file", "postgres"]


class Place:
    """Where the logs of one test are. `url` gives the address of the same log each time."""

    def __init__(self, kind, folder):
        self.kind = kind
        self.folder = folder
        self._numbers = itertools.count()
        self.url = self.fresh()

    def fresh(self):
        """The address of another log."""
        if self.kind == "memory":
            return ":memory:"
        if self.kind == "file":
            return str(self.folder / f"log-{next(self._numbers)}.db")
        return server().database()

    def log(self, url=None, **options):
        return EventLog(url or self.url, **options)


@pytest.fixture(params=[pytest.param(each, marks=[pytest.mark.slow] * (each == "postgres")) for each in STORES])
def place(request, tmp_path):
    if request.param == "postgres":
        server()  # or skip
    return Place(request.param, tmp_path)


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.slow)])
def shared(request, tmp_path):
    """Only the stores that several can open."""
    if request.param == "postgres":
        server()
    return Place(request.param, tmp_path)


def run(function):
    """Run a coroutine function on a real loop: a log has threads, or a server."""
    return asyncio.run(asyncio.wait_for(function(), 60))
