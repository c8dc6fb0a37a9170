"""What has to be true after every single step. Each oracle looks at one stage, or at one message on its way.

They recompute from the state, by other means than the protocol does, whatever can be recomputed; the rest are
comparisons between the two ends of an edge, or with what the world saw go by.
"""

# ruff: noqa: SLF001 (a white-box test kit)
# pyright: reportPrivateUsage=false
from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from headgate.protocol import messages as m
from headgate.protocol.buffer import Buffer
from headgate.protocol.dispatch.broadcast import BroadcastDispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.dispatch.keyed import FairQueue
from headgate.protocol.dispatch.partition import PartitionDispatcher
from headgate.protocol.ledger import Subscriber
from headgate.protocol.producer import ProducerSide

if TYPE_CHECKING:
    from headgate.testing.simulation.world import Edge, Site


class Violation(AssertionError):  # noqa: N818 (a broken rule, found by a check)
    """A rule of the protocol was broken.

    Attributes:
        rule: The short name of the rule.
    """

    def __init__(self, rule: str, text: str) -> None:
        """Name the rule and say what was found."""
        super().__init__(rule, text)
        self.rule = rule
        self.text = text

    def __str__(self) -> str:
        """Say it in one line."""
        return f"[{self.rule}] {self.text}"


# -- messages on their way ---------------------------------------------------------------------------------------------


def asked(site: Site, message: m.Message) -> None:
    """An ask: its totals never fall, and it says something new."""
    _, edge, total, acked = message
    window = site.core.into.windows.get(edge) if site.core.into is not None else None
    if window is None or not window.open:
        raise Violation("ask-on-closed", f"{edge} asked after its end")
    if total < edge.asked:
        raise Violation("ask-total", f"{edge} asked for {total} in total after {edge.asked}")
    if total == edge.asked and acked <= edge.acked:
        raise Violation("ask-zero", f"{edge} sent an ask that says nothing new ({total}, {acked})")
    if acked > edge.taken or acked > window.handled + _at_hand(site, window):
        raise Violation("ack-early", f"{edge} acknowledged {acked} of {window.handled} handled, {edge.taken} received")
    if total > edge.asked and site.core.state == "finishing" and not window.manual:
        raise Violation("ask-finishing", f"{edge} asked for more although {site} is finishing")
    edge.asked = total
    edge.acked = acked
    edge.asks += 1


def sent(site: Site, edge: Edge, batch: Any) -> None:
    """Events: never more than asked, nothing after the end, first deliveries in the order of emission."""
    if site.has_ended:
        raise Violation("events-after-end", f"{site} sent {list(batch)} after its end")
    size = len(batch)
    edge.starts.add(edge.sent)
    edge.sent += size
    if edge.sent > edge.asked:
        raise Violation("beyond-demand", f"{edge} was sent {edge.sent} events, {edge.asked} were asked for")
    if not size:
        raise Violation("empty-batch", f"{edge} was sent no events")
    edge.stream.extend(batch)
    delivered, emitted, key = site.delivered, site.emitted, site.slot.key
    first = edge.first
    if site.core._draining and type(site.core.out.dispatcher) is DemandDispatcher:
        raise Violation("sent-draining", f"{site} sent {list(batch)} although it drains")
    site.world.clock += 1
    for event in batch:
        number = emitted.get(event)
        if event in delivered and not site.slot.copies:
            if key is not _UNORDERED and site.orderly and number is not None:
                _again(site, edge, event, number, None if key is None else key(event))
            continue
        if number is None:
            raise Violation("unexpected", f"{site} sent {event}, which it never emitted")
        if key is not _UNORDERED and site.orderly:
            name = None if key is None else key(event)
            if number <= first.get(name, -1):
                raise Violation("reordered", f"{edge} was sent {event} after newer events: {list(batch)}")
            first[name] = number
            edge.at[name] = site.world.clock
    if site.slot.ranked is not None:
        site.slot.ranked(site, batch)
    delivered.update(batch)


def back(site: Site, edge: Edge) -> None:
    """A consumer leaves or has left: what it did not handle is the producer's again, from now on."""
    world = site.world
    world.clock += 1
    site.returned.update((event, (world.clock, place)) for place, event in enumerate(edge.stream))
    if len(edge.stream) < edge.asked:  # its leave may be held, so that more is sent to it before it takes effect
        site.gone.append(edge)


