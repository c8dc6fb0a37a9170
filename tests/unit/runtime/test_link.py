# mypy: disable-error-code="var-annotated"
"""A link over a real socket: everything comes, in order, whole, whatever its size and however the socket takes it."""

import asyncio
import contextlib
import gc
import os
import random
import resource
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headgate import CrossingError
from headgate.protocol.messages import ASK, CANCEL, CAST, EVENTS, End, Subscription, Terms
from headgate.runtime.frames import READ, SHARE
from headgate.runtime.link import HIGH, Link
from headgate.runtime.wire import Codes


class Owner:
    """A node that only listens."""

    def __init__(self, subscriptions):
        self.loop = asyncio.get_running_loop()
        self.subscriptions = subscriptions
        self.inflows = {}
        self.pending = []
        self.got = []
        self.told = []
        self.wrong = []
        self.over = False

    def codes(self, link):
        return Codes(self._name, lambda name: self.subscriptions[name[1]])

    @staticmethod
    def _name(value):
        return ("subscription", value.id) if isinstance(value, Subscription) else None

    def watch(self, number):
        pass

    def subscription(self, number):
        return self.subscriptions.get(number)

    def deliver(self, link, number, message):
        self.got.append((number, message))

    def heard(self, link, what):
        self.told.append(what)

    def refused(self, link, number, message, error):
        self.wrong.append((number, message, error))

    def undelivered(self, number, subscription, count, error):
        self.wrong.append((number, subscription, count, error))

    def closed(self, link):
        self.over = True


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def linked(scenario, **options):
    """Run a scenario with the two ends of a link and their owners."""

    async def main():
        subscriptions = {each: Subscription(each, "producer", "consumer", Terms()) for each in (1, 2)}
        one, two = socket.socketpair()
        left, right = Owner(subscriptions), Owner(subscriptions)
        a, b = Link(left, 1, one, **options), Link(right, 0, two, **options)
        try:
            async with asyncio.timeout(20):
                await scenario(a, b, left, right, subscriptions[1])
        finally:
            a.close()
            b.close()

    asyncio.run(main())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


