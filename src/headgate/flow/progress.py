"""Progress of a flow on a terminal: rows, rate, and the share that is done where that is known."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from headgate.flow.app import FlowRun

EVERY: Final = 0.5
"""Seconds between two lines."""


class Progress:
    """Shows how far a run has come, in one line that is written over."""

    def __init__(self, run: FlowRun) -> None:
        """Begin to show."""
        self._run = run
        volumes = [each.volume for each in run.plan.sources]
        self._whole = None if any(each is None for each in volumes) else sum(each or 0 for each in volumes)
        self._began = asyncio.get_running_loop().time()
        self._terminal = sys.stderr.isatty()
        self._task = asyncio.get_running_loop().create_task(self._show())

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self._write("\r" if self._terminal else "", "" if self._terminal else "\n")

    def line(self) -> str:
        """Return the line."""
        numbers = self._run.numbers
        seconds = asyncio.get_running_loop().time() - self._began
        done = numbers.volume or numbers.read
        parts = [f"{numbers.read:,} rows", f"{numbers.read / max(seconds, 1e-9):,.0f} rows/s"]
        if numbers.volume:
            parts.append(f"{numbers.volume / 1e6:,.0f} MB")
        if self._whole:
            parts.append(f"{min(1.0, done / self._whole):.0%}")
        skipped = sum(numbers.skipped.values())
        if skipped:
            parts.append(f"{skipped:,} skipped")
        if numbers.late:
            parts.append(f"{numbers.late:,} late")
        return ", ".join(parts)

    def _write(self, before: str, after: str) -> None:
        sys.stderr.write(f"{before}{self.line():<79}{after}")
        sys.stderr.flush()

    async def close(self) -> None:
        """Show the last line, and stop."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._write("\r" if self._terminal else "", "\n")
