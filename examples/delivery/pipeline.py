"""The service: a queue in a file, a look-up, a delivery; nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import Any

from headgate import (
    Backoff,
    CircuitBreaker,
    Message,
    Pipeline,
    PipelineRun,
    Processors,
    RateLimiter,
    RetryPolicy,
    augment,
)

from .chat import inbox
from .profiles import AT_ONCE, PATIENCE, PER_SECOND, ProfileService
from .sink import Sink


class Delivery(Pipeline):
    """Delivers chat messages.

    The queue hands out the messages of one conversation in order, and lets teams take turns. ``partition_by`` keeps
    that order in here: of one conversation, one message at a time is at work, and those behind it wait until it is
    delivered, also while it waits for another try. Conversations do not wait for each other.
    """

    name = "delivery"
    partition_by = "key"
    # What could not be delivered goes back to the queue, which hands it out again later, before the ones behind it.
    redelivery = Backoff(first=0.2, most=10.0)
    shutdown = 10.0

    def __init__(self, *, stop_when_empty: bool = False) -> None:
        self.service = ProfileService()
        self.sink: Sink | None = None
        profiles = augment(
            self.service.look_up,
            key=lambda message: message.data["sender"],
            into="sender",
            # The outside system is never asked for more than it stands, whatever goes wrong in between:
            concurrency=AT_ONCE,  # calls at a time, those included that were given up and have not ended
            rate=RateLimiter(PER_SECOND),  # calls a second
            batch=10,  # users are looked up ten at a time,
            linger=0.005,  # those of 5 milliseconds together,
            cache=(1000, 30.0),  # and remembered for half a minute
            timeout=2 * PATIENCE,
            retry=RetryPolicy(attempts=3, first=0.05),
            breaker=CircuitBreaker(failures=5, seconds=1.0),  # after 5 failures in a row it is left in peace
            # A message whose sender nobody knows is delivered all the same.
            on_error=lambda message, _: {"name": message.data["sender"], "present": False},
            ordered=False,  # a conversation that waits for its look-up holds up no other one
        )
        deliver = Processors(
            "deliver",
            concurrency=16,
            # Tried again right here, after a moment. The next messages of the conversation wait meanwhile.
            retry={ConnectionError: RetryPolicy(attempts=4, first=0.02)},
        )
        super().__init__(
            source=inbox(stop_when_empty=stop_when_empty), processors={"profiles": profiles, "deliver": deliver}
        )

    async def deliver(self, message: Message) -> None:
        """Hand a message to those who read the conversation; it takes a moment, and sometimes they are not there."""
        await asyncio.sleep(random.uniform(0.0, 0.004))
        luck = random.random()
        if luck < 0.02:
            raise ConnectionResetError("the connection was lost")
        if luck < 0.025:
            raise LookupError("nobody is there to read it; later perhaps")
        sender: dict[str, Any] = message.metadata["sender"]
        line = f"{sender['name']}{'' if sender['present'] else ' (away)'}: {message.data['text']}"
        assert self.sink is not None  # noqa: S101 (it is open while the pipeline runs)
        self.sink.deliver(message.data, line)
        # Here the handler returns, and the message is acknowledged. A SIGTERM waits for that; a process that is killed
        # right here delivers this one message again: who cannot bear that has a sink that refuses ids it has seen.

    # The service and the sink are there for as long as the app runs.

    async def __aenter__(self) -> PipelineRun:
        self.service.start()
        self.sink = Sink()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        if self.sink is not None:
            self.sink.close()
        self.service.stop()


app = Delivery()
