# mypy: disable-error-code="attr-defined,union-attr"
"""Systems on machines whose ports are closed to each other: what they promise is the same. See `machines.py`."""

import asyncio
import os
from typing import Any

import pytest

from headgate import Child, Process, StageCrashed, Supervisor, System, To, WorkerLostError
from tests.ray.helpers import Collect, Counter, Note, Pad, Times, alive, noted, until
from tests.ray.machines import Machines, place
from tests.ray.test_machines import _has, run, seen_by

pytestmark = pytest.mark.slow

ALL = {"home", *(f"m{number}" for number in range(1, 10))}
CASES: dict[str, Any] = {"home's ports": ({"home"}, None), "all ports": (ALL, None), "by choice": (ALL, False)}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def ports(request, machines, monkeypatch):
    walls, ports = request.param
    monkeypatch.setattr(Machines, "walls", walls)
    return ports


def said(caplog):
    return [each.getMessage() for each in caplog.records if "carried by Ray's calls" in each.getMessage()]


def test_a_chain_goes_round_the_walls(machines, ports, caplog):
    """From node to node all the same, and one warning for each two machines that are concerned."""

    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, 20_000, place=place(ports)))
            times = await system.start(Child(Times, 2, place=place(ports), subscribe_to=[source]))
            sink = await system.start(Child(Collect, place=place(ports), subscribe_to=[To(times, cancel="temporary")]))
            assert await seen_by(sink, 20_000) == [2 * n for n in range(20_000)]
            hub = system.node.exchange
            assert sum(hub.links[ref.driver.where].received for ref in (source, times)) < 20_000, "they came by home"
            for at in ("home", "m1", "m2", "m3"):
                assert at in machines[0].wires.ferries
            warned = said(caplog)
            if ports is False:
                assert warned == [], "it was chosen"
            else:
                between = 2 if machines[0].walls == ALL else 0
                assert len(warned) == 3 + between
                assert "worker 1 on Ray at 127.0.0.1 cannot reach home (" in warned[0]

    run(scenario)


def test_nothing_is_lost_or_doubled_while_what_is_carried_is_cut(machines, ports):
    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, 20_000, pad=50, place=place(ports)))
            middle = await system.start(Child(Pad, place=place(ports), subscribe_to=[To(source, max_demand=200)]))
            sink = await system.start(
                Child(Collect, 0.001, place=place(ports), subscribe_to=[To(middle, max_demand=200, cancel="temporary")])
            )
            for count in range(0, 20_000, 2_500):
                await until(lambda count=count: _has(sink, count))
                for called in machines[0].wires.ferries.values():
                    for passage in list(called.ferry._passages.values()):
                        passage.drop()
            seen = await seen_by(sink, 20_000)
            assert [n for n, _ in seen] == list(range(20_000))

    run(scenario)


def test_a_node_that_is_killed_costs_a_redelivery_at_most(machines, ports, tmp_path):
    path = str(tmp_path / "notes")

    async def scenario():
        app = Supervisor(
            [
                Child(Counter, name="source", place=place(ports)),
                Child(Times, name="middle", place=place(ports), subscribe_to=[To("source", max_demand=50)]),
                Child(Note, path, 0.001, name="sink", place=place(ports), subscribe_to=[To("middle", max_demand=50)]),
            ],
            max_restarts=20,
        )
        async with System() as system:
            await system.start(app)
            await until(lambda: len(noted(path)) > 300)
            pid = await system.ref("middle").call("pid")
            worker = next(each for each in system.node.exchange.workers.values() if each.pid == pid)
            os.kill(pid, 9)
            await until(lambda: worker.over)
            before = max(noted(path))
            await until(lambda: max(noted(path)) > before + 300)
            assert not alive(pid)
        counts = noted(path)
        assert set(range(max(counts))) == set(counts) - {max(counts)}, "lost"
        assert sum(count - 1 for count in counts.values()) <= 100, "redelivered: what was in flight at most"

    run(scenario)


def test_processes_and_machines_in_one_chain(machines, ports):
    """A worker process cannot call anybody: it goes by the ferry of its machine."""

    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, 5000, place=Process()))
            times = await system.start(Child(Times, 3, place=place(ports), subscribe_to=[source]))
            sink = await system.start(Child(Collect, place=Process(), subscribe_to=[To(times, cancel="temporary")]))
            assert await seen_by(sink, 5000) == [3 * n for n in range(5000)]

    run(scenario)


def test_a_ferry_that_dies_costs_nothing(machines, monkeypatch):
    """Home starts another one when it is missed."""
    monkeypatch.setattr(Machines, "walls", {"home"})

    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, 10_000))
            sink = await system.start(
                Child(Collect, 0.002, place=place(), subscribe_to=[To(source, max_demand=50, cancel="temporary")])
            )
            for at in ("home", "m1"):
                before = await sink.call("count")
                await until(lambda before=before: _has(sink, before + 200))
                old = machines[0].wires.ferries[at]
                await machines[0].wires.kill(at)
                await until(lambda at=at, old=old: machines[0].wires.ferries.get(at, old) is not old)
            assert await seen_by(sink, 10_000) == list(range(10_000))

    run(scenario)


def test_where_there_are_no_ferries_the_error_says_both(machines, monkeypatch):
    monkeypatch.setattr(Machines, "walls", {"home"})

    async def none(self, machine):
        raise RuntimeError(f"no actor on {machine}")

    monkeypatch.setattr(Machines, "_ferry", none)

    async def scenario():
        async with System() as system:
            with pytest.raises(StageCrashed) as caught:
                await system.start(Child(Collect, place=place()))
            lost = caught.value.__cause__
            assert isinstance(lost, WorkerLostError)
            assert "cannot reach home: " in str(lost)
            assert "nor is it by Ray's calls: RuntimeError: no actor on " in str(lost)

    run(scenario)


def test_nothing_listens_to_other_machines_where_no_port_is_to_be_open(machines):
    async def scenario():
        async with System() as system:
            ref = await system.start(Child(Collect, place=place(False)))
            hub = system.node.exchange
            hosts = [
                hub.workers[ref.driver.where].address[0],
                *(door.address[0] for door in hub.cluster._doors.values()),
            ]
            assert hosts == ["127.0.0.1"] * 2
            assert list(hub.cluster._doors) == [True]

    run(scenario)


def test_the_system_ends_in_order_by_ferries(machines, ports):
    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, name="source", place=place(ports)))
            sink = await system.start(
                Child(Collect, 0.002, place=place(ports), subscribe_to=[To(source, max_demand=20)])
            )
            await until(lambda: _has(sink, 100))
            drained = await system.drain(timeout=20)
            assert drained.complete
            begin = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - begin < 2, "they were killed in the end"

    run(scenario)
