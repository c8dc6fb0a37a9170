"""What several files check in the same way."""

import contextlib

import headgate
from headgate import Child, Down, System
from tests.parity.stages import Forwarder, Log, crashed, settle, until


class Reason:
    """A reason that is nobody else's."""


async def killed(source):
    source.kill()
    assert (await crashed(source)).reason == "killed"


async def take(subscriptions, count=None, **options):
    """Return the first events of a stream, or all of them."""
    got = Log()
    async with contextlib.aclosing(headgate.stream(subscriptions, **options)) as events:
        async for event in events:
            got.append(event)
            if len(got) == count:
                await settle()  # as a caller that does something of its own in between
                break
    return got


async def check_downs(kind):
    """A monitored stage that this one has no subscription with ends: handle_info gets that."""
    log = Log()
    async with System() as system:
        watcher = await system.start(Child(kind, log))
        other = await system.start(Child(Forwarder))
        await watcher.call(lambda stage: stage.monitor(other))
        await settle()
        assert log == []
        other.kill("oops")
        assert (await crashed(other)).reason == "oops"
        await until(lambda: log == [("info", Down(other, "oops"))])
        await watcher.call(lambda stage: stage.monitor(other))  # it has ended before
        await until(lambda: log == [("info", Down(other, "oops"))] * 2)


async def check_terminate(kind):
    log = Log()
    async with System() as system:
        ref = await system.start(Child(kind, log))
        assert await ref.stop() == "normal"
        assert log == [("terminate", "normal")]
        assert not ref.alive
