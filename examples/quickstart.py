"""The first pipeline: a counter, a stage that doubles, and two consumers that share the work.

Run it with::

    python -m examples.quickstart

Nothing is counted before somebody asks. Each consumer asks for ten numbers (and gets them in two batches of five), the
doubling stage for twenty, and the counter gives what it is asked for, a hundred in all; then it has finished, and the
others end after it. It prints something like::

    print-1: 0 2 4 6 8
    print-2: 20 22 24 26 28
    print-1: 10 12 14 16 18
    ...
    counter gave 100 numbers, of which 100 are handled; print-1 got 50, print-2 got 50

"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headgate import Child, Consumer, Producer, ProducerConsumer, Subscription, System, To


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


async def main() -> None:
    """Start the stages, first the one that gives, and wait for their end."""
    async with System() as system:
        # The counter holds its numbers back until everybody is there; else the first consumer would get the first ones.
        counter = await system.start(Child(Counter, 100, name="counter", demand="accumulate"))
        await system.start(Child(Multiply, 2, name="multiply", subscribe_to=[To("counter", max_demand=20)]))
        printers = [
            await system.start(Child(Print, id=name, subscribe_to=[To("multiply", max_demand=10)]))
            for name in ("print-1", "print-2")
        ]
        counter.set_demand("forward")
        await system.wait()
        numbers = counter.statistics()
        shares = ", ".join(f"{each.id} got {each.statistics().handled}" for each in printers)
        print(f"counter gave {numbers.emitted} numbers, of which {numbers.handled} are handled; {shares}")


if __name__ == "__main__":
    asyncio.run(main())
