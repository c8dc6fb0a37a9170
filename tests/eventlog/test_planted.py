"""The planted bugs still fit the code; whether each is found is for `python -m tests.eventlog.mutants` to say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, sys
from tests.eventlog.planted import MUTANTS

misfits = []
for name, (plant, _) in MUTANTS.items():
    child = os.fork()  # a planted bug stays for good
    if not child:
        try:
            plant()
        except BaseException as error:
            print(f"{name}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        misfits.append(name)
sys.exit(bool(misfits))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each bug is planted in a process of its own")
def test_every_bug_can_be_planted():
    run = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr
