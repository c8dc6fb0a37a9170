"""Writes messages, as another program would: ``python -m examples.delivery.put 500``."""

from __future__ import annotations

import sys

from .chat import write

if __name__ == "__main__":
    many = int(sys.argv[1]) if sys.argv[1:] else 500
    write(many)
    print(f"{many} messages are put")
