"""Who reads a log, and how far they have come."""

import asyncio
import json

from click.testing import CliRunner

from headgate.cli.commands import headgate
from headgate.eventlog import Event, Projection, readers
from headgate.eventlog.projector import _Beside
from headgate.types import Message
from tests.eventlog.conftest import run


def count(state, event):
    return {"n": state.get("n", 0) + 1}


async def fill(log):
    await log.append("a", [Event("e", {}) for _ in range(10)])
    await log.save_checkpoint("mine", 4)
    await log.projector(Projection("counts", count)).catch_up()
    member, other = (log.group("billing", partitions=2) for _ in "ab")
    await member.join()
    events = await member.take(3)
    await member.done(events)
    await other.join()
    message = Message(events[0], receipt=events[0])
    message.reason = "broken"
    await member.parking.put([message])
    await log.append("a", [Event("e", {})])
    return member, other


def test_groups_projections_and_checkpoints_are_listed(place):
    @run
    async def _():
        async with place.log() as log:
            member, other = await fill(log)
            found = await readers(log)
            assert [(each.kind, each.name) for each in found] == [
                ("checkpoint", "mine"),
                ("group", "billing"),
                ("projection", "counts"),
            ]
            mine, billing, counts = found
            assert (mine.position, mine.behind, mine.members, mine.parked) == (4, 7, None, None)
            assert (billing.members, billing.parked) == (2, 1)
            assert billing.position <= 3
            assert billing.behind == 11 - billing.position
            assert (counts.position, counts.behind) == (10, 1)
            await member.leave()
            await other.leave()
            assert (await readers(log))[1].members == 0


def test_a_rebuild_is_listed_while_it_goes_on(place, monkeypatch):
    @run
    async def _():
        async with place.log() as log:
            await fill(log)
            swap, built, looked = _Beside.swap, asyncio.Event(), asyncio.Event()

            async def later(self):
                built.set()
                await looked.wait()
                await swap(self)

            monkeypatch.setattr(_Beside, "swap", later)
            rebuilding = asyncio.create_task(log.projector(Projection("counts", count, logic="2")).rebuild())
            await built.wait()
            kinds = [each.kind for each in await readers(log)]
            looked.set()
            await rebuilding
            assert kinds == ["checkpoint", "group", "projection", "rebuild"]
            (last,) = [each for each in await readers(log) if each.name == "counts"]
            assert (last.kind, last.behind) == ("projection", 0)


def test_they_are_shown_on_the_command_line(shared):
    @run
    async def _():
        async with shared.log() as log:
            for each in await fill(log):
                await each.leave()

    def shown(*arguments):
        done = CliRunner().invoke(headgate, ["log", "readers", shared.url, *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    lines = shown().splitlines()
    assert lines[0].split() == ["READER", "KIND", "POSITION", "BEHIND", "MEMBERS", "PARKED", "CAME", "ON", "(UTC)"]
    assert [line.split()[:4] for line in (lines[1], lines[3])] == [
        ["mine", "checkpoint", "4", "7"],
        ["counts", "projection", "10", "1"],
    ]
    assert lines[2].split()[4:6] == ["0", "1"]
    documents = [json.loads(line) for line in shown("--json").splitlines()]
    assert [(each["kind"], each["name"]) for each in documents] == [
        ("checkpoint", "mine"),
        ("group", "billing"),
        ("projection", "counts"),
    ]
