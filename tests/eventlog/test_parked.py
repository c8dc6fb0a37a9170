"""Parked events: what a pipeline over a group has given up is kept, shown, and handled again when it is mended."""

import asyncio
import itertools

import pytest

from headgate import Backoff, OptionError, Pipeline
from headgate.eventlog import Event, EventLog, archive, discard
from headgate.eventlog.parking import ParkedSource, Parking
from headgate.testing import check_source
from headgate.types import Message
from tests.eventlog.conftest import run


class Handling(Pipeline):
    """Handles events by number, but for those that are broken."""

    max_deliveries = 2
    redelivery = Backoff(first=0.001)

    def __init__(self, broken, last, **options):
        self.broken, self.last, self.handled = broken, last, []
        self.done = asyncio.Event()
        super().__init__(**options)

    def handle_message(self, message):
        number = message.data.data["number"]
        if number in self.broken:
            raise ValueError(f"{number}\0 is broken")
        self.handled.append(number)
        if number == self.last:
            self.done.set()
        return message


async def parked_some(log):
    await log.append_all([(f"s-{number % 3}", [Event("put", {"number": number})]) for number in range(12)])
    pipeline = Handling({2, 7}, 11, source=log.group("g", partitions=1).source())
    async with pipeline:
        await pipeline.done.wait()
        while len(await log.group("g", partitions=1).parked()) < 2:
            await asyncio.sleep(0.001)
    return pipeline.handled


def test_what_fails_for_good_is_parked_and_the_group_goes_on(place):
    @run
    async def _():
        async with place.log(clock=lambda: 1000.0) as log:
            assert sorted(await parked_some(log)) == [0, 1, 3, 4, 5, 6, 8, 9, 10, 11]
            group = log.group("g", partitions=1)
            found = await group.parked()
            assert [(each.event.data["number"], each.deliveries) for each in found] == [(2, 2), (7, 2)]
            assert [each.reason for each in found] == [f"ValueError: {n}\ufffd is broken" for n in (2, 7)]
            assert "handle_message" in found[0].traceback
            assert found[0].at.timestamp() == 1000
            assert await group.parked(1) == found[:1]
            assert await group.parked(after=3) == found[1:]
            assert await log.group("other").parked() == []
            with pytest.raises(OptionError, match="limit"):
                await group.parked(0)


def test_what_is_parked_is_handled_again_when_it_is_mended(place):
    @run
    async def _():
        async with place.log() as log:
            await parked_some(log)
            group = log.group("g", partitions=1)
            half = Handling({7}, None, source=group.parked_source())
            await half
            assert half.handled == [2]
            (left,) = await group.parked()
            assert (left.event.data["number"], left.deliveries) == (7, 2)
            mended = Handling(set(), None, source=group.parked_source())
            await mended
            assert mended.handled == [7]
            assert await group.parked() == []
            assert await group.forget_parked() == 0


def test_what_is_parked_can_be_forgotten_and_outlives_archives(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            await parked_some(log)
            group = log.group("g", partitions=1)
            positions = [each.event.position for each in await group.parked()]
            await archive(log, tmp_path, positions[0])
            assert [each.event.position for each in await group.parked()] == positions
            await discard(log, positions[0])
            assert [each.event.position for each in await group.parked()] == positions[1:]
            assert await group.forget_parked([positions[1], 999]) == 1
            assert await group.forget_parked() == 1


class Opening(ParkedSource):
    """Opens its log with itself, and parks what it is given."""

    def __init__(self, path, payloads):
        self.log = EventLog(path)
        self.payloads = payloads
        super().__init__(Parking(self.log, "g"))

    async def open(self):  # type: ignore[override]
        await self.log.__aenter__()
        super().open()
        payloads, self.payloads = self.payloads, []
        for each in payloads:
            done = await self.log.append("s", [Event("put", each)])
            message = Message(None, receipt=await self.log.event(done.last))
            message.reason = "it is put there"
            await self._parking.put([message])

    async def close(self):  # type: ignore[override]
        super().close()
        await self.log.close()


def test_it_keeps_what_a_source_promises(tmp_path):
    files = itertools.count()
    report = check_source(
        lambda payloads: Opening(str(tmp_path / f"{next(files)}.db"), payloads),
        number=lambda message: message.data.data["number"],
        # What failed for good again comes anew when the source is opened anew: it is still parked.
        skip=("script", "letter-kept"),
        virtual=False,
    )
    assert "fetch-end" in report.ran
