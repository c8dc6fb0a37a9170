"""How a stage of each role may fail to start."""

import pytest

from headgate import Child, Ignore, NameTakenError, OptionError, StageCrashed, Stop, System
from tests.parity.stages import Counter, Doubler, Forwarder, crashed, settle

ROLES = {"producer": Counter, "middle stage": Doubler, "consumer": Forwarder}


def failing(kind, error, where):
    """Return a subclass that raises this where it starts."""

    def fail(self, *args):
        raise error

    return type("Failing", (kind,), {where: fail})


async def check_start(kind):
    """Ignore, stop, something else returned, an unknown option, a name that is taken: each has its own result."""
    async with System() as system:
        for where in ("__init__", "started"):
            with pytest.raises(Ignore):
                await system.start(Child(failing(kind, Ignore(), where), name="ignored"))
        assert system.stages() == []

        with pytest.raises(StageCrashed) as caught:
            await system.start(Child(failing(kind, Stop("oops"), "started"), name="stopped"))
        assert caught.value.reason == "oops"
        ended = await system.start(Child(failing(kind, Stop("shutdown"), "started")))
        assert (ended.alive, ended.reason) == (False, "shutdown")
        broken = ValueError("broken")
        for where in ("__init__", "started"):
            with pytest.raises(StageCrashed) as caught:
                await system.start(Child(failing(kind, broken, where), name="broken"))
            assert caught.value.__cause__ is broken

        wrong = type("Wrong", (kind,), {"__init__": lambda self, *args: "unknown"})
        with pytest.raises(StageCrashed) as caught:
            await system.start(Child(wrong))
        assert isinstance(caught.value.__cause__, TypeError)
        with pytest.raises(
            OptionError, match="expected option 'cls' to be a subclass of Producer, ProducerConsumer or Consumer"
        ):
            Child(object)

        with pytest.raises(
            OptionError, match=r"expected option 'unknown' to be one of the known options .*, got: 'value'"
        ):
            Child(kind, unknown="value")

        taken = await system.start(Child(kind, name="taken"))
        with pytest.raises(NameTakenError, match="the name 'taken' is taken by a living stage"):
            await system.start(Child(kind, name="taken"))
        assert taken.alive
        assert system.ref("taken") is taken
        assert system.stages() == [taken]
        await taken.stop()
        assert (await system.start(Child(kind, name="taken"))).alive


def check_dispatcher(kind):
    with pytest.raises(
        OptionError, match=r"expected option 'dispatcher' to be 'demand', 'broadcast' or a Dispatcher .*, got: 0"
    ):
        Child(kind, dispatcher=0)  # type: ignore[arg-type]


async def test_a_producer():
    """G058: every way to start wrongly has its own error."""
    await check_start(Counter)
    check_dispatcher(Counter)
    with pytest.raises(
        OptionError, match="expected option 'buffer_size' to be an integer of at least 0, or None, got: -1"
    ):
        Child(Counter, buffer_size=-1)


async def test_a_middle_stage():
    """G083: every way to start wrongly has its own error."""
    await check_start(Doubler)
    check_dispatcher(Doubler)


async def test_a_consumer():
    await check_start(Forwarder)


@pytest.mark.parametrize("role", ROLES)
async def test_stopping_in_init_is_the_same_as_stopping_when_started(role):
    kind = ROLES[role]
    async with System() as system:
        with pytest.raises(StageCrashed) as caught:
            await system.start(Child(failing(kind, Stop("oops"), "__init__")))
        assert caught.value.reason == "oops"


async def test_a_buffer_for_nothing_is_allowed():
    """In the original it crashes the stage."""
    async with System() as system:
        source = await system.start(Child(Counter, buffer_size=0))
        await settle()
        assert source.alive


async def test_a_crash_of_started_is_the_reason_that_the_stage_ended_with():
    broken = ValueError("broken")
    async with System() as system:
        producer = await system.start(Child(Counter))
        consumer_class = failing(Forwarder, broken, "handle_events")
        consumer = await system.start(Child(consumer_class, subscribe_to=[producer]))
        fault = await crashed(consumer)
        assert fault.__cause__ is broken
        assert consumer.reason is fault
