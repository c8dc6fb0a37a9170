"""How flows are run: collected, iterated, as apps, as children of supervisors; into stages and files, through them."""

import asyncio
import contextlib
import csv
import json
import threading
from typing import Any

import pytest

import headgate
from headgate import (
    Child,
    Consumer,
    Flow,
    FlowError,
    NameTakenError,
    OptionError,
    ProducerConsumer,
    StageCrashed,
    Supervisor,
    System,
    To,
)
from headgate.flow import FlowStatistics, triggers, watermarks, windows
from headgate.testing import run

NUMBERS = Flow.from_iterable(range(100))


class Keep(Consumer):
    """Writes down what it gets."""

    def __init__(self, got):
        self.got = got

    def handle_events(self, events, source):
        self.got.extend(events)


class Double(ProducerConsumer):
    """Doubles."""

    def handle_events(self, events, source):
        return [event * 2 for event in events]


def endless():
    number = 0
    while True:
        yield number
        number += 1


@pytest.mark.parametrize("workers", [1, 3])
def test_an_endless_flow_ends_when_nobody_wants_more(workers):
    flow = Flow.from_iterable(endless()).options(workers=workers).map(lambda x: x * 2)
    threads = threading.active_count()
    for number, event in enumerate(flow):
        assert event % 2 == 0
        if number == 20:
            break
    assert threading.active_count() == threads


async def test_iterating_leaves_nothing_behind():
    tasks = asyncio.all_tasks()
    async with contextlib.aclosing(aiter(NUMBERS)) as events:
        async for _ in events:
            break
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == tasks


async def test_who_iterates_is_cancelled():
    source = Flow.from_iterable(endless()).map(lambda x: x)

    async def iterate():
        async for _ in source:
            await asyncio.sleep(0)

    task = asyncio.ensure_future(iterate())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_plain_entries_work_where_a_loop_runs():
    assert NUMBERS.count().to_list() == [100]
    assert list(NUMBERS.top(1)) == [99]
    numbers = NUMBERS.run()
    assert isinstance(numbers, FlowStatistics)
    assert numbers.read == 100


async def test_a_flow_can_be_awaited():
    numbers = await NUMBERS.map(str)
    assert numbers.read == 100
    assert numbers.emitted == {"work-1": 100}


async def test_as_an_app():
    got: list[Any] = []
    async with NUMBERS.app(consume=got.extend) as running:
        await running.wait()
    assert got == list(range(100))
    got.clear()
    await NUMBERS.app(consume=got.extend)
    assert got == list(range(100))


async def test_as_a_child_whose_results_others_subscribe_to():
    got: list[Any] = []
    app = NUMBERS.map(lambda x: x + 1).app(name="numbers")
    await Supervisor([app, Child(Keep, got, subscribe_to=[To("numbers", max_demand=10)])])
    assert got == list(range(1, 101))


async def test_a_failing_flow_is_started_again_by_its_supervisor():
    fails = [True]
    got: list[Any] = []

    def once(x):
        if fails and x == 50:
            fails.clear()
            raise ValueError(x)
        return x

    app = NUMBERS.map(once).into(got.extend).app(restart="transient")
    await Supervisor([app], on_error=lambda error: None)
    assert sorted({*got}) == list(range(100))


async def test_demand_can_be_held():
    got: list[Any] = []
    async with NUMBERS.app(demand="accumulate", consume=got.extend) as running:
        await asyncio.sleep(0.01)
        assert got == []
        running.forward()  # type: ignore[attr-defined]
        await running.wait()
    assert len(got) == 100


