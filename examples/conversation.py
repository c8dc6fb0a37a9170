"""The conversation of demand: a consumer asks for 100 events; the producer has 60 of them now and 40 a moment later.

Run it with::

    python -m examples.conversation

Nobody polls and nobody repeats an ask: what is owed is on the producer's record until it is served. It prints::

    consumer: I take up to 100 events at a time
    producer: asked for 100. I have 60 now, and owe 40
    consumer: got 60: 0 to 59. I have asked for 100, and wait for 40
    producer: 40 more have come, that is all I owe
    consumer: got 40: 60 to 99. I have asked for 100, and wait for 0
    producer: asked for 100. I have no more: the end
    consumer: the producer has finished, so have I

"""

from __future__ import annotations

import asyncio

from headgate import Child, Consumer, End, Producer, Subscription, System, Terms, To


class Warehouse(Producer):
    """Has 60 events when it is asked first, 40 more a moment later, and then no more."""

    def __init__(self) -> None:
        self.next = 0

    def handle_demand(self, demand: int) -> range | None:
        if self.next == 0:
            events = self.take(60)
            print(f"producer: asked for {demand}. I have {len(events)} now, and owe {demand - len(events)}")
            asyncio.get_running_loop().call_later(0.05, self.delivery)
            return events  # fewer than asked for: that is all it takes
        print(f"producer: asked for {demand}. I have no more: the end")
        self.stage.finish()
        return None

    def delivery(self) -> None:
        """Send what has come in from elsewhere; `self.stage.demand` is what is still owed."""
        events = self.take(self.stage.demand)
        print(f"producer: {len(events)} more have come, that is all I owe")
        self.stage.emit(events)

    def take(self, count: int) -> range:
        first, self.next = self.next, self.next + count
        return range(first, self.next)


class Customer(Consumer):
    """Asks for 100, and for the next 100 when it has handled those."""

    def handle_subscribe(self, role: str, options: Terms, peer: Subscription) -> None:
        print(f"consumer: I take up to {options.max_demand} events at a time")

    def handle_events(self, events: range, source: Subscription) -> None:
        mine = self.stage.statistics().producers[0]
        which = f"{len(events)}: {events[0]} to {events[-1]}"
        print(f"consumer: got {which}. I have asked for {mine.asked}, and wait for {mine.pending}")

    def handle_cancel(self, reason: End, peer: Subscription) -> None:
        if reason.finished:
            print("consumer: the producer has finished, so have I")


async def main() -> None:
    """Let the two talk until they are done."""
    async with System() as system:
        await system.start(Child(Warehouse, name="warehouse"))
        # min_demand=0: the next ask comes when nothing is left of the last one. The default, half of max_demand, asks
        # earlier, so that a producer can work while its consumer does.
        await system.start(Child(Customer, subscribe_to=[To("warehouse", max_demand=100, min_demand=0)]))
        await system.wait()


if __name__ == "__main__":
    asyncio.run(main())
