"""``python -m tests.parity``: say which behaviours of the originals' own tests are kept."""

import sys

import pytest

from tests.parity.registry import FOLDER, Ledger, read_rows


def main(arguments: list[str]) -> int:
    """Run the suite and report; arguments are handed to pytest."""
    ledger = Ledger(read_rows())
    options = ["-qq", "--no-header", "--tb=short", "--capture=fd", "-p", "no:cacheprovider", *arguments]
    status = pytest.main([*options, str(FOLDER)], plugins=[ledger])
    print("\n".join(ledger.lines()))
    return int(status) or int(not ledger.ok())


sys.exit(main(sys.argv[1:]))
