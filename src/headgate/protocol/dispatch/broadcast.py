"""The broadcast dispatcher: every event to every subscriber.

Each subscriber has a lane: what was dispatched and it has not asked for yet. With ``slow="block"`` lanes stay empty
(but for a replay): nothing is dispatched beyond the smallest demand, so the slowest sets the pace. With ``"drop"`` and
``"detach"`` the fastest sets the pace and a lane holds up to ``lag`` events; then the oldest are dropped, or the
subscription is cancelled.

Demand is the minimum (or maximum) over those who are subscribed now, computed when it is wanted: it needs no repair
when somebody joins or leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any

from headgate.errors import DispatchError, OptionError, SubscriptionError
from headgate.protocol.batching import Batch, cut, pick, rows
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.ledger import Piece, Subscriber


class _Lane:
    """What was dispatched to one subscriber before it asked for it."""

    __slots__ = ("faulty", "pieces", "selector", "size", "succeeded")

    def __init__(self, selector: Callable[[Any], Any] | None) -> None:
        self.selector = selector
        self.faulty = False  # its selector has raised: it is being cancelled
        self.succeeded = False  # its successor is there already, and gets what comes now
        self.pieces: deque[Piece] = deque()
        self.size = 0

    def put_front(self, pieces: Collection[Piece]) -> None:
        self.pieces.extendleft(reversed([*pieces]))
        self.size += sum(piece[1] for piece in pieces)


class BroadcastDispatcher(Dispatcher):
    """Every event to every subscriber, or to those whose ``To(selector=)`` chooses it.

    Args:
        slow: What a slow subscriber does to the others: ``"block"`` (default) holds them up; ``"drop"``: it loses the
            oldest events beyond ``lag``, counted; ``"detach"``: it is cancelled when it lags further behind.
        lag: Events that may wait for one subscriber under ``"drop"`` and ``"detach"``, and for one that its supervisor
            is about to start again. Default 1000.
        replay: A late joiner first gets the last ``replay`` events again. Default 0: it gets what comes after it.
        wait_for: Nothing is dispatched until so many have subscribed (once). Default 0.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    copies = True
    holds = True
    pools = True

    def __init__(self, *, slow: str = "block", lag: int = 1000, replay: int = 0, wait_for: int = 0) -> None:
        """Check and keep the options."""
        where = type(self).__name__
        if slow not in ("block", "drop", "detach"):
            raise OptionError(where, "slow", "'block', 'drop' or 'detach'", slow)
        for name, value in (("lag", lag), ("replay", replay), ("wait_for", wait_for)):
            if type(value) is not int or value < 0:
                raise OptionError(where, name, "an integer of at least 0", value)
        self._slow = slow
        self._lag = lag
        self._history: deque[Any] = deque(maxlen=replay)
        self._wait_for = wait_for
        self._subscribers: list[Subscriber] = []
        self._away: dict[tuple[str, ...], _Lane] = {}

    def subscribe(self, subscriber: Subscriber) -> None:
        """Accept each consumer once.

        Raises:
            SubscriptionError: It is subscribed already, or its selector cannot be called.
        """
        consumer, producer = subscriber.names()
        if any(other.address is subscriber.address for other in self._subscribers):
            raise SubscriptionError(
                consumer, producer, "expected one subscription of a consumer to a broadcast, it has one already"
            )
        selector = subscriber.terms.selector
        if selector is not None and not callable(selector):
            raise SubscriptionError(
                consumer, producer, f"expected option 'selector' to be a function of an event, got: {selector!r}"
            )
        heir = subscriber.terms.heir
        kept = self._away.pop(heir, None) if heir is not None else None
        lane = subscriber.slot = kept or _Lane(selector)
        lane.selector = selector
        for other in self._subscribers:  # its predecessor, whose leave is still on its way
            if heir is not None and other.terms.heir == heir:
                other.slot.succeeded = True
        self._subscribers.append(subscriber)
        for event in self._history if kept is None else ():
            if selector is None or self._chooses(subscriber, lane, event):
                lane.pieces.append(([event], 1, None))
                lane.size += 1
        self._look()

    def cancel(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:
        """Keep its copies for its successor, if it has one; else count them: the others have their own."""
        self._subscribers.remove(subscriber)
        lane: _Lane = subscriber.slot
        heir = subscriber.terms.heir
        if subscriber.away and heir is not None and not lane.faulty:
            lane.put_front(pieces)
            successor = next((each for each in self._subscribers if each.terms.heir == heir), None)
            if successor is not None:
                successor.slot.put_front(lane.pieces)
                self._drain(successor)
            elif heir in self._away:
                self._away[heir].put_front(lane.pieces)
            else:
                self._away[heir] = lane
        else:
            self._drop((*pieces, *lane.pieces))
        self._look()
        return []

    def forget(self, heir: tuple[str, ...]) -> None:
        """Count what was kept for those."""
        for each in [each for each in self._away if each[: len(heir)] == heir]:
            self._drop(self._away.pop(each).pieces)
        self._look()

    def give_back(self, subscriber: Subscriber, pieces: list[Piece]) -> list[Piece]:  # noqa: ARG002 (the contract's form)
        """Count it."""
        self._drop(pieces)
        return []

    def _drop(self, pieces: Iterable[Piece]) -> None:
        for _, size, token in pieces:
            self.outlet.discard(size, token, "subscriber left")

    def asked(self, subscriber: Subscriber, count: int) -> None:
        """Serve its lane first."""
        if subscriber.slot.size:
            self._drain(subscriber)
        elif self._slow == "block" and subscriber.asked - subscriber.sent - count > self.wanted:
            return  # it was not the slowest before
        self._look()

    def dispatch(self, batch: Batch, size: int, token: Any) -> int:
        """Send the same piece to everybody, as far as demand goes."""
        taken = 0
        while taken < size and self.wanted > 0:
            count = min(size - taken, self.wanted)
            piece = batch if count == size else cut(batch, taken, taken + count)
            self._broadcast(piece, count, token)
            taken += count
            self._look()
        return taken

    def queued(self) -> dict[Any, int]:
        """Return the length of each lane."""
        queued: dict[Any, int] = {each.subscription: each.slot.size for each in self._subscribers if each.slot.size}
        queued.update((heir, lane.size) for heir, lane in self._away.items() if lane.size)
        return queued

    def _look(self) -> None:
        """See what the slowest (``"block"``) or the fastest can take."""
        subscribers = self._subscribers
        self.wanted = 0
        if len(subscribers) < self._wait_for:
            return
        self._wait_for = 0
        if subscribers:
            room = [each.asked - each.sent - each.slot.size for each in subscribers if not each.slot.succeeded]
            if self._away and self._slow == "block":  # they hold the others up only beyond the lag
                room += [self._lag - lane.size for lane in self._away.values()]
            self.wanted = max(0, min(room) if self._slow == "block" else max(room))

    def _broadcast(self, piece: Batch, count: int, token: Any) -> None:
        chosen: list[tuple[Subscriber | None, _Lane, Batch, int]] = []
        for subscriber in list(self._subscribers):
            lane = subscriber.slot
            if lane.succeeded:
                continue
            selected = piece if lane.selector is None else self._select(subscriber, lane, piece)
            chosen.append((subscriber, lane, selected, len(selected)))
        for lane in self._away.values():
            selected = piece if lane.selector is None else self._select(None, lane, piece)
            chosen.append((None, lane, selected, len(selected)))
        if token is not None:  # it stood for `count` events and stands for all copies from now on
            token.settle(count - sum(each[3] for each in chosen))
        for receiver, lane, selected, size in chosen:
            if size:
                self._put(receiver, lane, selected, size, token)
        if self._history.maxlen:
            self._history.extend(rows(piece))

    def _select(self, subscriber: Subscriber | None, lane: _Lane, piece: Batch) -> Batch:
        """Return what the subscriber chooses; a selector that raises costs only its own subscription."""
        indices = [index for index, event in enumerate(rows(piece)) if self._chooses(subscriber, lane, event)]
        return piece if len(indices) == len(piece) else pick(piece, indices)

    def _chooses(self, subscriber: Subscriber | None, lane: _Lane, event: Any) -> bool:
        if lane.faulty or lane.selector is None:
            return not lane.faulty
        try:
            return bool(lane.selector(event))
        except Exception as error:  # noqa: BLE001 (the user's function)
            fault = DispatchError(
                self.outlet.name, "selector", "a truth value", f"{type(error).__name__}: {error}", event
            )
            fault.__cause__ = error
            self.outlet.report(fault)
            if subscriber is not None:  # one that is away is only told of what it did not choose
                lane.faulty = True
                self.outlet.detach(subscriber, fault)
            return False

    def _put(self, subscriber: Subscriber | None, lane: _Lane, batch: Batch, size: int, token: Any) -> None:
        if subscriber is not None and not lane.size and size <= subscriber.pending:
            self.outlet.deliver(subscriber, batch, size, token)
            return
        lane.pieces.append((batch, size, token))
        lane.size += size
        if subscriber is not None:
            self._drain(subscriber)
        if self._slow == "block" or lane.size <= self._lag:
            return
        if self._slow == "detach" and subscriber is not None:
            self.outlet.detach(subscriber, ("lagged", lane.size))
            return
        while lane.size > self._lag:
            old, length, origin = lane.pieces.popleft()
            excess = min(length, lane.size - self._lag)
            if excess < length:
                rest = None if origin is None else origin.part(excess, length)
                lane.pieces.appendleft((cut(old, excess, length), length - excess, rest))
            lane.size -= excess
            self.outlet.discard(excess, origin, "slow subscriber")

    def _drain(self, subscriber: Subscriber) -> None:
        lane = subscriber.slot
        while lane.pieces and (room := subscriber.asked - subscriber.sent) > 0:
            batch, size, token = lane.pieces.popleft()
            if size > room:
                rest = None if token is None else token.part(room, size)
                lane.pieces.appendleft((cut(batch, room, size), size - room, rest))
                batch, size, token = cut(batch, 0, room), room, None if token is None else token.part(0, room)
            lane.size -= size
            self.outlet.deliver(subscriber, batch, size, token)
