"""The example as a program: put messages, deliver all there are, check the books."""

from __future__ import annotations

import argparse
import logging
import sys

import headgate

from .chat import inbox, write
from .check import check, text
from .pipeline import Delivery
from .profiles import AT_ONCE


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.delivery", description=__doc__)
    parser.add_argument("--put", type=int, default=1000, metavar="N", help="messages to put first (%(default)s)")
    options = parser.parse_args()
    if options.put:
        write(options.put)
    print(f"{inbox().counts().left:,} messages to be delivered")
    logging.getLogger("headgate").setLevel(logging.ERROR)  # it is part of the example that something fails
    app = Delivery(stop_when_empty=True)
    headgate.run(app, log_level="error")
    service = app.service
    print(f"the profile service was called {service.calls:,} times, {service.most} at once; it stands {AT_ONCE}")
    report = check()
    print(text(report))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