def _again(site: Site, edge: Edge, event: Any, number: int, name: Any) -> None:
    """What came back goes ahead of events that were never sent, and what came back together goes in its order."""
    clock, place = site.returned.pop(event, (0, 0))
    if not clock:
        if not any(event in other.stream for other in site.gone):
            raise Violation("sent-twice", f"{edge} was sent {event}, which had been sent and has not come back")
        return  # nobody knows when
    if number < edge.first.get(name, -1) and clock < edge.at[name]:
        raise Violation("reordered", f"{edge} was sent {event}, which had come back, after newer events")
    if place <= edge.newest.get((name, clock), -1):
        raise Violation("reordered", f"{edge} was sent {event} after others that had come back with it")
    edge.newest[name, clock] = place


_UNORDERED = object()
UNORDERED = _UNORDERED
_EVENTS = (m.EVENTS, m.REDELIVERED)


def _at_hand(site: Site, window: Any) -> int:
    """Return how many events the handler has of a window; those that are deferred may be settled before it returns."""
    into = site.core.into
    return int(into.size) if into is not None and into.window is window and site.slot.plain else 0


def left(site: Site, message: m.Message) -> None:
    """A leave: a middle stage that dies explains as many repetitions as it leaves handled and unacknowledged inputs."""
    _, edge, end, acked, handled = message
    into = site.core.into
    window = into.windows.get(edge) if into is not None else None
    if into is None or window is None:
        return
    if acked > window.handled + _at_hand(site, window) or handled > window.handled + _at_hand(site, window):
        raise Violation("ack-early", f"{edge} left with ({acked}, {handled}), {window.handled} were handled")
    if end.finished and acked != window.handled:
        raise Violation("unfinished", f"{site} has finished, and left {edge} with {acked} of {window.handled}")
    if end.kind == "down" and site.core.out is not None:
        at_hand = into.size if into.window is window else 0
        site.world.allowed += (window.handled + at_hand - acked) * site.slot.factor


# -- callbacks ---------------------------------------------------------------------------------------------------------


def begun(site: Site, callback: tuple[str, tuple[Any, ...]]) -> None:
    """A callback: not after the end, events in the order in which they were sent, within the window's size."""
    core = site.core
    name, args = callback
    if site.has_ended:
        raise Violation("callback-after-end", f"{site} has ended and is to run {name}")
    if core.paused and name in (m.HANDLE_EVENTS, m.HANDLE_DEMAND):
        raise Violation("paused", f"{site} is paused and is to run {name}")
    if name == m.HANDLE_EVENTS:
        assert core.into is not None  # noqa: S101 (for the type checker)
        batch, edge = args
        window = core.into.windows.get(edge)
        if window is None or not window.open:
            raise Violation("handled-on-closed", f"{site} is to handle events of {edge}, which has ended")
        size = len(batch)
        if not 0 < size <= window.size:
            raise Violation(
                "batch-size", f"{site} is to handle {size} events of {edge}, its batches are of {window.size}"
            )
        if list(batch) != edge.stream[edge.begun : edge.begun + size]:
            raise Violation(
                "handled-order", f"{site} is to handle {list(batch)}, next on {edge} is {edge.stream[edge.begun :]}"
            )
        out = core.out
        if (
            out is not None
            and edge.begun in edge.starts
            and _wanted(out) <= (out.queue.ready() if out.queue.size else 0)
        ):
            raise Violation("unwanted-work", f"{site} is to handle a message although no more output is wanted")
        site.world.blame.begun(site, edge, batch, window.deliveries)
        edge.begun += size
    elif name == m.HANDLE_DEMAND:
        if core.state != "running":
            raise Violation("demand-finishing", f"{site} is {core.state} and is asked for {args[0]} events")
        if args[0] < 1:
            raise Violation("demand-zero", f"{site} is asked for {args[0]} events")
        if core.out is not None and core.out.accumulating:
            raise Violation("demand-held", f"{site} is asked for {args[0]} events while it accumulates")
    elif name == m.HANDLE_INFO and site.infos:
        _info(site, args[0])


def info_given(site: Site, message: Any) -> None:
    """Remember what comes before an info that is given now."""
    if not site.has_ended and m.HANDLE_INFO in site.slot.defined:
        site.infos.append((message, site.emissions, [(edge, edge.taken) for edge in site.edges]))


