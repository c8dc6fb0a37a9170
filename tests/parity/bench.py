"""A dispatcher under a real producing side whose port only writes down: for rows about dispatchers and buffers."""

from collections import deque
from types import SimpleNamespace
from typing import Any

from headgate.protocol.messages import EVENTS, Subscription, Terms
from headgate.protocol.producer import ProducerSide


class RecordingPort:
    """What a driver would do, written down.

    Attributes:
        messages: (to, message) as they were sent.
        warnings: Texts.
        errors: Reported errors.
        shuffled: Lists that were to be shuffled, as they were before; each is reversed.
    """

    def __init__(self, name="producer"):
        self.name = name
        self.messages = []
        self.warnings = []
        self.errors = []
        self.shuffled = []
        self.outcomes = []
        self.answers = []

    def send(self, to, message):
        self.messages.append((to, message))

    hand = ask = send  # no shorter ways here

    def owe(self):
        pass

    def warn(self, text):
        self.warnings.append(text)

    def report(self, error):
        self.errors.append(error)

    def shuffle(self, items):
        self.shuffled.append(list(items))
        items.reverse()

    def spill(self, name):
        raise NotImplementedError

    def reply(self, token, value, error):
        self.answers.append((token, value, error))

    def subscribed(self, subscription, error):
        self.outcomes.append((subscription, error))

    def lost(self, subscription, error):
        return False

    def bury(self, letter, token):
        raise NotImplementedError

    def ended(self, reason):
        self.outcomes.append(reason)


class Bench:
    """A dispatcher, its consumers by letter, and the demand that went upstream.

    Args:
        dispatcher: What is tried.
        **options: Of the producing side: ``buffer_size``, ``buffer_keep``.
    """

    def __init__(self, dispatcher, *, buffer_size=10_000, buffer_keep=None):
        self.port = RecordingPort()
        self.agenda: deque[Any] = deque()
        self.side = ProducerSide(
            self.port,
            dispatcher,
            self.agenda,
            buffer_size=buffer_size,
            buffer_keep=buffer_keep,
            delivery="at_least_once",
        )
        self.dispatcher = dispatcher
        self.known = {}
        self.asked = {}

    def subscribe(self, name, *, stage=None, **terms):
        """Subscribe ``name``; two names may be subscriptions of one stage. Return the demand that went upstream."""
        consumer = stage or SimpleNamespace(name=name)
        subscription = Subscription(len(self.known) + 1, "producer", consumer, Terms(**terms))
        self.side.subscribe(subscription)
        self.known[name] = subscription
        self.asked[name] = 0
        return self._upstream()

    def ask(self, name, count):
        """Let a consumer ask for so many more. Return the demand that went upstream."""
        self.asked[name] += count
        subscription = self.known[name]
        assert self.side.ask(subscription, self.asked[name], self.side.subscribers[subscription].sent)
        return self._upstream()

    def cancel(self, name):
        """Let a consumer leave that is done with all it got. Return the demand that went upstream."""
        sent = self.side.subscribers[self.known[name]].sent
        assert self.side.leave(self.known[name], sent, sent)
        return self._upstream()

    def dispatch(self, *events):
        """Give events to an empty buffer. Return those that nobody has asked for, out of the buffer again."""
        queue = self.side.queue
        assert not queue.size
        assert self.emit(*events) is None
        left: list[Any] = []
        while queue.size:
            left += queue.take(queue.size)[0]
        return left

    def emit(self, *events):
        """Give events, the rest to the buffer. Return those that were refused, or None."""
        return self.side.emit(list(events), len(events), None)

    def received(self):
        """Take out what was sent since the last time, as (name, events)."""
        names = {id(subscription): name for name, subscription in self.known.items()}
        sent = [(names[id(m[1])], m[2]) for _, m in self.port.messages if m[0] == EVENTS]
        self.port.messages.clear()
        return sent

    def pending(self):
        """Return the unmet demand of those who are subscribed."""
        return {name: self.side.subscribers[s].pending for name, s in self.known.items() if s in self.side.subscribers}

    def wanted(self):
        """Return how many events could be delivered now (with an empty buffer)."""
        assert not self.side.queue.size
        return self.side.need() + self.side.requested

    def remembered(self):
        """Return how much was requested upstream that nobody wants any more."""
        return max(0, -self.side.need())

    def idle(self):
        """Let the stage have nothing else to do. Return the demand that went upstream."""
        self.dispatcher.idle()
        return self._upstream()

    def infos(self):
        """Take out the infos that have come through."""
        through = [args[0] for name, args in self.agenda if name == "handle_info"]
        self.agenda.clear()
        return through

    def _upstream(self):
        count = max(0, self.side.need())
        self.side.requested += count
        return count
