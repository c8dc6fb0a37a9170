"""What the simulation of pipelines has found: each bug in the smallest form in which it shows."""

import asyncio

import pytest

from headgate import Batcher, Message, Processors, RetryPolicy, System
from headgate.connectors.memory import MemoryQueue
from headgate.testing import StubSource
from tests.pipeline.helpers import AsyncNoting, Noting, ended, running, until, virtually


def wide(**options):
    """Return a step that handles many messages in one stage."""
    step = Processors(**options)
    step.ordered = True
    return step


@virtually
async def test_a_wide_step_returns_its_message_in_a_list_and_it_goes_to_its_batcher():
    """It failed with an UnknownBatcherError: there were no batchers at all where the result was looked at."""

    class Wide(AsyncNoting):
        async def handle_message(self, message):
            return [message]

    source = StubSource(1, 2)
    source.finish()
    pipeline = Wide(source=source, processors=wide(concurrency=2), batchers=Batcher(size=2))
    await ended(pipeline)
    assert source.acked == [1, 2]


@virtually
async def test_no_batch_is_tried_again_once_the_pipeline_has_ended():
    """Its handler was given no messages at all, and when it failed with those, halves of nothing without an end."""
    given = []

    class Failing(Noting):
        def handle_batch(self, messages, batch):
            given.append(len(messages))
            raise ValueError("again")

    pipeline = Failing(
        source=StubSource(1, 2),
        batchers=Batcher(size=2, retry=RetryPolicy(first=1.0, jitter=0.0)),
    )
    async with System(seed=7) as system:
        started = await system.start(pipeline)
        await until(lambda: given)
        started.kill()
        await asyncio.sleep(5.0)
    assert given == [2]
