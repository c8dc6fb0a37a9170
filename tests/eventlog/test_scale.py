"""A share of what ``python -m tests.eventlog.scale --events 1000000`` does."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.eventlog.server import binaries

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.parametrize("batch", [1, 50])
def test_readers_that_tail_miss_nothing_while_four_processes_write(store, batch):
    if store == "postgres" and binaries() is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    events = str(1000 if batch == 1 else 20_000)
    command = [sys.executable, "-m", "tests.eventlog.scale", "--events", events, "--store", store]
    run = subprocess.run(
        [*command, "--batch", str(batch)], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
