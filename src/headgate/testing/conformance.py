"""`check_dispatcher`: does a dispatcher keep the contract of `headgate.protocol.dispatch.base`?

It runs the dispatcher on its own, against an outlet that keeps the books: random subscribers ask, leave, acknowledge
and hand back, events are dispatched and infos are held, all from a seed. After every call the books are compared.
"""

# ruff: noqa: S311 (chance for tests)
from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from headgate.errors import SubscriptionError
from headgate.protocol.batching import cut
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.ledger import Piece, Subscriber
from headgate.protocol.messages import Subscription, Terms

STEPS = 60
"""Calls of one seed."""


class ConformanceError(AssertionError):
    """A dispatcher, or a source, has broken its contract.

    Attributes:
        rule: Which part of it.
        seed: With which seed of `check_dispatcher` or `check_source`.
    """

    def __init__(self, rule: str, seed: int, text: str, calls: list[str]) -> None:
        """Name the rule and show the calls that led to it."""
        shown = "\n  ".join(calls[-12:])
        super().__init__(f"[{rule}] {text} (seed {seed}); the last calls:\n  {shown}")
        self.rule = rule
        self.seed = seed


class Place:
    """The address of a subscriber."""

    def __init__(self, name: str) -> None:
        """Have a name, for errors."""
        self.name = name


class Token:
    """Counts how many of its events are settled. A broadcast may settle a negative number: it has made copies."""

    def __init__(self, size: int) -> None:
        """Stand for ``size`` events."""
        self.left = size

    def settle(self, count: int) -> None:
        """Take ``count`` off."""
        self.left -= count

    def part(self, start: int, stop: int) -> Token:  # noqa: ARG002 (a Token's form)
        """Return itself: it only counts."""
        return self


class Books:
    """The outlet that a dispatcher is bound to: it notes everything and checks what it can."""

    def __init__(self, seed: int, rng: Random) -> None:
        """Start with empty books."""
        self.name = "checked"
        self.seed = seed
        self.rng = rng
        self.calls: list[str] = []
        self.subscribers: list[Subscriber] = []
        self.delivered: list[tuple[Subscriber, Any]] = []
        self.discarded = 0
        self.reasons: Counter[str] = Counter()
        self.released: list[Any] = []
        self.detached: list[Subscriber] = []
        self.spilled: list[list[Any]] = []
        self.untokened = 0

    def fail(self, rule: str, text: str) -> ConformanceError:
        """Make an error."""
        return ConformanceError(rule, self.seed, text, self.calls)

    def deliver(self, subscriber: Subscriber, batch: Any, size: int, token: Any) -> None:
        """Note a delivery; it must not exceed the demand."""
        if all(subscriber is not other for other in self.subscribers):
            raise self.fail("deliver-closed", "it delivered to somebody who is not subscribed")
        if len(batch) != size or size < 1:
            raise self.fail("deliver-size", f"it delivered {batch!r} as {size} events")
        if size > subscriber.pending:
            raise self.fail("beyond-demand", f"it delivered {size} events to one who wants {subscriber.pending}")
        subscriber.sent += size
        subscriber.ledger.append((batch, size, token))
        self.delivered += [(subscriber, event) for event in batch]
        if token is None:
            self.untokened += size

    def discard(self, size: int, token: Any, reason: str) -> None:
        """Note what goes nowhere."""
        if size < 1 or not reason:
            raise self.fail("discard", f"it discarded {size} events for {reason!r}")
        self.discarded += size
        self.reasons[reason] += size
        if token is not None:
            token.settle(size)

    def detach(self, subscriber: Subscriber, reason: Any) -> None:  # noqa: ARG002 (the outlet's form)
        """Note who is to be cancelled."""
        if all(subscriber is not other for other in self.detached):
            self.detached.append(subscriber)

    def release(self, info: Any) -> None:
        """Note an info that may pass."""
        self.released.append(info)

    def report(self, error: Exception) -> None:
        """Take errors that end nothing."""

    def warn(self, text: str) -> None:
        """Take warnings."""

    def shuffle(self, items: list[Any]) -> None:
        """Shuffle."""
        self.rng.shuffle(items)

    def spill(self, name: str) -> Any:  # noqa: ARG002 (the outlet's form)
        """Open a store."""
        return deque()


