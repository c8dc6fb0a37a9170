"""The command ``headgate``. It needs the extra ``headgate[cli]``."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: With the exit status; 2 when the command itself was wrong.
    """
    if importlib.util.find_spec("click") is None:
        sys.stderr.write("headgate: the command line needs an extra; install it by: pip install 'headgate[cli]'\n")
        raise SystemExit(2)
    from headgate.cli.commands import headgate  # noqa: PLC0415 (it needs click)

    headgate(prog_name="headgate")
