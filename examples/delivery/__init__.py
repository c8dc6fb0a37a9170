"""Chat messages to those who read them: in order, fair between teams, through any number of restarts.

Run it with one of::

    python -m examples.delivery                 # puts 1,000 messages, delivers them, and checks the books
    headgate run examples.delivery:app          # a service: delivers whatever comes, until it is told to end
    python -m examples.delivery.put 500         # puts messages, from another terminal
    python -m examples.delivery.check           # checks the books; --all: of every conversation

Read it in this order:

1. `pipeline`: the service. This is where the library is used.
2. `chat`: how messages get into the queue, in one transaction with the chat's own history.
3. `profiles`: the outside system, slow and unreliable, with what it stands.
4. `sink`, `check`: what was delivered, and whether all of it was, once and in order.
"""

from .pipeline import Delivery, app

__all__ = ["Delivery", "app"]