def _info(site: Site, message: Any) -> None:
    if all(message != other for other, _, _ in site.infos):
        return
    wanted, emissions, before = site.infos.popleft()
    if wanted != message:
        raise Violation("info-order", f"{site} got {message} before {wanted}")
    for edge, taken in before:
        window = site.core.into.windows.get(edge) if site.core.into is not None else None
        if window is not None and window.open and edge.begun < taken:
            raise Violation(
                "info-early", f"{site} got {message} before {taken - edge.begun} events that it had of {edge}"
            )
    out = site.core.out
    if out is None or (not out.queue.ordered and site.slot.key is _UNORDERED):
        return
    late = [event for event, number in site.emitted.items() if number < emissions and event not in site.delivered]
    if len(late) > sum(out.discarded.values()) and not site.slot.copies:
        raise Violation("info-early", f"{site} got {message} before these had left: {late}")


def ended(site: Site) -> None:
    """The end of a stage: every call is answered or will be; events of a lost source are excused."""
    world = site.world
    site.infos.clear()
    if site.core._finished and any(writer is site for writer, _, _ in world.blame.unsafe):
        raise Violation("letter-unsafe", f"{site} has finished before its dead letters were safe")
    out = site.core.out
    if site.edges or out is None:
        return
    if not site.core._finished:
        world.excused.update(event[:2] for event in site.emitted)
    elif site.core._draining:
        world.kept.update(waiting(out.queue))
        if isinstance(out.dispatcher, PartitionDispatcher):
            world.kept.update(event for lane in out.dispatcher._lanes.values() for event in _in_lane(lane))


# -- one stage ---------------------------------------------------------------------------------------------------------


def look(site: Site) -> None:
    """Check one stage and its edges."""
    core = site.core
    out, into = core.out, core.into
    if core.state == "ended":
        if core.callback is not None:
            raise Violation("callback-after-end", f"{site} has ended and is to run {core.callback[0]}")
        return
    held = [*(() if out is None else out.asks), *core.held]
    if core.callback is None and (core.agenda or held):
        raise Violation("idle", f"{site} has no callback, and {core.agenda or held} waits")
    if out is not None:
        _look_out(site, out)
        for edge, subscriber in out.subscribers.items():
            _look_sender(edge, subscriber, held)
    if into is not None:
        at_most = 0
        for edge, window in into.windows.items():
            at_most += _look_receiver(site, edge, window, held)
        if (
            core.callback is None
            and not core.paused
            and out is not None
            and into.work
            and into.work[0][2] > 0
            and not out.accumulating
        ):
            need = _wanted(out) - out.queue.ready()
            if need > 0 and (core._limit is None or out.queue.size < core._limit):
                raise Violation("stalled-work", f"{site} has work, and {need} more outputs are wanted")


def _look_sender(edge: Edge, subscriber: Subscriber, held: Any) -> None:
    if subscriber.sent > subscriber.asked:
        raise Violation("beyond-demand", f"{edge}: sent {subscriber.sent} of {subscriber.asked}")
    if subscriber.sent != edge.sent:
        raise Violation("conservation", f"{edge}: its producer counts {subscriber.sent} sent, {edge.sent} were")
    if subscriber.acked > edge.begun:
        raise Violation("ack-early", f"{edge}: {subscriber.acked} are acknowledged, {edge.begun} were begun")
    if not edge.asks and not held and subscriber.asked != edge.asked:
        raise Violation(
            "demand-conservation", f"{edge}: asked for {edge.asked}, its producer counts {subscriber.asked}"
        )
    if subscriber.early and len(subscriber.ledger) > 2 * subscriber.in_flight + 1:
        raise Violation("ledger", f"{edge}: {len(subscriber.ledger)} pieces for {subscriber.in_flight} events")
    if subscriber.corked:
        raise Violation("corked", f"{edge}: {subscriber.corked} is held back")