async def test_into_running_consumers_and_through_running_stages():
    got: list[Any] = []
    async with System() as system:
        middle = await system.start(Child(Double, name="middle"))
        end = await system.start(Child(Keep, got, name="end", subscribe_to=["middle"]))
        more: list[Any] = []
        other = await system.start(Child(Keep, more, name="other"))
        run = await system.start(NUMBERS.into(middle, "other").app())
        await run.wait()
        await end.drain()
        assert other.alive
    assert len(got) + len(more) == 100
    assert sorted([*(x // 2 for x in got), *more]) == list(range(100))


async def test_into_recipes_and_through_recipes():
    got: list[Any] = []
    flow = NUMBERS.through(Child(Double), Child(Double, id="two")).map(lambda x: x + 1)
    await flow.through(Child(Double)).into(Child(Keep, got, subscribe_to=[To("flow", max_demand=3)])).run_async()
    assert sorted(got) == sorted((x * 2 + 1) * 2 for x in range(100))


def test_into_files(tmp_path):
    rows = Flow.from_iterable([{"a": n, "b": f"é{n}"} for n in range(50)])
    rows.into(tmp_path / "rows.jsonl").run()
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()][3] == {"a": 3, "b": "é3"}
    rows.into(str(tmp_path / "rows.csv")).run()
    with (tmp_path / "rows.csv").open(newline="") as file:
        assert list(csv.DictReader(file))[3] == {"a": "3", "b": "é3"}
    rows.map(lambda row: row["b"]).into(tmp_path / "rows.txt").run()
    assert (tmp_path / "rows.txt").read_text().splitlines() == [f"é{n}" for n in range(50)]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rows.csv", "rows.jsonl", "rows.txt"]


def test_a_file_of_a_flow_that_fails_is_not_there(tmp_path):
    with pytest.raises(headgate.OperatorError):
        NUMBERS.map(lambda x: 1 / (x - 50)).into(tmp_path / "half.txt").run()
    assert list(tmp_path.iterdir()) == []


def test_a_tee_sends_everything_both_ways(tmp_path):
    evens: list[Any] = []
    flow = NUMBERS.tee(lambda branch: branch.filter(lambda x: x % 2 == 0).into(evens.extend), tmp_path / "all.txt")
    assert flow.count().to_list() == [100]
    assert evens == list(range(0, 100, 2))
    assert len((tmp_path / "all.txt").read_text().split()) == 100


def test_a_flow_that_goes_somewhere_cannot_be_iterated():
    with pytest.raises(FlowError, match="none to iterate over"):
        list(NUMBERS.into(print))


async def test_the_consumer_of_a_flow_fails():
    def fail(events):
        raise ValueError("no")

    with pytest.raises(StageCrashed, match="no"):
        await NUMBERS.into(fail).run_async()


@pytest.mark.parametrize("ordered", [True, False])
async def test_async_calls_are_side_by_side_and_bounded(ordered):
    busy, most = 0, 0

    async def call(x):
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        return -x

    got = await NUMBERS.map_async(call, concurrency=7, ordered=ordered).collect()
    assert most == 7
    assert (got if ordered else sorted(got, reverse=True)) == [-x for x in range(100)]


def test_async_calls_at_a_rate():
    async def main():
        loop = asyncio.get_running_loop()
        began, times = loop.time(), []

        async def call(x):
            times.append(loop.time() - began)

        await Flow.from_iterable(range(5)).map_async(call, rate=10).run_async()
        assert [round(at, 3) for at in times] == [0.0, 0.1, 0.2, 0.3, 0.4]

    run(main())


def test_time_goes_by_the_loops_clock():
    async def main():
        async def slow():
            for number in range(10):
                await asyncio.sleep(1)
                yield number

        flow = Flow.from_iterable(slow()).window(windows.global_(trigger=triggers.periodically(3)))
        got = await flow.reduce(int, lambda total, x: total + x).on_trigger(lambda total: ([total], total)).collect()
        assert got == [6, 21, 45]  # 3 seconds after the first event, which came at 1, then every 3, then the end
        periodic = Flow.from_iterable(slow()).window(windows.periodic(5)).count()
        assert [each.value for each in await periodic.collect()] in ([4, 5, 1], [5, 5])

    run(main())


def test_a_trigger_by_hand():
    async def main():
        got: list[Any] = []
        wait = asyncio.Event()

        async def some():
            for number in range(10):
                yield number
            await wait.wait()

        flow = Flow.from_iterable(some()).reduce(int, lambda total, x: total + x)
        app = flow.on_trigger(lambda total, _, occasion: ([(total, occasion.name)], 0)).app(consume=got.extend)
        async with app as running:
            await asyncio.sleep(1)
            running.fire("now")  # type: ignore[attr-defined]
            await asyncio.sleep(1)
            assert got == [(45, "now")]
            wait.set()
            await running.wait()
        assert got == [(45, "now"), (0, "done")]

    run(main())


def test_what_is_open_can_be_watched_while_it_runs():
    async def main():
        async def seconds():
            for second in range(40):
                yield (second if second != 25 else 3, second % 3)  # one is late
                await asyncio.sleep(1)

        spec = windows.fixed(10, by=0, watermark=watermarks.out_of_order(2))
        app = Flow.from_iterable(seconds()).window(spec).count_by(1).app(watch=1)
        async with app as running:
            await asyncio.sleep(30.5)
            seen = running.flow_statistics()  # type: ignore[attr-defined]
            [gauges] = seen.gauges.values()
            assert gauges == {"windows of 0": 2, "accumulated of 0": 4, "watermark of 0": 28}
            assert (seen.read, seen.late) == (31, 1)
            await running.wait()

    run(main())


@pytest.mark.parametrize("watch", [0, -1, True, "1"])
def test_a_wrong_interval_of_watching(watch):
    with pytest.raises(OptionError, match="watch"):
        NUMBERS.app(watch=watch)


def test_progress_is_shown_when_asked_for(capsys):
    NUMBERS.run(progress=True)
    assert "100 rows" in capsys.readouterr().err


def test_the_plan_says_what_runs_where():
    flow = NUMBERS.options(workers=2).map(str).filter(len).count_by()
    text = flow.explain()
    assert "source-1: from_iterable() at test_running.py" in text
    assert "work-1: 2 workers on the event loop, from source-1" in text
    assert "map(str)" in text
    assert "part of count_by" in text
    assert "merge of count_by" in text
    assert flow.map(lambda pair: pair[0]).explain().count(" workers ") == 1


def test_the_plan_says_where_results_go():
    flow = NUMBERS.options(workers=2, place=headgate.Process(group="a"))
    assert "work-1: 2 workers at Process(group='a'), from source-1" in flow.explain()
    assert flow.explain().count("-> results") == 1
    text = flow.tee(lambda branch: branch.map(str).into("all.txt")).into(print, "consumer").explain()
    assert text.count("-> into all.txt") == 1
    assert "-> tee-2, in turn" in text
    assert "-> into function, into consumer" in text
    assert "results" not in text


def test_options_of_an_app_are_checked():
    with pytest.raises(OptionError, match="demand"):
        NUMBERS.app(demand="hold")


async def test_two_flows_of_one_name():
    async with System() as system:
        first = await system.start(NUMBERS.app(name="numbers"))  # it is through, but for its results
        with pytest.raises(NameTakenError, match="'numbers' is taken"):
            await system.start(NUMBERS.app(name="numbers"))
        assert [event async for event in headgate.stream([first.outlet])] == list(range(100))
        await first.wait()
        second = await system.start(NUMBERS.app(name="numbers"))
        assert [event async for event in headgate.stream([second.outlet])] == list(range(100))
