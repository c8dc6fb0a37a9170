"""The planted bugs still fit the code.

Whether each is found is for `python -m tests.mutants` and `python -m tests.eventlog.mutants` to say.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import importlib, os, sys

misfits = []
for name, plant in importlib.import_module(sys.argv[1]).MUTANTS.items():
    if isinstance(plant, tuple):  # with the check that finds it
        plant = plant[0]
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
@pytest.mark.parametrize("planted", ["tests.mutants.planted", "tests.eventlog.planted"])
def test_every_bug_can_be_planted(planted):
    run = subprocess.run(
        [sys.executable, "-c", CODE, planted], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stdout + run.stderr