def _look_receiver(site: Site, edge: Edge, window: Any, held: Any) -> int:
    if not window.open:
        return 0
    if window.asked != edge.asked:
        raise Violation("demand-conservation", f"{edge}: counts {window.asked} asked, sent asks for {edge.asked}")
    unseen = sum(len(each[2]) for each in held if each[0] in _EVENTS and each[1] is edge) if held else 0
    if window.received + unseen != edge.taken:
        raise Violation("conservation", f"{edge}: counts {window.received} received, was given {edge.taken}")
    if not window.manual and window.asked - window.handled > window.most:
        raise Violation("window", f"{edge}: {window.asked - window.handled} are out, max_demand is {window.most}")
    if (
        not window.manual
        and window.asked
        and window.asked - window.handled <= window.least
        and site.core.state == "running"
    ):
        raise Violation(
            "window", f"{edge}: {window.asked - window.handled} are out, min_demand is {window.least}: it should ask"
        )
    begun = window.handled + _at_hand(site, window)
    if not (window.told <= window.acked <= begun <= window.received <= window.asked and window.handled <= begun):
        raise Violation(
            "totals",
            f"{edge}: told, acked, handled, received, asked = "
            f"{window.told, window.acked, window.handled, window.received, window.asked}",
        )
    if window.acked != window.told and not site.owes:
        raise Violation("ack-forgotten", f"{edge}: {window.acked - window.told} acknowledgements will never be sent")
    if site.core.out is None and window.origins and not site.owes:
        left = sum(1 for origin in window.origins if origin.left)
        if any(not origin.left and not origin.told for origin in window.origins):
            raise Violation("settled-forgotten", f"{edge}: what is done ahead of others will never be told")
        if len(window.origins) > 2 * left + 1:
            raise Violation("ledger", f"{edge}: its consumer has {len(window.origins)} records for {left} events")
    return int(window.most)


def _look_out(site: Site, out: ProducerSide) -> None:
    core = site.core
    queue, dispatcher = out.queue, out.dispatcher
    queued = sum(dispatcher.queued().values())
    size = queue.size
    if size < 0 or out.requested < 0 or dispatcher.wanted < 0:
        raise Violation("negative", f"{site}: queue {size}, requested {out.requested}, wanted {dispatcher.wanted}")
    if not site.slot.copies:
        if out.closing or len(out.subscribers) != 1:
            flight = out.in_flight()
        else:
            (only,) = out.subscribers.values()
            flight = only.sent - only.acked - only.early
        lost = sum(out.discarded.values()) if out.discarded else 0
        if out.emitted != out.handled + flight + size + queued + lost:
            raise Violation(
                "conservation",
                f"{site}: emitted {out.emitted}, handled {out.handled}, in flight {flight}, buffered {size}, "
                f"queued {queued}, discarded {out.discarded}",
            )
    wanted = _wanted(out)
    if wanted != dispatcher.wanted and out.single is None:
        raise Violation("wanted", f"{site}: its dispatcher wants {dispatcher.wanted}, its subscribers {wanted}")
    if dispatcher.absorbed and not site.owes:
        raise Violation("absorbed", f"{site}: demand is absorbed, and nobody will look at it again")
    ready = queue.ready() if size else 0
    if not out.accumulating:
        if ready > 0 and wanted > 0:
            raise Violation("held-back", f"{site}: {ready} events wait, {wanted} are wanted")
        if core.source and core.callback is None and core.plain and wanted > out.requested + ready:
            limit = core._limit
            if limit is None or not size or size + out.requested < limit:
                raise Violation(
                    "demand-forgotten", f"{site}: {wanted} wanted, {out.requested} asked for, {ready} on hand"
                )
    if core.source:
        limit = core._limit
        if limit is not None and size > limit:
            fresh = [event for event in waiting(queue) if event not in site.delivered]
            if len(fresh) > limit:  # what came back does not count
                raise Violation("bound", f"{site}: {len(fresh)} events in a buffer of {limit}")
    if size or queued:
        _look_queue(site, out)
    if type(queue) is FairQueue and queue._cap is not None:
        _look_caps(site, out, queue)


def waiting(queue: Any) -> list[Any]:
    """Return the events in a queue."""
    if isinstance(queue, Buffer):
        return [event for item in queue._items if type(item) is tuple for event in item[0]]
    front = [event for batch, _, _ in queue._front for event in batch]
    if isinstance(queue, FairQueue):
        return front + [entry[0] if queue._marked else entry for key in queue._keys.values() for entry in key]
    return front + [entry[0] for entry in queue._returned] + [item[2][0] for item in queue._heap]


