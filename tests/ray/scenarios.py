# mypy: disable-error-code="attr-defined,union-attr"
"""Scenarios on a real Ray cluster of two raylets. `inside.py` runs them, in namespaces of their own."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter as Tally
from pathlib import Path

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from headgate import (
    BroadcastDispatcher,
    Child,
    Flow,
    OptionError,
    PartitionDispatcher,
    Process,
    Ray,
    StageCrashed,
    Supervisor,
    System,
    To,
    WorkerLostError,
)
from headgate.flow import windows
from headgate.runtime import tcp
from tests.flow.test_recovery import die_once
from tests.ray.helpers import Again, Collect, Counter, Cut, Note, Pad, Stuck, Times, alive, cut, noted, until, where

HEAD = {"head": 1}
OTHER = {"other": 1}


def at(resources=None, **options):
    chosen = json.loads(os.environ.get("HEADGATE_AT", "{}"))  # so that other processes know as well
    if chosen.get("ports"):
        chosen["ports"] = tuple(chosen["ports"])
    return Ray(num_cpus=0, resources=resources, **(chosen | options))


async def seen_by(ref, count):
    await until(lambda: has(ref, count))
    return await ref.call("seen")


async def has(ref, count):
    return await ref.call("count", timeout=30) >= count


def folder():
    return tempfile.mkdtemp(prefix="hg-")


async def begin(cluster):
    """The machines are there: that is all."""


# -- chosen ones of those that every place has ------------------------------------------------------------------------


async def demand_goes_to_and_fro(cluster):
    async with System() as system:
        source = await system.start(Child(Counter, 1000, place=at(HEAD)))
        sink = await system.start(
            Child(Collect, place=at(OTHER), subscribe_to=[To(source, max_demand=10, min_demand=5, cancel="temporary")])
        )
        assert await seen_by(sink, 1000) == list(range(1000))
        assert max(await sink.call("batches")) <= 5, "max_demand - min_demand at a time"
        statistics = await sink.statistics()
        assert statistics.handled == 1000


async def broadcast_and_partition(cluster):
    async with System() as system:
        for dispatcher, partitions in ((BroadcastDispatcher(), [None, None]), (PartitionDispatcher(2), [0, 1])):
            recipes = [Child(Counter, 2000, name="source", dispatcher=dispatcher, place=at(HEAD, group="a"))]
            for group, partition in zip("bc", partitions, strict=True):
                to = To("source", partition=partition, cancel="temporary")
                recipes.append(Child(Collect, place=at(OTHER, group=group), subscribe_to=[to]))
            source, *sinks = await system.start_all(recipes)
            await source.wait()
            seen = [await sink.call("seen") for sink in sinks]
            if partitions == [0, 1]:
                assert sorted(seen[0] + seen[1]) == list(range(2000))
                assert all(seen)
            else:
                assert seen == [list(range(2000))] * 2
            for sink in sinks:
                await sink.stop()


async def cancel_modes(cluster):
    async with System() as system:
        for mode, how, lives in (
            ("permanent", "normal", False),
            ("permanent", "crash", False),
            ("transient", "normal", True),
            ("transient", "crash", False),
            ("temporary", "normal", True),
            ("temporary", "crash", True),
        ):
            source = await system.start(Child(Again, place=at(HEAD, group="a")))
            sink = await system.start(
                Child(Collect, place=at(OTHER, group="b"), subscribe_to=[To(source, cancel=mode)])
            )
            await source.stop("normal" if how == "normal" else ValueError("oops"))
            if lives:
                await until(lambda sink=sink: _cancelled(sink))
                assert sink.alive, (mode, how)
                await sink.stop()
            else:
                await until(lambda sink=sink: not sink.alive)
        for crash in system.node.unseen():
            system.node.observed.append(crash)


async def _cancelled(sink):
    return await sink.call("cancels")


async def what_a_crashed_consumer_had_goes_to_the_next(cluster):
    async with System() as system:
        source = await system.start(Child(Again, place=at(HEAD)))
        first = await system.start(
            Child(Collect, 0, (5,), place=at(OTHER, group="b"), subscribe_to=[To(source, max_demand=8)])
        )
        source.cast(list(range(20)))
        try:
            await first.wait()
        except StageCrashed as crash:
            assert "poison 5" in str(crash.__cause__)  # noqa: PT017
        second = await system.start(Child(Collect, place=at(OTHER, group="b"), subscribe_to=[To(source, max_demand=8)]))
        seen = await seen_by(second, 16)
        assert seen == list(range(seen[0], 20))


async def a_supervisor_starts_a_crashed_stage_again(cluster):
    path = f"{folder()}/notes"
    app = Supervisor(
        [
            Child(Again, name="source", place=at(HEAD)),
            Child(Note, path, 0, (3,), name="sink", place=at(OTHER), subscribe_to=["source"]),
        ]
    )
    async with System() as system:
        await system.start(app)
        system.ref("source").cast([1, 2])
        await until(lambda: set(noted(path)) == {1, 2})
        before = system.ref("sink")
        system.ref("source").cast([3, 4])
        await until(lambda: set(noted(path)) == {1, 2, 3, 4})
        assert system.ref("sink") is not before
        assert max(noted(path).values()) == 1


async def draining_leaves_nothing_half_done(cluster):
    async with System() as system:
        source = await system.start(Child(Counter, name="source", place=at(HEAD)))
        await system.start(Child(Times, name="middle", place=at(OTHER), subscribe_to=[To(source, max_demand=20)]))
        sink = await system.start(
            Child(Collect, 0.002, name="sink", place=at(HEAD), subscribe_to=[To("middle", max_demand=20)])
        )
        await until(lambda: has(sink, 100))
        drained = await system.drain(timeout=20)
        assert drained.complete
        assert drained.handled > 100


# -- what is special here ---------------------------------------------------------------------------------------------


async def a_chain_over_two_machines_goes_directly(cluster):
    async with System() as system:
        source = await system.start(Child(Counter, 20_000, place=at(HEAD)))
        times = await system.start(Child(Times, 2, place=at(OTHER), subscribe_to=[source]))
        sink = await system.start(Child(Collect, place=at(HEAD), subscribe_to=[To(times, cancel="temporary")]))
        assert await seen_by(sink, 20_000) == [2 * n for n in range(20_000)]
        hub = system.node.exchange
        at_hosts = [str(hub.workers[ref.driver.where]).split()[5] for ref in (source, times, sink)]
        one, two = cluster.hosts
        assert at_hosts == [one, two, one]
        if at().ports is not False:
            addresses = [hub.workers[ref.driver.where].address[0] for ref in (source, times, sink)]
            assert addresses == at_hosts, "each listens at its own machine's address"
        assert hub.links[times.driver.where].received < 20_000, "the events came by home"


async def processes_and_actors_in_one_chain(cluster):
    async with System() as system:
        source = await system.start(Child(Counter, 5000, place=Process()))
        times = await system.start(Child(Times, 3, place=at(OTHER), subscribe_to=[source]))
        sink = await system.start(Child(Collect, place=Process(), subscribe_to=[To(times, cancel="temporary")]))
        assert await seen_by(sink, 5000) == [3 * n for n in range(5000)]


async def an_endless_source_and_a_slow_sink_stay_within_bounds(cluster):
    """Of memory as well: a middle stage between them grows by some megabytes at most."""
    async with System() as system:
        source = await system.start(Child(Counter, None, 1000, place=at(HEAD)))
        middle = await system.start(Child(Pad, place=at(OTHER), subscribe_to=[To(source, max_demand=500)]))
        sink = await system.start(Child(Collect, 0.002, place=at(HEAD), subscribe_to=[To(middle, max_demand=500)]))
        await until(lambda: has(sink, 2000))
        _, before = await middle.call("memory")
        for _ in range(20):
            given, handled = await source.call("next"), await sink.call("count")
            assert given - handled <= 4 * 500, "each stage asks for its max_demand, and holds as much"
            await asyncio.sleep(0.1)
        _, after = await middle.call("memory")
        assert after - before < 16 << 20


async def connections_that_are_cut_cost_nothing(cluster):
    """Between the machines, and to home: nothing is delivered again, nothing is missing."""
    async with System() as system:
        source = await system.start(Child(Counter, 40_000, place=at(HEAD, group="a")))
        cutter = await system.start(Child(Cut, place=at(HEAD, group="a")))
        sink = await system.start(
            Child(Collect, 0.001, place=at(OTHER), subscribe_to=[To(source, max_demand=400, cancel="temporary")])
        )
        count = 0
        for least in range(0, 40_000, 4000):
            await until(lambda least=least: has(sink, least))
            count += await cutter.call("cut")
            for link in system.node.exchange.links.values():
                cut(link)
        assert await seen_by(sink, 40_000) == list(range(40_000))
        assert count >= 10


async def an_actor_that_is_killed_costs_a_redelivery(cluster):
    await _lose(cluster, lambda system, pid: os.kill(pid, signal.SIGKILL), 5)


async def a_raylet_that_is_killed_costs_a_redelivery(cluster):
    """With all that it ran; the stage is started again on the other machine."""

    def kill(system, pid):
        raylet = cluster.second.all_processes["raylet"][0].process
        ferries.extend(pid for pid in ferrymen() if parent(pid) == raylet.pid)
        os.kill(raylet.pid, signal.SIGKILL)

    ferries: list[int] = []
    try:
        await _lose(cluster, kill, 30)
        await until(lambda: not any(map(alive, ferries)))
    finally:
        cluster.remove_node(cluster.second, allow_graceful=False)
        cluster.add_second()


async def _lose(cluster, kill, seconds):
    path = f"{folder()}/notes"
    waits = To("middle", max_demand=50, cancel="temporary", retry=100)  # for the next of that name
    app = Supervisor(
        [
            Child(Counter, name="source", place=at(HEAD)),
            Child(Times, name="middle", place=at({"either": 1}), subscribe_to=[To("source", max_demand=50)]),
            Child(Note, path, 0.001, name="sink", place=at(HEAD), subscribe_to=[waits]),
        ],
        max_restarts=20,
    )
    async with System() as system:
        held = await system.start(Child(Collect, place=at(HEAD | {"either": 1})))  # so there is room elsewhere only
        await system.start(app)
        await until(lambda: len(noted(path)) > 500)
        await held.stop()
        pid = await system.ref("middle").call("pid")
        worker = next(each for each in system.node.exchange.workers.values() if each.pid == pid)
        assert f" at {cluster.hosts[1]}" in str(worker)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        kill(system, pid)
        await until(lambda: worker.over)
        noticed = loop.time() - begin
        before = max(noted(path))
        await until(lambda: max(noted(path)) > before + 1000, 60)
        counts = noted(path)
        found = {"noticed": round(noticed, 3), "again": round(loop.time() - begin, 3)}
        print(found, file=sys.stderr)
        assert noticed < seconds
        await until(lambda: not alive(pid))
    assert set(range(max(counts))) == set(counts) - {max(counts)}, "lost"
    assert sum(count - 1 for count in counts.values()) <= 100, "what was in flight at most comes twice"


async def a_flow_counts_on_two_machines(cluster):
    """Each machine reads its ranges; what belongs together comes together, over there as well as here."""
    path, expected = words()
    lines = Flow.from_lines(path, split=2000).map(lambda line: (line, os.getpid()))
    flow = lines.options(workers=2, place=at({"either": 1}))
    split = flow.flat_map(lambda pair: [(word, pair[1]) for word in pair[0].split()])
    counted = await split.count_by(0).collect()
    assert dict(counted) == expected
    windowed = await split.window(windows.fixed(10, by=lambda pair: int(pair[0][1:]))).count_by(0).collect()
    assert {key: value for _, key, value in windowed} == expected
    met = await split.partition(0, place=at(HEAD)).reduce_by(0, set, lambda seen, pair: {*seen, pair[1]}).collect()
    assert {word for word, _ in met} == set(expected)
    assert len(set.union(*(seen for _, seen in met))) == 2, "both have worked"


async def a_flow_makes_up_for_an_actor_that_is_killed(cluster):
    path, expected = words()
    flow = Flow.from_lines(path, split=2000).map(die_once(f"{folder()}/died")).flat_map(str.split)
    counted = await flow.count_by().options(workers=2, place=at({"either": 1})).collect()
    assert dict(counted) == expected


def words():
    """Write some text; return its path, and how often each word is in it."""
    found = [f"w{n % 97}" for n in range(60_000)]
    path = f"{folder()}/words"
    with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 (a small one)
        file.writelines(" ".join(found[n : n + 6]) + "\n" for n in range(0, len(found), 6))
    return path, Tally(found)


async def a_lost_node_is_a_down_with_its_reason(cluster):
    async with System() as system:
        sink = await system.start(Child(Collect, place=at(OTHER)))
        pid = await sink.call("pid")
        os.kill(pid, signal.SIGKILL)
        cause = None
        try:
            await sink.wait()
        except StageCrashed as crash:
            cause = crash.__cause__
        assert isinstance(cause, WorkerLostError)
        assert cause.pid == pid
        assert f"on Ray at {cluster.hosts[1]}" in str(cause)


async def a_handler_that_never_returns_is_ended_with_its_actor(cluster):
    async with System() as system:
        source = await system.start(Child(Again))
        stuck = await system.start(Child(Stuck, place=at(OTHER), subscribe_to=[To(source, max_demand=2)]))
        pid = await stuck.call("pid")
        source.cast([1, 2, 3])
        await asyncio.sleep(0.2)
        assert await stuck.stop(timeout=0.2) is not None
        await until(lambda: not alive(pid))


DRIVER = """
import asyncio, sys, logging
import ray
from headgate import Child, System, To
from tests.ray.helpers import Again, Collect, Stuck
from tests.ray.scenarios import HEAD, OTHER, at
async def main():
    ray.init(address=sys.argv[1])
    async with System() as system:
        source = await system.start(Child(Again, place=at(HEAD)))
        sink = await system.start(Child(Collect, place=at(OTHER), subscribe_to=[source]))
        stuck = await system.start(Child(Stuck, place=at(OTHER), subscribe_to=[To(source, max_demand=2)]))
        print(await source.call("pid"), await sink.call("pid"), await stuck.call("pid"), flush=True)
        source.cast(list(range(5000)))
        await asyncio.sleep(1000)
