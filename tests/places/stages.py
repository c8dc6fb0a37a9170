"""Stages for scenarios, written once as plain classes.

They are apart from the tests, so that a worker process that runs one does not import what tests need.
"""

from headgate import Consumer, Dispatcher, Down, HandlerError, Producer, ProducerConsumer, Stop


class Counter(Producer):
    """Gives whole numbers, as many as asked, up to an end."""

    def __init__(self, end=None, demands=None):
        self.next = 0
        self.end = end
        self.demands = [] if demands is None else demands

    def handle_demand(self, demand):
        self.demands.append(demand)
        first, self.next = self.next, self.next + demand
        if self.end is not None and self.next >= self.end:
            self.next = self.end
            self.stage.finish()
        return list(range(first, self.next))

    def handle_call(self, request):
        return request


class Emitter(Producer):
    """Gives what it is told, by cast, call, or from outside; keeps what it is asked and told."""

    def __init__(self, log=None):
        self.log = [] if log is None else log

    def handle_demand(self, demand):
        self.log.append(("demand", demand))

    def handle_cast(self, message):
        return message

    def handle_call(self, request):
        self.stage.emit(request)
        return len(request)

    def handle_info(self, message):
        self.log.append(("info", message))

    def handle_subscribe(self, role, options, peer):
        self.log.append(("subscribe", role))

    def handle_cancel(self, reason, peer):
        self.log.append(("cancel", reason.kind, reason.reason))


class Times(ProducerConsumer):
    def __init__(self, by=1, repeat=1):
        self.by = by
        self.repeat = repeat

    def handle_events(self, events, source):
        return [event * self.by for event in events for _ in range(self.repeat)]


class Collect(Consumer):
    """Keeps what it handles, event by event and batch by batch; raises on chosen events."""

    def __init__(self, seen=None, batches=None, poison=(), log=None):
        self.seen = [] if seen is None else seen
        self.batches = [] if batches is None else batches
        self.poison = poison
        self.log = [] if log is None else log

    def handle_events(self, events, source):
        for event in events:
            if event in self.poison:
                raise ValueError(f"poison {event}")
        self.batches.append(list(events))
        self.seen.extend(events)

    def handle_call(self, request):
        return list(self.seen)

    def handle_info(self, message):
        self.log.append(("info", message))

    def handle_subscribe(self, role, options, peer):
        self.log.append(("subscribe", role))

    def handle_cancel(self, reason, peer):
        self.log.append(("cancel", reason.kind, reason.reason))


class Failing(Producer):
    def handle_demand(self, demand):
        raise ValueError("broken")


class Watcher(Consumer):
    def __init__(self, watched, log):
        self.watched = watched
        self.log = log

    def started(self):
        for ref in self.watched:
            self.stage.monitor(ref)

    def handle_events(self, events, source):
        pass

    def handle_info(self, message):
        assert isinstance(message, Down)
        self.log.append((self.watched.index(message.ref), message.reason))


class Wanderer(Collect):
    """Subscribes and cancels by itself."""

    def handle_cast(self, message):
        if message == "cancel":
            self.stage.cancel(self.stage.subscriptions[0], "enough")
        else:
            self.stage.subscribe(message, max_demand=10, mode="manual")


class Mute(Producer):
    """Never gives anything."""


class Silent(Consumer):
    def handle_events(self, events, source):
        pass


class Boom(Exception):
    pass


class Fragile(Producer):
    def handle_call(self, request):
        raise Boom(request)

    def handle_cast(self, message):
        raise Boom(message)

    def handle_info(self, message):
        raise Boom(message)


class Breaking(Times):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def handle_events(self, events, source):
        if self.limit in events:
            raise Boom(self.limit)
        return super().handle_events(events, source)


class BadStart(Consumer):
    def __init__(self, where):
        if where == "__init__":
            raise Boom(where)
        self.where = where

    def started(self):
        raise Boom(self.where)

    def handle_events(self, events, source):
        pass


class BadEnd(Emitter):
    def terminate(self, reason):
        raise Boom(reason)


class Chooser(Collect):
    """Chooses manual mode by its callback, and asks from inside of its handler."""

    def handle_subscribe(self, role, options, peer):
        return "manual"

    def handle_cast(self, message):
        self.stage.ask(self.stage.subscriptions[0], message)

    def handle_events(self, events, source):
        super().handle_events(events, source)
        if len(self.seen) < 30:
            self.stage.ask(source, 10)


class Surplus(Emitter):
    def handle_demand(self, demand):
        return list(range(demand + 5))


class Talkative(Collect):
    def handle_events(self, events, source):
        super().handle_events(events, source)
        return list(events)


def parity(event):
    return event % 2


def first(event):
    return event[0]


class Faulty(Dispatcher):
    """A user's dispatcher with an error in it."""

    def __init__(self, where):
        self.where = where

    def subscribe(self, subscriber):
        if self.where == "subscribe":
            raise RuntimeError("faulty")

    def cancel(self, subscriber, pieces):
        if self.where == "cancel":
            raise RuntimeError("faulty")
        return pieces

    def asked(self, subscriber, count):
        if self.where == "asked":
            raise RuntimeError("faulty")
        self.wanted += count

    def dispatch(self, batch, size, token):
        raise RuntimeError("faulty")


class Ending(Times):
    def __init__(self, ends):
        super().__init__()
        self.ends = ends

    def terminate(self, reason):
        self.ends.append(reason)


class Lines:
    """Can be iterated several times, says how far, and may raise at the end."""

    def __init__(self, count, given=None, *, broken=False):
        self.count = count
        self.given = [] if given is None else given
        self.broken = broken

    def __iter__(self):
        for number in range(self.count):
            self.given.append(number)
            yield number
        if self.broken:
            raise ValueError("broken")


class Closing(Counter):
    def __init__(self, ends):
        super().__init__()
        self.ends = ends

    def terminate(self, reason):
        self.ends.append(reason)


class Starting(Producer):
    def __init__(self, error=None, log=None):
        self.error = error
        self.log = log

    def started(self):
        if self.log is not None:
            self.log.append(self.stage.name)
        if self.error is not None:
            raise self.error


class Stopping(Collect):
    def handle_events(self, events, source):
        super().handle_events(events, source)
        if len(self.seen) >= 10:
            raise Stop


class Answering(Producer):
    """Answers in every way."""

    def __init__(self):
        self.later = []

    def handle_call(self, request):
        if request == "early":
            self.stage.reply("early answer")
            return "ignored"
        if request == "later":
            self.later.append(self.stage.caller())
            return None
        if request == "events":
            self.stage.emit([1, 2, 3])
            return "after the events"
        return ("answer", request)

    def handle_cast(self, message):
        for number, caller in enumerate(self.later):
            self.stage.reply_to(caller, (message, number))


class Told(Times):
    def __init__(self, log):
        super().__init__()
        self.log = log

    def handle_events(self, events, source):
        self.log.append(list(events))
        return super().handle_events(events, source)

    def handle_info(self, message):
        self.log.append(message)


class Feeding(Producer):
    """Events come from elsewhere."""

    def __init__(self, known):
        self.known = known

    def started(self):
        self.known.append(self.stage)


class Curious(Consumer):
    def __init__(self, log):
        self.log = log

    def handle_events(self, events, source):
        stage = self.stage
        self.log.append(
            (stage.name, stage.role, stage.ref.name, len(stage.subscriptions), stage.demand, stage.buffered)
        )
        self.log.append(stage.statistics().waiting)
        try:
            stage.emit([1])
        except HandlerError as error:
            self.log.append(error.callback)
