# mypy: disable-error-code="attr-defined,union-attr"
"""Systems whose nodes are joined by TCP. Where Ray would start an actor, a process is started: see `machines.py`."""

import asyncio
import os

import pytest

from headgate import (
    BroadcastDispatcher,
    Child,
    PartitionDispatcher,
    Process,
    Ray,
    StageCrashed,
    Supervisor,
    System,
    To,
    WorkerLostError,
)
from headgate.runtime import ray_place, tcp
from tests.ray.helpers import Again, Collect, Counter, Note, Pad, Times, alive, noted, until
from tests.ray.machines import place

pytestmark = pytest.mark.slow


def run(scenario):
    async def main():
        async with asyncio.timeout(60):
            return await scenario()

    return asyncio.run(main())


async def seen_by(ref, count):
    await until(lambda: _has(ref, count))
    return await ref.call("seen")


async def _has(ref, count):
    return await ref.call("count") >= count


def test_a_chain_over_three_machines_goes_directly(machines):
    """Home arranges the links, and the events pass it by."""

    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, 20_000, name="source", place=place()))
            times = await system.start(Child(Times, 2, name="times", place=place(), subscribe_to=[source]))
            sink = await system.start(Child(Collect, place=place(), subscribe_to=[To(times, cancel="temporary")]))
            assert await seen_by(sink, 20_000) == [2 * n for n in range(20_000)]
            assert await sink.call("pid") != os.getpid()
            hub = system.node.exchange
            assert len({worker.pid for worker in hub.workers.values()}) == 3
            times_and_source = sum(hub.links[ref.driver.where].received for ref in (source, times))
            assert times_and_source < 20_000, "the events came by home"

    run(scenario)


def test_nothing_is_lost_or_doubled_while_connections_are_cut(machines):
    """The peers live: no event is delivered again, none is missing, and the order is kept."""

    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, 30_000, pad=50, place=place()))
            middle = await system.start(Child(Pad, place=place(), subscribe_to=[To(source, max_demand=200)]))
            sink = await system.start(
                Child(Collect, 0.001, place=place(), subscribe_to=[To(middle, max_demand=200, cancel="temporary")])
            )
            for count in range(0, 30_000, 2_500):
                await until(lambda count=count: _has(sink, count))
                machines[0].cut()
            seen = await seen_by(sink, 30_000)
            assert [n for n, _ in seen] == list(range(30_000))
            assert sum(proxy.made for proxy in machines[0].proxies) > 12, "connections were made again"

    run(scenario)


def test_processes_and_machines_in_one_chain(machines):
    """A worker process of this machine dials; it gets the secret by its own pipe."""

    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, 5000, place=Process()))
            times = await system.start(Child(Times, 3, place=place(), subscribe_to=[source]))
            sink = await system.start(Child(Collect, place=Process(), subscribe_to=[To(times, cancel="temporary")]))
            assert await seen_by(sink, 5000) == [3 * n for n in range(5000)]

    run(scenario)


@pytest.mark.parametrize("which", ["source", "middle", "sink"])
def test_a_node_that_is_killed_costs_a_redelivery_at_most(machines, tmp_path, which):
    """The supervisor starts its stage again, on another node."""
    path = str(tmp_path / "notes")

    async def scenario():
        app = Supervisor(
            [
                Child(Counter, name="source", place=place()),
                Child(Times, name="middle", place=place(), subscribe_to=[To("source", max_demand=50)]),
                Child(Note, path, 0.001, name="sink", place=place(), subscribe_to=[To("middle", max_demand=50)]),
            ],
            max_restarts=20,
        )
        async with System() as system:
            await system.start(app)
            await until(lambda: len(noted(path)) > 500)
            pid = await system.ref(which).call("pid")
            pid = pid[0] if isinstance(pid, tuple) else pid
            await kill_and_see(system, pid)
            before = max(noted(path))
            await until(lambda: max(noted(path)) > before + 1000)
            return noted(path)

    counts = run(scenario)
    if which == "source":  # it begins from the start again: it is not this one's business to remember
        assert set(range(max(counts))) <= set(counts)
    else:
        assert set(range(max(counts))) == set(counts) - {max(counts)}, "lost"
        assert sum(count - 1 for count in counts.values()) <= 100, "redelivered: what was in flight at most"


async def kill_and_see(system, pid):
    loop = asyncio.get_running_loop()
    workers = [each for each in system.node.exchange.workers.values() if each.pid == pid]
    os.kill(pid, 9)
    start = loop.time()
    await until(lambda: workers[0].over)
    assert loop.time() - start < 5
    assert not alive(pid)


def test_a_lost_node_is_a_down_with_its_reason(machines):
    async def scenario():
        async with System() as system:
            source = await system.start(Child(Again, name="source"))
            sink = await system.start(Child(Collect, place=place(), subscribe_to=[source]))
            pid = await sink.call("pid")
            os.kill(pid, 9)
            with pytest.raises(StageCrashed) as caught:
                await sink.wait()
            cause = caught.value.__cause__
            assert isinstance(cause, WorkerLostError)
            assert cause.pid == pid
            assert "on Ray at 127.0.0.1" in str(cause)

    run(scenario)


def test_what_a_dead_consumer_had_comes_to_the_next_in_order(machines):
    async def scenario():
        async with System() as system:
            source = await system.start(Child(Again, place=place()))
            first = await system.start(
                Child(Collect, 0.0, (), (7,), place=place(), subscribe_to=[To(source, max_demand=10)])
            )
            source.cast(list(range(20)))
            with pytest.raises(StageCrashed):
                await first.wait()
            second = await system.start(Child(Collect, place=place(), subscribe_to=[To(source, max_demand=10)]))
            seen = await seen_by(second, 13)
            assert seen == list(range(seen[0], 20))
            assert seen[0] <= 7

    run(scenario)


