"""By what a producer can be named in ``subscribe_to``."""

from headgate import Child, System, To
from tests.parity.stages import Counter, Forwarder, Log, batches, until


async def get_something(name, to):
    """Start a counter under a name and a consumer that subscribes to what ``to`` makes of it."""
    log = Log()
    async with System() as system:
        counter = await system.start(Child(Counter, name=name))
        await system.start(Child(Forwarder, log, subscribe_to=[to(counter)]))
        await until(lambda: batches(log))
        return batches(log)[0]


async def test_by_reference():
    """G119: the handle that start returned."""
    assert await get_something(None, lambda counter: counter) == list(range(500))


async def test_by_name():
    """G120: a plain string."""
    assert await get_something("counter", lambda _: "counter") == list(range(500))


async def test_by_a_name_of_several_parts_with_options():
    """G121: instead of a name in a registry: any text is a name."""
    name = "shop/17/orders"
    assert await get_something(name, lambda _: To(name, max_demand=10)) == list(range(5))


async def test_by_a_name_that_is_looked_up_for_the_whole_system_with_options():
    """G122: instead of a cluster-wide name: the system finds its living stage."""
    log = Log()
    async with System() as system:
        await system.start(Child(Counter, name="{:global, name}"))
        ref = system.ref("{:global, name}")
        to = [To("{:global, name}", max_demand=10), To(ref, max_demand=4)]
        await system.start(Child(Forwarder, log, subscribe_to=to))
        await until(lambda: len(batches(log)) >= 2)
        assert {len(batch) for batch in batches(log)} == {5, 2}