def test_messages_come_in_order_and_both_ways():
    async def scenario(a, b, left, right, subscription):
        a.post(5, (EVENTS, subscription, [1, 2]))
        a.post(6, (CAST, {"x": 1}))
        b.post(7, (ASK, subscription, 1000, 3))
        a.post(5, (EVENTS, subscription, range(4)))
        a.tell("hello", 1, [2])
        a.post(5, (CANCEL, subscription, End("down", "normal"), 1, 2))
        await until(lambda: len(right.got) == 4 and right.told and left.got)
        assert right.got == [
            (5, (EVENTS, subscription, [1, 2])),
            (6, (CAST, {"x": 1})),
            (5, (EVENTS, subscription, range(4))),
            (5, (CANCEL, subscription, End("down", "normal"), 1, 2)),
        ]
        assert right.told == [("hello", 1, [2])]
        assert left.got == [(7, (ASK, subscription, 1000, 3))]

    linked(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_any_sizes_at_any_pace(seed):
    """Small, around the size of the reader's buffer, far above it, arrays in the stream and in memory files."""

    async def scenario(a, b, left, right, subscription):
        rng = random.Random(seed)
        sent = []
        for number in range(60):
            size = rng.choice([0, 1, 100, READ // 2 - 40, READ, READ + 1, 3 * READ, rng.randrange(2 * READ)])
            batch: Any = rng.choice(
                [
                    [number, os.urandom(size)],
                    [bytearray(os.urandom(size)), {"number": number, "text": "x" * size}],
                    [np.frombuffer(os.urandom(size), np.uint8), number],
                    [np.arange(SHARE // 8 + size // 8), np.arange(size // 8), b"x" * rng.randrange(99)],
                ]
            )
            sent.append(batch)
            a.post(1, (EVENTS, subscription, batch))
            if rng.random() < 0.3:
                await asyncio.sleep(0)
        await until(lambda: len(right.got) == len(sent))
        for (_, (_, _, came)), batch in zip(right.got, sent, strict=True):
            assert len(came) == len(batch)
            for one, other in zip(came, batch, strict=True):
                if isinstance(other, np.ndarray):
                    assert (one == other).all()
                    assert one.flags.writeable or not other.flags.writeable
                    one.flags.writeable and one.fill(0)
                else:
                    assert one == other

    linked(scenario)


def test_what_is_changed_after_it_was_sent_arrives_as_it_was():
    async def scenario(a, b, left, right, subscription):
        for size in (10, READ, 3 * READ, HIGH + 1):  # inside a frame, several frames, a memory file
            data, text = bytearray(b"1" * size), ["1" * size]
            a.post(1, (EVENTS, subscription, [data, text]))
            data[:] = b"2" * size
            text[0] = "2"
            a.post(1, (EVENTS, subscription, [data]))
        await until(lambda: len(right.got) == 8)
        for (_, first), (_, second) in zip(right.got[::2], right.got[1::2], strict=True):
            data, (text,) = first[2]
            assert set(data) == {ord("1")}
            assert text == data.decode()
            assert set(second[2][0]) == {ord("2")}

    linked(scenario)


def test_what_the_socket_does_not_take_waits_as_messages():
    async def scenario(a, b, left, right, subscription):
        b._sock and right.loop.remove_reader(b._sock)  # it does not listen for now
        for _ in range(100):
            a.post(1, (EVENTS, subscription, [bytes(SHARE - 1000)]))
            await asyncio.sleep(0)
        assert a._weight <= 2 * HIGH
        assert len(a._waiting) > 50
        right.loop.add_reader(b._sock, b._readable)
        await until(lambda: len(right.got) == 100)

    linked(scenario, budget=1 << 40)


def test_a_descriptor_goes_along():
    async def scenario(a, b, left, right, subscription):
        reading, writing = os.pipe()
        a.post(1, (EVENTS, subscription, [np.zeros(SHARE)]))
        a.pass_on(("pipe", 7), writing)
        a.post(1, (EVENTS, subscription, [np.ones(SHARE)]))
        await until(lambda: len(right.got) == 2 and right.told)
        [(what, number, descriptor)] = right.told
        assert (what, number) == ("pipe", 7)
        os.write(descriptor, b"through")
        assert os.read(reading, 10) == b"through"
        os.close(descriptor)
        os.close(reading)

    linked(scenario)


def test_a_batch_that_is_too_large_goes_in_parts():
    async def scenario(a, b, left, right, subscription):
        batch = [bytes([n]) * 1000 for n in range(10)]
        a.post(1, (EVENTS, subscription, batch))
        await until(lambda: sum(len(each[1][2]) for each in right.got) == 10)
        assert [each for got in right.got for each in got[1][2]] == batch
        assert len(right.got) > 3
        a.post(1, (EVENTS, subscription, [bytes(5000)]))
        [(number, message, error)] = left.wrong
        assert (number, message[0]) == (1, EVENTS)
        assert isinstance(error, CrossingError)
        assert "max_bytes=3000" in str(error)

    linked(scenario, max_bytes=3000)


def test_what_cannot_cross_is_told_to_the_owner_and_the_rest_goes_on():
    async def scenario(a, b, left, right, subscription):
        a.post(1, (EVENTS, subscription, [threading.Lock()]))
        a.post(2, (CAST, threading.Lock()))
        a.post(3, (CAST, "fine"))
        await until(lambda: right.got)
        assert [each[0] for each in left.wrong] == [1, 2]
        assert right.got == [(3, (CAST, "fine"))]

    linked(scenario)


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


def test_what_cannot_be_read_is_told_to_the_owner_there():
    async def scenario(a, b, left, right, subscription):
        a.post(4, (EVENTS, subscription, [1, Unreadable(), 3]))
        a.post(4, (CAST, Unreadable()))
        a.post(4, (CAST, 1))
        await until(lambda: right.got)
        [(number, found, count, error)] = right.wrong
        assert (number, found, count) == (4, subscription, 3)
        assert isinstance(error, CrossingError)
        assert "no number" in str(error)
        assert right.told[0][0] == "garbled"

    linked(scenario)


def test_the_end_of_the_other_side_is_noticed_after_all_that_it_said():
    async def scenario(a, b, left, right, subscription):
        a.post(1, (EVENTS, subscription, list(range(100_000))))
        a.finish()
        a.close()
        await until(lambda: right.over)
        assert len(right.got) == 1
        b.post(1, (CAST, 1))  # nobody minds

    linked(scenario)


def test_what_was_sent_before_there_was_a_socket_goes_when_there_is():
    async def main():
        subscriptions = {}
        one, two = socket.socketpair()
        left, right = Owner(subscriptions), Owner(subscriptions)
        a, b = Link(left, 1), Link(right, 0, two)
        a.post(1, (CAST, "early"))
        await asyncio.sleep(0.01)
        assert not a.up
        a.attach(one)
        async with asyncio.timeout(5):
            await until(lambda: right.got)
        a.close()
        b.close()

    asyncio.run(main())


def test_the_budget_holds_events_back_until_the_handler_has_begun_with_more():
    async def scenario(a, b, left, right, subscription):
        for number in range(10):
            a.post(1, (EVENTS, subscription, [bytes([number]) * 1000]))
        a.post(2, (CAST, "others go on"))
        await until(lambda: len(right.got) == 3)
        await asyncio.sleep(0.02)
        assert [each[1][0] for each in right.got] == [EVENTS, EVENTS, CAST]
        inflow = right.inflows[1]
        for handled in range(10):
            await until(lambda handled=handled: len(right.got) > handled + 1)
            inflow.begin(handled)
        events = [each[1][2][0][0] for each in right.got if each[1][0] == EVENTS]
        assert events == list(range(10))

    linked(scenario, budget=2000)


def test_nothing_is_left_open():
    async def scenario(a, b, left, right, subscription):
        for _ in range(5):
            a.post(1, (EVENTS, subscription, [np.zeros(SHARE)]))
        await asyncio.sleep(0)
        right.loop.remove_reader(b._sock)

    before = descriptors()
    linked(scenario)
    assert descriptors() == before


def test_more_memory_files_than_a_process_may_have_open():
    """Neither what is on the way nor what has come and is kept holds a descriptor; what nobody keeps is unmapped."""

    def mapped():
        return Path("/proc/self/maps").read_text(encoding="utf-8").count("memfd:headgate (")

    async def scenario(a, b, left, right, subscription):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 20, limits[1]))
        try:
            right.loop.remove_reader(b._sock)
            for number in range(100):
                a.post(1, (EVENTS, subscription, [number, np.zeros(2 * SHARE, np.uint8)]))
                await asyncio.sleep(0)
            right.loop.add_reader(b._sock, b._readable)
            await until(lambda: len(right.got) == 100)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert [each[1][2][0] for each in right.got] == list(range(100))
        assert mapped() - before == 100
        right.got.clear()

    gc.collect()
    before = mapped()
    linked(scenario, budget=1 << 40)
    gc.collect()
    assert mapped() == before


def test_no_descriptor_left_for_what_comes_ends_the_link_and_hangs_nobody():
    async def scenario(a, b, left, right, subscription):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        a.post(1, (EVENTS, subscription, [np.zeros(SHARE)]))
        taken = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 5, limits[1]))
            a.flush()
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            await until(lambda: right.over)
        finally:
            for each in taken:
                os.close(each)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert right.got == []

    linked(scenario)
