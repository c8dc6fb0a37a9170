"""Over an endless source memory stays flat: keys go when their windows close. For longer: `tests.flow.endless`."""

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from headgate.flow import keys
from tests.flow.endless import LIFE, PER_SECOND, Held, endless

pytestmark = pytest.mark.slow

N = 10_000
OPEN = 40 * PER_SECOND // LIFE
"""Keys of the 40 seconds that are open at most: the longest windows, their step, what is behind, and what waits."""
KEPT = 40
"""Bytes that would remain of each key, if anything did."""


@pytest.mark.parametrize(
    ("name", "workers"),
    [("fixed", 1), ("sliding", 1), ("sessions", 1), ("triggers", 1), ("lists", 1), ("fixed", 2), ("sessions", 2)],
)
async def test_memory_stays_flat(monkeypatch, name, workers):
    monkeypatch.setattr(keys, "_REMEMBERED", 1000)  # keys whose partition it knows: they are bounded, and many
    held, memory, opened = Held(), [], []

    def look(_):
        gc.collect()
        memory.append(tracemalloc.get_traced_memory()[0])
        opened.append(held.look())

    tracemalloc.start()
    try:
        numbers = await held.run(endless(name, look, N, 4 * N).options(workers=workers))
    finally:
        tracemalloc.stop()
    assert numbers.read == 4 * N
    assert numbers.late == 0
    assert held.results >= 4 * N / LIFE, "each key has a result, and more than one where windows overlap"
    assert 0 < held.most <= OPEN * workers
    assert min(opened) > 0, "it was looked at while it ran"
    assert memory[-1] - memory[0] < KEPT * 3 * N // LIFE


def test_the_program_that_does_it_for_longer():
    done = subprocess.run(
        [sys.executable, "-m", "tests.flow.endless", "--events", "8000"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "flat"
    assert len(lines) == 6 * 4 + 1