class _Run:
    """One seed."""

    def __init__(
        self, make: Callable[[], Dispatcher], seed: int, events: Callable[[int], Any], terms: Callable[[int], Terms]
    ) -> None:
        self.rng = Random(seed)
        self.books = Books(seed, self.rng)
        self.dispatcher = make()
        self.dispatcher.bind(self.books)
        self.event = events
        self.terms = terms
        self.number = 0  # events made
        self.joined = 0
        self.tokens: list[Token] = []
        self.waiting: list[Piece] = []  # what came back, to be dispatched again
        self.infos: list[tuple[int, int]] = []  # number of an info, and of the events taken before it
        self.given = 0
        self.taken = 0
        self.acked = 0
        self.copied = self.dispatcher.copies

    def run(self) -> None:
        """Make random calls and check after each."""
        kinds = [self.subscribe, self.leave, self.hold, self.idle, *[self.ask] * 3, *[self.dispatch] * 2]
        for _ in range(STEPS):
            self.rng.choice(kinds)()
            self.detach()
            self.check()

    def subscribe(self) -> None:
        if len(self.books.subscribers) < 4:  # noqa: PLR2004 (enough)
            self.join(self.terms(self.rng.randrange(4)))

    def join(self, terms: Terms) -> None:
        books = self.books
        self.joined += 1
        subscription = Subscription(self.joined, Place("checked"), Place(f"consumer-{self.joined}"), terms)
        subscriber = Subscriber(subscription)
        before = (self.dispatcher.wanted, self.dispatcher.queued())
        books.calls.append(f"subscribe {subscription.id} {subscription.terms}")
        books.subscribers.append(subscriber)
        try:
            self.dispatcher.subscribe(subscriber)
        except SubscriptionError:
            books.subscribers.remove(subscriber)
            if before != (self.dispatcher.wanted, self.dispatcher.queued()):
                raise books.fail("refusal", "it refused a subscriber, and changed") from None

    def ask(self) -> None:
        if not self.books.subscribers:
            return
        subscriber = self.rng.choice(self.books.subscribers)
        count = self.rng.randint(1, 6)
        self.books.calls.append(f"ask {subscriber.subscription.id} {count}")
        subscriber.asked += count
        self.dispatcher.asked(subscriber, count)

    def dispatch(self) -> None:
        books, dispatcher = self.books, self.dispatcher
        size = self.rng.randint(1, 8)
        if self.waiting:
            batch, size, token = self.waiting.pop(0)
        else:
            batch = [self.event(self.number + index) for index in range(size)]
            self.number += size
            token = Token(size)
            self.tokens.append(token)
            self.given += size
        before, wanted = self.held(), dispatcher.wanted
        accounted = len(books.delivered) + books.discarded
        books.calls.append(f"dispatch {batch} (wanted {wanted})")
        taken = dispatcher.dispatch(batch, size, token)
        if type(taken) is not int or not 0 <= taken <= size:
            raise books.fail("taken", f"it says that it took {taken!r} of {size}")
        if wanted > 0 and not taken:
            raise books.fail("wanted", f"it wanted {wanted} and took none of {size}")
        if taken < size and dispatcher.wanted > 0:
            raise books.fail("wanted", f"it took {taken} of {size} and wants {dispatcher.wanted} more")
        gone = len(books.delivered) + books.discarded - accounted + self.held() - before
        if not self.copied and gone != taken:
            raise books.fail("conservation", f"it took {taken}, and delivered, discarded or queued {gone}")
        self.taken += taken
        if taken < size:
            self.waiting.insert(0, (cut(batch, taken, size), size - taken, token))

    def leave(self) -> None:
        books = self.books
        if not books.subscribers or self.rng.random() < 0.5:  # noqa: PLR2004 (leave seldom)
            return
        self.cancel(self.rng.choice(books.subscribers), expelled=self.rng.random() < 0.3)  # noqa: PLR2004 (some)

    def cancel(self, subscriber: Subscriber, *, expelled: bool) -> None:
        books, dispatcher = self.books, self.dispatcher
        self.acked += subscriber.ack(subscriber.acked + self.rng.randint(0, subscriber.in_flight))
        pieces = [] if expelled else subscriber.unacked()
        books.subscribers.remove(subscriber)
        before, discarded = self.held(), books.discarded
        books.calls.append(f"cancel {subscriber.subscription.id} (comes back: {pieces})")
        returned = dispatcher.cancel(subscriber, list(pieces))
        self.returned(pieces, returned, before, discarded)
        if expelled:
            pieces = subscriber.unacked()
            before, discarded = self.held(), books.discarded
            books.calls.append(f"give_back {subscriber.subscription.id} ({pieces})")
            accounted = len(books.delivered)
            returned = dispatcher.give_back(subscriber, list(pieces))
            self.returned(pieces, returned, before - (len(books.delivered) - accounted), discarded)

    def returned(self, pieces: list[Piece], returned: list[Piece], before: int, discarded: int) -> None:
        books = self.books
        back = [event for batch, _, _ in returned for event in batch]
        came = [event for batch, _, _ in pieces for event in batch]
        if [event for event in came if event in back] != back:
            raise books.fail("return-order", f"{came} came back, it returned {back}")
        if not self.copied and len(back) + self.held() - before + books.discarded - discarded != len(came):
            raise books.fail(
                "conservation", f"{len(came)} events came back, it returned {len(back)} and kept {self.held() - before}"
            )
        self.waiting[:0] = returned

    def detach(self) -> None:
        """Do what a stage does for those that the dispatcher wants to be rid of."""
        detached, self.books.detached = self.books.detached, []
        for subscriber in detached:
            if any(subscriber is other for other in self.books.subscribers):
                self.cancel(subscriber, expelled=True)

    def hold(self) -> None:
        if self.rng.random() < 0.7:  # noqa: PLR2004 (seldom)
            return
        info = len(self.infos)
        queued = self.held()
        self.books.calls.append(f"hold {info}")
        held = self.dispatcher.hold(("info", info))
        if held:
            if not queued:
                raise self.books.fail("info", "it holds an info although nothing is queued")
            self.infos.append((info, len(self.books.delivered) + self.books.discarded + queued))

    def idle(self) -> None:
        self.books.calls.append("idle")
        self.dispatcher.idle()

    def held(self) -> int:
        """Return how many events wait inside."""
        return sum(self.dispatcher.queued().values())

    def check(self) -> None:
        """Compare the books."""
        books, dispatcher = self.books, self.dispatcher
        wanted = dispatcher.wanted
        room = sum(each.pending for each in books.subscribers)
        if type(wanted) is not int or wanted < 0:
            raise books.fail("wanted", f"it wants {wanted!r} events")
        if wanted > room:
            raise books.fail("wanted", f"it wants {wanted} events, its subscribers {room}")
        if not self.copied:
            flight = sum(each.in_flight for each in books.subscribers)
            waiting = sum(size for _, size, _ in self.waiting)
            acked = self.acked
            if self.given != acked + flight + waiting + self.held() + books.discarded:
                raise books.fail(
                    "conservation",
                    f"of {self.given} events {acked} are handled, {flight} in flight, {waiting} wait, {self.held()} "
                    f"are queued inside, {books.discarded} discarded",
                )
        for index, (_, info) in enumerate(books.released):
            if index != info:
                raise books.fail("info", f"info {info} came before info {index}")
        if len(books.released) < len(self.infos) and not self.held():
            raise books.fail("info", "it still holds an info although nothing is queued")


