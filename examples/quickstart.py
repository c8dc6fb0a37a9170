"""The first pipeline: a counter, a stage that doubles, and two consumers that share the work, under a supervisor.

Run it with one of::

    headgate run examples.quickstart:app
    python -m examples.quickstart

Nothing is counted before somebody asks. Each consumer asks for ten numbers (and gets them in two batches of five), the
doubling stage for twenty, and the counter gives what it is asked for, a hundred in all; then it has finished, the
others end after it, and the supervisor is done. It prints something like::

    print-1: 0 2 4 6 8
    print-2: 20 22 24 26 28
    print-1: 10 12 14 16 18
    ...
    print-1 handled 50 numbers
    print-2 handled 50 numbers
    counter gave 100 numbers, of which 100 are handled

"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import headgate
from headgate import Child, Consumer, Producer, ProducerConsumer, Subscription, Supervisor, To


class Counter(Producer):
    """Gives 0, 1, 2, ... as far as it is asked, up to an end."""

    def __init__(self, end: int) -> None:
        self.next = 0
        self.end = end

    def handle_demand(self, demand: int) -> range:
        first, self.next = self.next, min(self.next + demand, self.end)
        if self.next == self.end:
            self.stage.finish()  # no more events: the pipeline ends when all of them are handled
        return range(first, self.next)

    def terminate(self, reason: Any) -> None:
        numbers = self.stage.statistics()
        print(f"{self.stage.name} gave {numbers.emitted} numbers, of which {numbers.handled} are handled")


class Multiply(ProducerConsumer):
    """Gives one number for each that it gets."""

    def __init__(self, by: int) -> None:
        self.by = by

    def handle_events(self, events: Sequence[int], source: Subscription) -> list[int]:
        return [event * self.by for event in events]


class Print(Consumer):
    """Prints each batch; a batch has at most ``max_demand - min_demand`` events."""

    async def handle_events(self, events: Sequence[int], source: Subscription) -> None:
        await asyncio.sleep(0)  # stands for a request to a server
        print(f"{self.stage.ref.id}:", *events)

    def terminate(self, reason: Any) -> None:
        print(f"{self.stage.ref.id} handled {self.stage.statistics().handled} numbers")


app = Supervisor(
    [
        Child(Counter, 100, name="counter"),
        Child(Multiply, 2, name="multiply", subscribe_to=[To("counter", max_demand=20)]),
        Child(Print, id="print-1", subscribe_to=[To("multiply", max_demand=10)]),
        Child(Print, id="print-2", subscribe_to=[To("multiply", max_demand=10)]),
    ],
    strategy="rest_for_one",  # a stage that crashes is started again, and those behind it
)

if __name__ == "__main__":
    headgate.run(app)