def _wanted(out: ProducerSide) -> int:
    """Recompute what the subscribers want together."""
    dispatcher = out.dispatcher
    subscribers = out.subscribers.values()
    if isinstance(dispatcher, DemandDispatcher):
        if out.single is not None and [out.single] != list(subscribers):
            raise Violation(
                "single", f"{out.name} takes {out.single.subscription} for the only one of {list(out.subscribers)}"
            )
        wanted = 0
        for each in subscribers:
            wanted += each.asked - each.sent
        return wanted
    if isinstance(dispatcher, BroadcastDispatcher):
        if not subscribers or dispatcher._wait_for:
            return 0
        room = [each.asked - each.sent - each.slot.size for each in subscribers]
        return int(max(0, min(room) if dispatcher._slow == "block" else max(room)))
    if isinstance(dispatcher, PartitionDispatcher):
        if dispatcher._stuck == "block" and any(
            lane.size >= dispatcher._queue_size for lane in dispatcher._lanes.values()
        ):
            return 0
        unmet = sum(each.asked - each.sent for each in subscribers if not each.slot.size)
        least = 0 if dispatcher.absorbed else 1  # what waits for others may count against it until the stage is idle
        return dispatcher.wanted if min(unmet, least) <= dispatcher.wanted <= unmet else int(unmet)
    return dispatcher.wanted


def _look_queue(site: Site, out: ProducerSide) -> None:
    """What came back stands before what was never sent; a partition's queue is in the order of emission."""
    queue, dispatcher = out.queue, out.dispatcher
    delivered = site.delivered
    if queue.ordered and site.orderly and not site.slot.copies:
        fresh = False
        count = 0
        for item in queue._items:  # type: ignore[attr-defined]  # the Buffer
            if type(item) is not tuple:
                continue
            count += item[1]
            for event in item[0]:
                if event not in delivered:
                    fresh = True
                elif fresh:
                    raise Violation("returned-behind", f"{site}: {event} came back and stands behind newer events")
        if count != queue.size:
            raise Violation("conservation", f"{site}: its buffer counts {queue.size} events and has {count}")
    if isinstance(dispatcher, PartitionDispatcher):
        emitted = site.emitted
        for lane in dispatcher._lanes.values():
            if not lane.size:
                continue
            numbers = [emitted[event] for event in _in_lane(lane)]
            if len(numbers) != lane.size:
                raise Violation("conservation", f"{site}: partition {lane.name} counts {lane.size}, has {len(numbers)}")
            if site.orderly and any(after < before for before, after in pairwise(numbers)):
                raise Violation("reordered", f"{site}: partition {lane.name} is out of order: {numbers}")
            if dispatcher._stuck == "shed" and lane.size > dispatcher._queue_size and lane.subscriber is not None:
                seen = sum(1 for item in lane.pieces if type(item) is tuple for event in item[0] if event in delivered)
                if lane.size - seen > dispatcher._queue_size:
                    raise Violation(
                        "bound", f"{site}: partition {lane.name} has {lane.size} of {dispatcher._queue_size}"
                    )


def _in_lane(lane: Any) -> list[Any]:
    """Return the events of a partition's queue, what was spilled included."""
    found = [event for item in lane.pieces if type(item) is tuple for event in item[0]]
    return found if lane.store is None else found + [event for batch in lane.store for event in batch]


def _look_caps(site: Site, out: ProducerSide, queue: FairQueue) -> None:
    """No key has more in flight than its cap, and the queue knows how many are."""
    cap = queue._cap
    assert cap is not None  # noqa: S101 (for the type checker)
    flight: Counter[Any] = Counter()
    for subscriber in (*out.subscribers.values(), *out.closing.values()):
        skip = subscriber.head
        for batch, _, _ in subscriber.ledger:
            for event in () if batch is None else batch[skip:] if skip else batch:
                flight[queue._key(event)] += 1
            skip = 0
    for batch, _, token in queue._front:  # they keep their place
        if token is not None:
            flight.update(map(queue._key, batch))
    for writer, event, _ in site.world.blame.unsafe:  # as long as they are not kept
        if writer is site:
            flight[queue._key(event)] += 1
    for key, count in flight.items():
        if count > cap:
            raise Violation("cap", f"{site}: key {key} has {count} events in flight, its cap is {cap}")
    for name, key in queue._keys.items():
        if key.in_flight != flight[name]:
            raise Violation("cap", f"{site}: key {name} counts {key.in_flight} in flight, {flight[name]} are")
