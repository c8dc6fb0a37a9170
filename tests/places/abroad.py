"""Stages for what is special in a worker process; apart from the tests, as in `stages`."""

import gc
import inspect
import logging
import os
import threading
import time
import warnings

import numpy as np

from headgate import BufferOverflowError, Consumer, HandlerError, NoStageError, Producer, ProducerConsumer


def pid(*_):
    return os.getpid()


class Where(Consumer):
    """Says where it runs."""

    def __init__(self, *whatever):
        self.whatever = whatever

    def handle_events(self, events, source):
        pass

    def handle_call(self, request):
        return os.getpid()


class Forgetful(Consumer):
    """Lets its process forget what nobody refers to any more."""

    def handle_events(self, events, source):
        pass

    def handle_call(self, request):
        gc.collect()


class Given(Producer):
    """Gives what it is told by cast; says where it runs when it is called."""

    def handle_cast(self, message):
        return message

    def handle_call(self, request):
        return os.getpid()


class Stuck(Consumer):
    """Keeps what it handles up to a limit, and then keeps its process busy for ever."""

    def __init__(self, seen, limit, log):
        self.seen = seen
        self.limit = limit
        self.log = log

    def handle_events(self, events, source):
        if self.limit in events:
            self.log.append(os.getpid())
            while True:
                time.sleep(60)
        self.seen.extend(events)


class StuckBetween(ProducerConsumer):
    """Passes on what comes up to a limit, and then keeps its process busy for ever."""

    def __init__(self, limit, log):
        self.limit = limit
        self.log = log

    def handle_events(self, events, source):
        if self.limit in events:
            self.log.append(os.getpid())
            while True:
                time.sleep(60)
        return list(events)


class Once(Consumer):
    """Notes its process; kills it, or ends it, at chosen events; the rest it handles whole batches at a time."""

    def __init__(self, seen, deadly=(), pids=None):
        self.seen = seen
        self.deadly = deadly
        self.pids = pids

    def started(self):
        if self.pids is not None:
            self.pids.append(os.getpid())

    def handle_events(self, events, source):
        if any(event in self.deadly for event in events):
            os._exit(3)
        self.seen.extend(events)


class Unready:
    """Can be made in one process, and cannot be read in any other."""

    def __init__(self, number):
        self.number = number
        self.home = os.getpid()

    def __reduce__(self):
        return _ready, (self.number, self.home)


def _ready(number, home):
    if os.getpid() != home:
        raise LookupError(f"there is no number {number} here")
    return Unready(number)


class Awkward(Exception):
    """Cannot be made of its `args`."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class Holding(Exception):
    """Has something that cannot cross."""

    def __init__(self, what):
        super().__init__(what)
        self.lock = threading.Lock()


class Locks(Producer):
    """Gives something that cannot cross."""

    def handle_cast(self, message):
        return [1, threading.Lock(), 2]


class Batches(Consumer):
    """Keeps batches as they come."""

    def __init__(self, batches):
        self.batches = batches

    def handle_events(self, events, source):
        self.batches.append(events)


class Raising(Consumer):
    def handle_events(self, events, source):
        self.deep(events[0])

    def handle_call(self, request):
        self.deep(request)

    def deep(self, kind):
        if kind == "holding":
            raise Holding("the lock is mine")
        try:
            raise KeyError("the first")
        except KeyError as first:
            error = Awkward(code=7)
            error.add_note("a note to it")
            raise error from first


class Talking(Consumer):
    """Logs and warns."""

    def handle_events(self, events, source):
        pass

    def handle_call(self, request):
        log = logging.getLogger("tests.talking")
        log.debug("nobody wants this")
        log.warning("number %d of %s", 5, request)
        try:
            raise KeyError("gone")
        except KeyError:
            log.exception("it went wrong")
        thread = threading.Thread(target=log.error, args=("from a thread: %s", threading.Lock()))
        thread.start()
        thread.join()
        return os.getpid()

    def handle_cast(self, message):
        warnings.warn(message, UserWarning, stacklevel=1)


class InPlace(ProducerConsumer):
    """Changes what it gets, where it is."""

    def handle_events(self, events, source):
        if isinstance(events, np.ndarray):
            events += 1
            return events
        for each in events:
            if isinstance(each, np.ndarray):
                each += 1  # noqa: PLW2901 (it is changed where it is)
        return events


class Agent(Consumer):
    """Does to other stages what it is told, and notes what it hears of those it monitors."""

    def __init__(self, heard):
        self.heard = heard

    async def handle_events(self, events, source):
        pass

    async def handle_call(self, request):
        ref, method, args, options = request
        if method == "monitor":
            self.stage.monitor(ref)
            return None
        try:
            value = getattr(ref, method)(*args, **options)
            return await value if inspect.isawaitable(value) else value
        except NoStageError as error:
            return error

    async def handle_info(self, message):
        self.heard.append((message.ref.name, message.reason))


class Fed(Producer):
    """Its events come from threads of its own process, and from its loop."""

    def __init__(self, raised):
        self.raised = raised

    def handle_call(self, request):
        threads = [threading.Thread(target=self.feed, args=(first, request)) for first in (0, 1000)]
        for thread in threads:
            thread.start()

    def feed(self, first, count):
        for number in range(first, first + count):
            self.stage.emit([number])

    def handle_cast(self, message):
        threading.Thread(target=self.flood, args=(message,)).start()

    def flood(self, events):
        for each in (events, "text"):
            try:
                self.stage.emit(each)
            except (BufferOverflowError, HandlerError) as error:
                self.raised.append((type(error).__name__, getattr(error, "refused", None)))


def records(*_):
    """Count what a subscription leaves in this process as long as somebody knows of it."""
    gc.collect()
    return sum(type(each).__name__ in ("Subscription", "Window", "Subscriber") for each in gc.get_objects())


class CountsIn(Consumer):
    def handle_events(self, events, source):
        pass

    def handle_call(self, request):
        return records()


class CountsOut(Producer):
    def handle_call(self, request):
        return records()


class Careful(Producer):
    """Gives whole numbers up to an end, and says at its own end how many it gave."""

    def __init__(self, end, pids):
        self.next = 0
        self.end = end
        self.pids = pids

    def started(self):
        self.pids.append(os.getpid())

    def handle_demand(self, demand):
        first, self.next = self.next, min(self.end, self.next + demand)
        if self.next == self.end:
            self.stage.finish()
        return range(first, self.next)


class Between(ProducerConsumer):
    """Passes everything on, and notes its process."""

    def __init__(self, pids):
        self.pids = pids

    def started(self):
        self.pids.append(os.getpid())

    def handle_events(self, events, source):
        return list(events)
