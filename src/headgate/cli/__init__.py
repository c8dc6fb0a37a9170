"""The command ``headgate``. It needs the extra ``headgate[cli]``."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import traceback


def main() -> None:
    """Run the command line.

    Raises:
        SystemExit: With the exit status; 2 when the command itself was wrong.
    """
    if importlib.util.find_spec("click") is None:
        sys.stderr.write("headgate: the command line needs an extra; install it by: pip install 'headgate[cli]'\n")
        raise SystemExit(2)
    from headgate.cli.commands import headgate  # noqa: PLC0415 (it needs click)

    try:
        headgate(prog_name="headgate")
    except OSError as error:
        if not _is_of_output(error):
            raise
        with contextlib.suppress(OSError):  # else the interpreter tries once more, at its end
            sys.stdout.close()
        sys.stderr.write(f"headgate: {error}\n")
        raise SystemExit(2) from None


def _is_of_output(error: OSError) -> bool:
    """Whether it comes from writing what a command says, and not from what a command runs."""
    import click  # noqa: PLC0415 (it need not be there)

    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code is click.echo.__code__
