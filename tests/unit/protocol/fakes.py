# mypy: disable-error-code="var-annotated"
"""Stand-ins for what surrounds the protocol: a port and an outlet that keep what they are given."""

import itertools
from collections import deque

from headgate import DemandDispatcher
from headgate.protocol import messages as m
from headgate.protocol.batching import cut
from headgate.protocol.ledger import Subscriber
from headgate.protocol.messages import Subscription, Terms
from headgate.protocol.stage import StageCore

_numbers = itertools.count(1)


def subscription(consumer="consumer", producer="producer", **terms):
    most = terms.get("max_demand", 1000)
    terms.setdefault("min_demand", most // 2)
    return Subscription(next(_numbers), producer, consumer, Terms(**terms))


def subscriber(consumer="consumer", **terms):
    return Subscriber(subscription(consumer, **terms))


class Store:
    """What a partition spills into."""

    def __init__(self):
        self.batches = deque()

    def append(self, batch):
        self.batches.append(batch)

    def popleft(self):
        return self.batches.popleft()


class Outlet:
    """The producing side as a dispatcher sees it."""

    name = "producer"

    def __init__(self):
        self.delivered = []  # (consumer, events) in the order of delivery
        self.batches = []  # (consumer, batch, token)
        self.discarded = {}
        self.detached = []
        self.released = []
        self.reported = []
        self.warned = []
        self.stores = {}

    def deliver(self, subscriber, batch, size, token):
        assert size == len(batch)
        assert 0 < size <= subscriber.pending, "rule D1: no more than was asked for"
        subscriber.sent += size
        self.delivered.append((subscriber.address, list(batch)))
        self.batches.append((subscriber.address, batch, token))

    def discard(self, size, token, reason):
        assert size > 0
        self.discarded[reason] = self.discarded.get(reason, 0) + size
        if token is not None:
            token.settle(size)

    def detach(self, subscriber, reason):
        self.detached.append((subscriber, reason))

    def release(self, info):
        self.released.append(info)

    def report(self, error):
        self.reported.append(error)

    def warn(self, text):
        self.warned.append(text)

    def shuffle(self, items):
        items.reverse()

    def spill(self, name):
        return self.stores.setdefault(name, Store())

    def events(self, who):
        return [event for address, events in self.delivered if address == who for event in events]

    def take(self):
        delivered, self.delivered = self.delivered, []
        return delivered


class Bench:
    """A dispatcher with subscribers, and no stage around it."""

    def __init__(self, dispatcher):
        self.outlet = Outlet()
        self.dispatcher = dispatcher
        dispatcher.bind(self.outlet)
        self.subscribers = {}

    def join(self, name, ask=0, **terms):
        record = subscriber(name, **terms)
        self.dispatcher.subscribe(record)
        self.subscribers[name] = record
        if ask:
            self.ask(name, ask)
        return record

    def ask(self, name, count):
        self.subscribers[name].asked += count
        self.dispatcher.asked(self.subscribers[name], count)

    def leave(self, name, pieces=()):
        return self.dispatcher.cancel(self.subscribers.pop(name), list(pieces))

    def dispatch(self, batch, token=None):
        """Return what was not taken."""
        taken = self.dispatcher.dispatch(batch, len(batch), token)
        assert 0 <= taken <= len(batch)
        rest = cut(batch, taken, len(batch))
        if taken < len(batch) and self.wanted > 0:
            return self.dispatch(rest, token)
        return list(rest)

    @property
    def wanted(self):
        """What is wanted when nothing else is going on."""
        if self.dispatcher.absorbed:
            self.dispatcher.idle()
        return self.dispatcher.wanted


class Token:
    """Counts what is settled."""

    def __init__(self):
        self.settled = 0

    def settle(self, count):
        self.settled += count

    def part(self, start, stop):
        return self


class Port:
    """A stage's port: keeps everything."""

    def __init__(self, name="stage"):
        self.name = name
        self.sent = []
        self.replies = []
        self.order = []  # names of what was sent, answers included
        self.subscriptions = []
        self.errors = []
        self.warnings = []
        self.end = []
        self.owed = 0
        self.stores = {}
        self.letters = []

    def send(self, to, message):
        self.sent.append((to, message))
        self.order.append(m.TAG_NAMES[message[0]])

    hand = ask = send

    def reply(self, token, value, error):
        if token is not None:
            self.replies.append((token, value, error))
            self.order.append("reply")

    def subscribed(self, subscription, error):
        self.subscriptions.append((subscription, error))

    def owe(self):
        self.owed += 1

    def report(self, error):
        self.errors.append(error)

    def warn(self, text):
        self.warnings.append(text)

    def shuffle(self, items):
        items.reverse()

    def spill(self, name):
        return self.stores.setdefault(name, Store())

    def lost(self, subscription, error):
        return False

    def bury(self, letter, token):
        self.letters.append((letter, token))

    def ended(self, reason):
        self.end.append(reason)

    def take(self, tag=None):
        """Take out what was sent (with this tag)."""
        taken = [message for _, message in self.sent if tag is None or message[0] == tag]
        self.sent = [] if tag is None else [each for each in self.sent if each[1][0] != tag]
        return taken

    def events(self):
        """Take out the events that were sent, as (consumer, list)."""
        taken = [(message[1].consumer, list(message[2])) for _, message in self.sent if message[0] == m.EVENTS]
        self.sent = [each for each in self.sent if each[1][0] != m.EVENTS]
        return taken

    def asks(self):
        """Take out the asks, as (asked, acked)."""
        return [(message[2], message[3]) for message in self.take(m.ASK)]


def run(core, handlers):
    """Run callbacks until there is none; a handler that is missing here returns None."""
    log = []
    while core.callback is not None:
        name, args = core.callback
        log.append((name, args))
        handler = handlers.get(name)
        try:
            value = handler(*args) if handler is not None else None
        except Exception as error:
            core.failed(error)
        else:
            core.returned(value)
    return log


def started(role, handlers, dispatcher=None, **options):
    """Return a core that has started, its port, and a function that feeds it a message and runs it."""
    port = Port()
    core = StageCore(port, role, set(handlers), dispatcher, **options)

    def feed(*message):
        if message:
            core.receive(message)
        return run(core, handlers)

    core.start()
    run(core, handlers)
    return core, port, feed


def producer(handlers=None, **options):
    return started(m.PRODUCER, handlers or {}, options.pop("dispatcher", None) or DemandDispatcher(), **options)


def consumer(handlers=None, **terms):
    core, port, feed = started(m.CONSUMER, {"handle_events": lambda events, source: None, **(handlers or {})})
    made = subscription(producer="producer", **terms)
    core.subscribe(made)
    feed()
    return core, port, feed, made


def middle(handle_events, *, max_demand=10, min_demand=5, **options):
    core, port, feed = started(m.PRODUCER_CONSUMER, {"handle_events": handle_events}, DemandDispatcher(), **options)
    up = subscription("stage", "up", max_demand=max_demand, min_demand=min_demand)
    core.subscribe(up)
    feed()
    down = subscription("down", "stage")
    feed(m.SUBSCRIBE, down)
    port.take()
    return core, port, feed, up, down
