"""Workers die: what they had is done again by others, and the result is exact; or the flow says that it cannot be."""

import asyncio
import os
import signal
from collections import Counter
from typing import Any

import pytest

from headgate import Flow, FlowInterruptedError, Process, System
from headgate.flow import FlowApp, windows

WORDS = [f"w{n % 97}" for n in range(60_000)]


def text(folder):
    path = folder / "words.txt"
    path.write_text("\n".join(" ".join(WORDS[n : n + 6]) for n in range(0, len(WORDS), 6)) + "\n")
    return path


def die_once(marker):
    """Return a function that kills its own process at its 300th call, in one process of all."""
    calls = 0

    def function(line):
        nonlocal calls
        calls += 1
        if calls == 300:
            try:
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return line
            os.kill(os.getpid(), signal.SIGKILL)
        return line

    return function


@pytest.mark.slow
@pytest.mark.parametrize("windowed", [False, True])
def test_a_worker_that_is_killed_costs_its_ranges_only(tmp_path, windowed):
    flow = Flow.from_lines(text(tmp_path), split=2000).options(workers=2, place=Process())
    words = flow.map(die_once(tmp_path / "died")).flat_map(str.split)
    if windowed:
        words = words.window(windows.fixed(10, by=lambda word: int(word[1:])))
        got: Counter[Any] = Counter()
        for window, key, value in words.count_by().to_list():
            assert window.start == int(key[1:]) // 10 * 10
            got[key] += value
    else:
        got = Counter(dict(words.count_by().to_list()))
    assert (tmp_path / "died").exists()
    assert got == Counter(WORDS)


@pytest.mark.slow
def test_results_that_were_not_reduced_come_once(tmp_path):
    flow = Flow.from_lines(text(tmp_path), split=2000).options(workers=2, place=Process())
    got = flow.map(die_once(tmp_path / "died")).flat_map(str.split).to_list()
    assert (tmp_path / "died").exists()
    assert Counter(got) == Counter(WORDS)


@pytest.mark.slow
def test_state_that_is_lost_starts_the_flow_anew(tmp_path):
    flow = Flow.from_lines(text(tmp_path), split=2000).options(workers=2, place=Process())
    words = flow.flat_map(str.split).partition().map(die_once(tmp_path / "died"))
    got = words.reduce(Counter, lambda counts, word: counts.update([word]) or counts).to_list()
    assert (tmp_path / "died").exists()
    assert dict(got) == Counter(WORDS)
    assert len(got) == len(set(WORDS))


@pytest.mark.slow
def test_a_flow_that_cannot_be_done_again_says_so(tmp_path):
    source = iter(WORDS)
    flow = Flow.from_iterable(source).options(workers=1, place=Process()).map(die_once(tmp_path / "died"))
    with pytest.raises(FlowInterruptedError, match="was lost"):
        flow.to_list()


async def test_the_last_of_a_layer_ends_the_flow():
    async def forever():
        while True:
            yield 1
            await asyncio.sleep(0)

    async with System() as system:
        run = await system.start(FlowApp(Flow.from_iterable(forever()).map(str)._node))
        system.ref(f"{run.base}.work-1.1").kill()
        with pytest.raises(FlowInterruptedError, match=r"work-1\.1"):
            await run.wait()


async def test_what_has_arrived_and_was_given_back_is_noticed():
    async def forever():
        while True:
            yield 1
            await asyncio.sleep(0)

    async with System() as system:
        run = await system.start(FlowApp(Flow.from_iterable(forever()).map(str)._node))
        worker = f"{run.base}.work-1.1"
        run._arrived[worker, 0] = 10
        run.given_back(0, worker, 10)
        assert run.failure is None
        run.given_back(0, worker, 9)
        with pytest.raises(FlowInterruptedError, match="had arrived"):
            await run.wait()