asyncio.run(main())
"""


async def a_driver_that_is_killed_leaves_no_actor(cluster):
    driver = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", DRIVER, cluster.address], stdout=subprocess.PIPE
    )
    line = await asyncio.to_thread(driver.stdout.readline)
    pids = [int(each) for each in line.split()]
    assert len(pids) == 3
    assert all(map(alive, pids))
    await asyncio.sleep(0.3)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    await until(lambda: not any(map(alive, pids)) and not ferrymen())


async def a_system_that_ends_leaves_no_actor(cluster):
    async with System() as system:
        refs = [await system.start(Child(Collect, place=at(place))) for place in (HEAD, OTHER)]
        pids = [await ref.call("pid") for ref in refs]
    await until(lambda: not any(map(alive, pids)))
    assert ray.is_initialized(), "the connection is the program's own"


def ferrymen():
    """Return the processes of ferries."""
    found = []
    for pid in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"Ferryman" in (pid / "cmdline").read_bytes() and alive(pid.name):
                found.append(int(pid.name))
    return found


def parent(pid):
    return int(Path(f"/proc/{pid}/status").read_text().split("PPid:")[1].split()[0])


async def ferries_end_with_the_system(cluster):
    assert ferrymen() == []
    async with System() as system:
        sink = await system.start(Child(Collect, place=at(OTHER)))
        await sink.call("pid")
        assert len(ferrymen()) == 2, "one on each machine"
    await until(lambda: not ferrymen())


async def ferries_that_are_killed_cost_nothing(cluster):
    async with System() as system:
        source = await system.start(Child(Counter, 20_000, place=at(HEAD)))
        sink = await system.start(
            Child(Collect, 0.001, place=at(OTHER), subscribe_to=[To(source, max_demand=50, cancel="temporary")])
        )
        for pid in ferrymen():
            before = await sink.call("count", timeout=60)  # a ferry takes its time to start
            await until(lambda before=before: has(sink, before + 500))
            os.kill(pid, signal.SIGKILL)
        assert await seen_by(sink, 20_000) == list(range(20_000))
        assert len(ferrymen()) == 2


async def a_stranger_does_not_come_in(cluster):
    async with System() as system:
        sink = await system.start(Child(Collect, place=at(OTHER)))
        host, port = system.node.exchange.workers[sink.driver.where].address
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(tcp._HELLO.pack(tcp._MAGIC, 0, sink.driver.where, b"n" * 32) + bytes(40))
        nonce_and_proof = await reader.readexactly(64)
        assert nonce_and_proof
        assert await reader.read() == b"", "it has no proof, and is turned away"
        writer.close()
        assert await sink.call("pid"), "the node goes on"


async def resources_and_placement_are_ray_s(cluster):
    group = ray.util.placement_group([{"CPU": 1}] * 2, strategy="STRICT_SPREAD")
    ray.get(group.ready())
    async with System() as system:
        found = []
        for bundle in range(2):
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
            ref = await system.start(Child(Where, place=Ray(num_cpus=0.5, scheduling_strategy=strategy)))
            found.append((await ref.call("node"))[0])
        assert len(set(found)) == 2
        place = at(HEAD, name="hg", namespace="tests", runtime_env={"env_vars": {"COLOUR": "green"}})
        ref = await system.start(Child(Where, place=place))
        assert (await ref.call("node"))[1] == "green"
        named = ray.util.list_named_actors(all_namespaces=True)
        assert any(each["namespace"] == "tests" and each["name"].startswith("hg-") for each in named)
    ray.util.remove_placement_group(group)


async def what_cannot_be_placed_is_an_error_in_time(cluster):
    async with System() as system:
        try:
            await system.start(Child(Collect, place=at({"gold": 1}, start_timeout=1)))
        except StageCrashed as crash:
            assert "within 1 s (it needs gold=1)" in str(crash)  # noqa: PT017
        else:
            raise AssertionError("it was started")


async def another_cluster_than_the_one_that_is_connected_is_refused(cluster):
    async with System() as system:
        try:
            await system.start(Child(Collect, place=at(address="127.0.0.1:1")))
        except StageCrashed as crash:
            assert isinstance(crash.__cause__.__cause__, OptionError)  # noqa: PT017
            assert "connected to that cluster" in str(crash)  # noqa: PT017
        else:
            raise AssertionError("it was started")


class Where(Collect):
    def handle_call(self, request):
        return where()


NAMES = [
    name
    for name, each in list(globals().items())
    if asyncio.iscoroutinefunction(each) and not name.startswith("_") and each.__code__.co_varnames[:1] == ("cluster",)
]