def check_dispatcher(
    make: Callable[[], Dispatcher],
    *,
    events: Callable[[int], Any] | None = None,
    terms: Callable[[int], Terms] | None = None,
    seeds: Iterable[int] = range(200),
) -> None:
    """Check a dispatcher against the contract.

    What is checked: nobody gets more than asked; `dispatch` takes a prefix, at least one event while ``wanted`` is
    positive, and everything it took is delivered, discarded or queued inside; tokens go along and are settled once;
    ``wanted`` is true after each call; whoever is refused is refused without a change; what a leaving subscriber hands
    back is kept or returned in order; infos that are held come out in order, and not before what they wait for.

    Args:
        make: Makes a fresh dispatcher.
        events: Number -> event. Default: the number itself.
        terms: A number from 0 to 3 -> the terms of a subscription. Default: ``partition`` is that number.
        seeds: Each makes 60 random calls.

    Raises:
        ConformanceError: The contract is broken; it names the rule and shows the calls.
    """
    for seed in seeds:
        run = _Run(make, seed, events or _number, terms or _terms)
        run.run()
        _settle(run)
        _check_queue(make, seed, events or _number)


def _settle(run: _Run) -> None:
    """Let everybody acknowledge everything and ask for much: all has to come out, and each token be settled."""
    books, dispatcher = run.books, run.dispatcher
    for number in range(4):
        run.join(run.terms(number))
    for _ in range(200):
        for subscriber in list(books.subscribers):
            run.acked += subscriber.ack(subscriber.sent)
            subscriber.asked += 50
            dispatcher.asked(subscriber, 50)
            run.detach()
        dispatcher.idle()
        if not run.waiting:
            break
        run.dispatch()
        run.check()
    for subscriber in books.subscribers:
        run.acked += subscriber.ack(subscriber.sent)
    run.check()
    if run.waiting and books.subscribers:
        raise books.fail("wanted", f"{run.waiting} is left although everybody asks")
    unsettled = [token.left for token in run.tokens if token.left]
    if unsettled and books.subscribers and not run.held():
        raise books.fail("tokens", f"everything is handled, and tokens are left with {unsettled}")


