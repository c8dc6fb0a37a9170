"""The log, and what tools have to know about it: `headgate log ls examples.ledger.book:log`."""

import os

from headgate.eventlog import EventLog, Policy

from .balances import balances
from .events import types

# A fixed key, so that the guide can show what comes out. Without one, nobody finds out names by masking guesses.
policy = Policy({"owner": "mask", "email": "mask"}, key=b"for this example")

log = EventLog(os.environ.get("LEDGER", "ledger.db"), types=types, projections=[balances], policy=policy)
