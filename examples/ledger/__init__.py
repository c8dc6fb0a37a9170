"""A ledger of accounts, kept as events: an audit, a bug and its correction, a reversal, a test environment.

Run it with `python -m examples.ledger`, which writes `ledger.db` and tells the story. Then look at it yourself with
`headgate log ... examples.ledger.book:log`; the guide to the command line shows how. Read it in this order:

1. `events`: what can happen to an account, and what undoes it.
2. `balances`: how events become balances; once with a bug, and once without.
3. `book`: the log, and what tools have to know about it.
4. `bank`: what the bank does.
5. `__main__`: the story.
"""
