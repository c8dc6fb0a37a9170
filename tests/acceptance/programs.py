"""Examples, run as programs."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def example(name, *arguments, timeout=60):
    """Run an example to its end; return what became of it. A warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", f"examples.{name}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
