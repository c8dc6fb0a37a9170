"""Apps that end in every way there is. `test_exit` runs them by ``headgate run tests.running.apps:NAME``."""

import asyncio
import os
import signal
import sys
import threading
import time

import headgate
from headgate import Child, Consumer, ConsumerSupervisor, Producer, Supervisor, To, from_iterable

LONG = 60.0
"""Seconds that no test waits for."""


class Numbers(Producer):
    """Gives numbers without an end."""

    def __init__(self):
        self.next = 0

    def handle_demand(self, demand):
        first, self.next = self.next, self.next + demand
        return range(first, self.next)


def endless(consumer, *args, **options):
    terms = To("numbers", max_demand=2, min_demand=1)
    return Supervisor(
        [Child(Numbers, name="numbers"), Child(consumer, *args, name="eater", subscribe_to=[terms], **options)],
        name="endless",
    )


class Quick(Consumer):
    async def handle_events(self, events, source):
        print("began", events[0])
        await asyncio.sleep(0.05)
        print("handled", events[0])


class Late(Consumer):
    """An async handler that takes long; it notes when it is cancelled."""

    async def handle_events(self, events, source):
        print("began", events[0])
        try:
            await asyncio.sleep(LONG)
        finally:
            print("cleaned up")


class Sleeper(Consumer):
    """A plain handler that takes long."""

    def __init__(self, seconds=LONG):
        self.seconds = seconds

    def handle_events(self, events, source):
        print("began", events[0])
        time.sleep(self.seconds)
        print("handled", events[0])


class Spinner(Consumer):
    """A plain handler that never gives up the interpreter by itself."""

    def handle_events(self, events, source):
        print("began", events[0])
        while True:
            pass


class Broken(Consumer):
    def handle_events(self, events, source):
        raise ValueError("cannot digest this")


class Unable(Consumer):
    def started(self):
        raise OSError("no such server")

    def handle_events(self, events, source):
        pass


class Exits(Consumer):
    def handle_events(self, events, source):
        sys.exit(7)


class Kills(Consumer):
    """Sends its own process the signal, from inside of a handler."""

    def handle_events(self, events, source):
        if not events[0]:
            os.kill(os.getpid(), signal.SIGTERM)


class Stops(Consumer):
    """Stops everything from inside of a handler, and waits for that."""

    async def handle_events(self, events, source):
        for supervision in list(self.stage.ref.driver.node.supervisions.values()):
            await supervision.stop()


class StopsLoop(Consumer):
    async def handle_events(self, events, source):
        if not events[0]:
            asyncio.get_running_loop().stop()
        elif events[0] == 5:
            os.kill(os.getpid(), signal.SIGTERM)


class Interrupts(Consumer):
    def handle_events(self, events, source):
        raise KeyboardInterrupt


class Executes(Consumer):
    """Blocks a thread that is no daemon, and is not the library's."""

    async def handle_events(self, events, source):
        print("began", events[0])
        await asyncio.to_thread(time.sleep, LONG)


def sleep_long(event):
    sys.stdout.write(f"began {event}\n")  # in one piece: there are several threads
    time.sleep(LONG)


class SlowStart(Consumer):
    async def started(self):
        print("starting")
        await asyncio.sleep(LONG)

    async def handle_events(self, events, source):
        pass


finite = Supervisor(
    [from_iterable(range(100), name="numbers"), Child(Quick, name="eater", subscribe_to=["numbers"])], name="finite"
)
quick = endless(Quick)
late = endless(Late)
thread = endless(Sleeper, place="thread")
inline = endless(Sleeper)
short = endless(Sleeper, 0.6)
spinner = endless(Spinner)
broken = endless(Broken)
unable = endless(Unable)
exits = endless(Exits)
kills = endless(Kills)
stops = endless(Stops)
stops_loop = endless(StopsLoop)
interrupts = endless(Interrupts)
executes = endless(Executes)
slow_start = endless(SlowStart)
children = Supervisor(
    [
        Child(Numbers, name="numbers"),
        ConsumerSupervisor(sleep_long, name="eater", subscribe_to=[To("numbers", max_demand=3)]),
    ],
    name="children",
)
single = from_iterable(range(3), name="alone", on_cancel="stop")
several = [from_iterable(range(3), name="numbers"), Child(Quick, subscribe_to=["numbers"])]
number = 5
nothing = None
empty: list[Child] = []
twins = [Child(Numbers, name="twin"), Child(Numbers, name="twin")]


def made():
    return finite


def needs(host, port=5, *, user):
    return finite


async def coroutine():
    return finite


def fails():
    raise KeyError("DSN")


def beside():
    """Run `run` where it must not run; for tests."""
    errors = []

    def elsewhere():
        try:
            headgate.run(finite)
        except headgate.RunError as error:
            errors.append(error)

    other = threading.Thread(target=elsewhere)
    other.start()
    other.join()
    return errors[0]
