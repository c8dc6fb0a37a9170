"""kill -9 at random moments: a share of what ``python -m tests.eventlog.storm --kills 200`` does."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.eventlog.server import binaries

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_killed_writers_lose_nothing_and_readers_miss_nothing(store):
    if store == "postgres" and binaries() is None:
        pytest.skip("there is no PostgreSQL server on this machine")
    command = [sys.executable, "-m", "tests.eventlog.storm", "--kills", "12", "--store", store, "--seed", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
