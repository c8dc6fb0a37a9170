"""Names of test cases that are the same in every process: those that run them in parallel have to agree on them."""

import re


def shown(value: object) -> str:
    """Return a value's repr without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
