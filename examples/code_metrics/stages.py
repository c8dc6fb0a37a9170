"""Files, the stages that measure them, and where the outcome is collected."""

from __future__ import annotations

import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import headgate
from headgate import Child, Consumer, Process, Producer, ProducerConsumer, Subscription, Supervisor, To

from .metrics import File, be_quiet, measure

PLACES: dict[str, Any] = {"inline": "inline", "thread": "thread", "process": Process()}
AHEAD = 16
"""Files that a measuring stage asks for. Few, as some take a hundred times as long as others."""


class Paths(Producer):
    """Gives the paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths
        self.at = 0

    def handle_demand(self, demand: int) -> Sequence[str]:
        given = self.paths[self.at : self.at + demand]
        self.at += len(given)
        if self.at == len(self.paths):
            self.stage.finish()
        return given


class Measure(ProducerConsumer):
    """Measures files. It does not know in which place it does."""

    def started(self) -> None:
        be_quiet()

    def handle_events(self, events: Sequence[str], source: Subscription) -> list[File]:
        return [measure(path) for path in events]


class Collect(Consumer):
    """Keeps what was measured."""

    def __init__(self, found: list[File]) -> None:
        self.found = found

    def handle_events(self, events: Sequence[File], source: Subscription) -> None:
        self.found += events


def app(paths: Sequence[str], found: list[File], *, place: str = "process", workers: int | None = None) -> Supervisor:
    """Return what measures files.

    Args:
        paths: The files.
        found: Where the outcome goes, in no particular order.
        place: ``"inline"``, ``"thread"`` or ``"process"``: nothing else is different.
        workers: How many stages measure. Default: one for each core.
    """
    return Supervisor(
        [
            Child(Paths, paths, name="paths"),
            Child(
                Measure,
                name="measure",
                count=workers or headgate.cores(),
                place=PLACES[place],
                subscribe_to=[To("paths", max_demand=AHEAD)],
            ),
            Child(Collect, found, subscribe_to=[To("measure", max_demand=100)]),
        ],
        name="code-metrics",
    )


def standard_library() -> Path:
    """Return its folder: real files that are on every machine."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(folder: Path) -> list[str]:
    """List the files of Python in a folder and those below, but for packages that were installed there."""
    inner = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return [str(folder / path) for path in sorted(inner) if "site-packages" not in path.parts]