def test_broadcast_and_partition_over_machines(machines):
    async def scenario():
        async with System() as system:
            for dispatcher, partitions in ((BroadcastDispatcher(), [None, None]), (PartitionDispatcher(2), [0, 1])):
                source, *_ = sinks = await system.start_all(
                    [
                        Child(Counter, 2000, name="source", dispatcher=dispatcher, place=place(group="a")),
                        *(
                            Child(
                                Collect,
                                place=place(group=group),
                                subscribe_to=[To("source", partition=partition, cancel="temporary")],
                            )
                            for group, partition in zip("bc", partitions, strict=True)
                        ),
                    ]
                )
                await source.wait()
                seen = [await sink.call("seen") for sink in sinks[1:]]
                if partitions == [0, 1]:
                    assert sorted(seen[0] + seen[1]) == list(range(2000))
                    assert all(seen)
                else:
                    assert seen == [list(range(2000))] * 2
                for sink in sinks[1:]:
                    await sink.stop()

    run(scenario)


def test_a_node_that_cannot_be_reached_by_another_is_given_up(machines, monkeypatch):
    """What is between the two would wait for ever; the supervisor starts it again."""

    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, 100_000, name="source", place=place()))
            sink = await system.start(Child(Collect, place=place(), subscribe_to=[To(source, max_demand=10)]))
            await until(lambda: _has(sink, 100))
            door = system.node.exchange.workers[source.driver.where].address
            next(each for each in machines[0].proxies if each.address == door).close()
            with pytest.raises(StageCrashed) as caught:
                await source.wait()
            assert isinstance(caught.value.__cause__, WorkerLostError)
            with pytest.raises(StageCrashed):
                await sink.wait()

    run(scenario)


def test_home_that_is_gone_leaves_no_node(machines, monkeypatch):
    """A worker that finds home's port closed ends; so does one that home has given up and that comes back."""

    async def scenario():
        async with System() as system:
            sink = await system.start(Child(Collect, place=place()))
            pid = await sink.call("pid")
            hub = system.node.exchange
            worker = hub.workers[sink.driver.where]
            monkeypatch.setattr(machines[0], "kill", lambda actor: None)
            worker._end("was given up")
            await until(lambda: not alive_after_wait(machines[0], worker))
            assert not alive(pid)
            with pytest.raises(StageCrashed):
                await sink.wait()

    run(scenario)


def alive_after_wait(machines, worker):
    return machines.processes[worker.number].poll() is None


def test_a_node_that_is_not_started_in_time_is_an_error(machines, monkeypatch):
    monkeypatch.setattr(ray_place.RayWorker, "up", lambda self, *where: None)

    async def scenario():
        async with System() as system:
            with pytest.raises(StageCrashed, match=r"not started by the cluster within 0.02 s.*num_cpus=0.1, gpu=2"):
                await system.start(Child(Collect, place=place(start_timeout=0.02, resources={"gpu": 2})))

    run(scenario)


def test_a_resting_node_is_used_again_and_then_gives_back_what_it_holds(machines, monkeypatch):
    monkeypatch.setattr(ray_place, "REST_SECONDS", 0.2)

    async def scenario():
        async with System() as system:
            first = await system.start(Child(Collect, place=place()))
            pid = await first.call("pid")
            await first.stop()
            second = await system.start(Child(Collect, place=place()))
            assert await second.call("pid") == pid
            other = await system.start(Child(Collect, place=Ray(num_cpus=0.2)))
            assert await other.call("pid") != pid
            await second.stop()
            await until(lambda: not alive(pid))
            await until(lambda: len(system.node.exchange.workers) == 1)

    run(scenario)


def test_drain_ends_all_of_it_in_order(machines):
    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, name="source", place=place()))
            await system.start(Child(Times, name="middle", place=place(), subscribe_to=[To(source, max_demand=20)]))
            sink = await system.start(
                Child(Collect, 0.002, name="sink", place=place(), subscribe_to=[To("middle", max_demand=20)])
            )
            await until(lambda: _has(sink, 100))
            drained = await system.drain(timeout=20)
            assert drained.complete
            assert drained.handled > 100

    run(scenario)


def test_an_endless_source_and_a_slow_sink_hold_no_more_than_was_asked(machines):
    async def scenario():
        async with System() as system:
            source = await system.start(Child(Counter, None, 1000, name="source", place=place()))
            middle = await system.start(Child(Pad, place=place(), subscribe_to=[To(source, max_demand=100)]))
            sink = await system.start(Child(Collect, 0.005, place=place(), subscribe_to=[To(middle, max_demand=100)]))
            await until(lambda: _has(sink, 500))
            for _ in range(5):
                given, handled = await source.call("next"), len(await sink.call("seen"))
                assert given - handled <= 100 + 100 + 100 + 100, "each stage asks for its max_demand, and holds as much"
                await asyncio.sleep(0.05)
            await sink.stop()

    run(scenario)


def test_a_silent_network_is_noticed_by_the_kernel():
    """Only its own probes and repeated data count: a peer that is busy is none."""
    import socket  # noqa: PLC0415

    server = socket.create_server(("127.0.0.1", 0))
    sock = socket.create_connection(server.getsockname())
    tcp.tune(sock)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(b"x" * (1 << 16))
    assert not tcp.silent(sock), "a full buffer is an answer"
    server.close()
    sock.close()