def _check_queue(  # noqa: C901 (one walk)
    make: Callable[[], Dispatcher], seed: int, event: Callable[[int], Any]
) -> None:
    """Check the dispatcher's queue: what goes in comes out once, and infos not before what they wait for."""
    rng = Random(seed)
    books = Books(seed, rng)
    dispatcher = make()
    dispatcher.bind(books)
    queue = dispatcher.queue()
    inside: list[Any] = []
    infos: list[tuple[int, list[Any]]] = []  # and the events that have to leave before it
    out: list[Piece] = []
    number = held = 0

    def gone(pieces: Iterable[Piece]) -> None:
        for batch, size, _ in pieces:
            if len(batch) != size:
                raise books.fail("queue", f"it gave {batch!r} as {size} events")
            for each in batch:
                if each not in inside:
                    raise books.fail("queue", f"it gave {each!r}, which is not inside")
                inside.remove(each)
                for _, before in infos:
                    if each in before:
                        before.remove(each)

    for _ in range(STEPS):
        kind = rng.choice(("put", "take", "take", "front", "shed", "hold"))
        size = rng.randint(1, 6)
        books.calls.append(f"{kind} {size} (size {queue.size}, ready {queue.ready()})")
        if kind == "put":
            batch = [event(number + index) for index in range(size)]
            number += size
            inside += batch
            queue.put(batch, size, Token(size))
        elif kind == "take" and queue.ready() > 0:
            piece = queue.take(size)
            if not 1 <= piece[1] <= size:
                raise books.fail("queue", f"it gave {piece[1]} events when asked for up to {size}")
            gone([piece])
            out.append(piece)
        elif kind == "front" and out:
            pieces = [out.pop()]
            for _, before in infos:
                before.extend(pieces[0][0])
            inside += pieces[0][0]
            queue.put_front(pieces)
        elif kind == "shed" and queue.size:
            count = min(size, queue.size)
            shed = queue.shed(count)
            if sum(piece[1] for piece in shed) != count:
                raise books.fail("queue", f"it was to shed {count} and gave {shed}")
            gone(shed)
        elif kind == "hold":
            if queue.hold(("info", held)) != bool(inside):
                raise books.fail(
                    "queue", f"it says that it holds an info: {not inside}, there are {len(inside)} events"
                )
            if inside:
                infos.append((held, list(inside)))
                held += 1
        for released in queue.released():
            expected, before = infos.pop(0)
            if released != ("info", expected) or before:
                raise books.fail("info", f"{released} came before {before}")
        if infos and not inside:
            raise books.fail("info", f"it is empty and still holds {infos}")
        if queue.size != len(inside) or not 0 <= queue.ready() <= queue.size:
            raise books.fail("queue", f"it says {queue.ready()} of {queue.size} are ready, {len(inside)} are inside")
        while len(out) > 3 or (inside and not queue.ready() and out):  # noqa: PLR2004 (some are in flight)
            batch, size, token = out.pop(0)
            token.settle(size)


def _number(number: int) -> int:
    return number


def _terms(number: int) -> Terms:
    return Terms(partition=number)
