"""Bugs to plant in the protocol: each function breaks one thing, in this process, for good.

Numbers in the names are those of the list that the protocol was designed against (in-flight lost, demand leaked, ...);
the names without a number are bugs that the simulator has found in earlier versions, or that are easily made.
Most are changes of the source text of one function, so that they break loudly when that function is rewritten.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from headgate.protocol import messages as m
from headgate.protocol.buffer import Buffer
from headgate.protocol.consumer import ConsumerSide
from headgate.protocol.dispatch.broadcast import BroadcastDispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.dispatch.keyed import FairDispatcher, FairQueue, PriorityQueue
from headgate.protocol.dispatch.partition import PartitionDispatcher
from headgate.protocol.lane import ConsumerLane, MiddleLane, ProducerLane
from headgate.protocol.ledger import Subscriber, Suspect, split
from headgate.protocol.producer import ProducerSide
from headgate.protocol.stage import StageCore

MUTANTS: dict[str, Callable[[], None]] = {}


class CannotPlantError(Exception):
    """The text that a mutant replaces is not there: adapt the mutant to the function's new form."""


def mutant(function: Callable[[], None]) -> Callable[[], None]:
    """Put a mutant on the list."""
    MUTANTS[function.__name__] = function
    return function


def edit(owner: type, name: str, *changes: tuple[str, str]) -> None:
    """Replace text in the source of a method."""
    function = inspect.getattr_static(owner, name)
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        if old not in source:
            raise CannotPlantError(f"{owner.__name__}.{name} has no {old!r}")
        source = source.replace(old, new)
    source = source.replace("super().", f"super({owner.__name__}, self).")
    namespace: dict[str, Any] = {}
    exec(
        compile(source, f"<mutant of {owner.__name__}.{name}>", "exec"), vars(sys.modules[owner.__module__]), namespace
    )
    setattr(owner, name, namespace[name])
    for table in [each for each in vars(owner).values() if isinstance(each, dict)]:  # of handlers by tag
        for tag, handler in table.items():
            if handler is function:
                table[tag] = namespace[name]


def wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
    """Put a function around a method: it is given the method, then the method's arguments."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: around(original, *args, **kwargs))


@mutant
def m01_in_flight_lost_on_cancel() -> None:
    wrap(Subscriber, "unacked", lambda original, self, *args: original(self, *args) and [])


@mutant
def m02_partition_queue_lost_on_cancel() -> None:
    def cancel(original, self, subscriber, pieces):
        lane = subscriber.slot
        lane.pieces.clear()
        lane.size = 0
        return original(self, subscriber, pieces)

    wrap(PartitionDispatcher, "cancel", cancel)


@mutant
def m03_demand_leaked_on_resubscribe() -> None:
    edit(DemandDispatcher, "cancel", ("self._line.remove(subscriber)", "pass"))


@mutant
def m03b_demand_counted_for_the_gone() -> None:
    edit(DemandDispatcher, "cancel", ("self.wanted -= subscriber.pending", "pass"))


@mutant
def m04_demand_of_discarded_events_lost() -> None:
    def discard(original, self, size, token, reason):
        original(self, size, token, reason)
        self.requested += size

    wrap(ProducerSide, "discard", discard)


@mutant
def m05_demand_twice_for_a_late_subscriber() -> None:
    edit(BroadcastDispatcher, "subscribe", ("lane = subscriber.slot", "subscriber.asked += 1; lane = subscriber.slot"))


@mutant
def m06_buffered_events_ignored_when_asking() -> None:
    edit(ProducerSide, "ask", ("if self.queue.size and not self.accumulating:", "if False:"))


@mutant
def m07_broadcast_beyond_demand() -> None:
    def put(original, self, subscriber, batch, size, token):
        self.outlet.deliver(subscriber, batch, size, token)

    wrap(BroadcastDispatcher, "_put", put)

    def look(original, self):
        original(self)
        self.wanted = max([each.asked - each.sent for each in self._subscribers], default=0)

    wrap(BroadcastDispatcher, "_look", look)


@mutant
def m08_asks_for_nothing() -> None:
    edit(ConsumerSide, "flush", ("window.acked != window.told and", ""))


@mutant
def m09_min_demand_off_by_one() -> None:
    edit(ConsumerSide, "done", ("<= window.least", "< window.least"))
    edit(ConsumerLane, "returned", ("<= window.least", "< window.least"))
    edit(MiddleLane, "returned", ("<= window.least", "< window.least"))


@mutant
def m10_accumulated_demand_lost() -> None:
    edit(StageCore, "_demand", ("out.accumulated.append(more)", "out.requested += more"))


@mutant
def m11_events_of_a_closed_subscription_handled() -> None:
    edit(ConsumerSide, "receive", ("if not window.open:", "if False:"))


@mutant
def m12_acknowledged_before_it_is_handled() -> None:
    def begin(original, self, window, batch, size):
        if not self._tracked:
            window.acked += size
        return original(self, window, batch, size)

    wrap(ConsumerSide, "begin", begin)


@mutant
def m13_acknowledged_although_it_failed() -> None:
    def failed(original, self, error):
        if self.callback[0] == m.HANDLE_EVENTS and self.into.window is not None:
            self.into.done()
        original(self, error)

    wrap(StageCore, "failed", failed)


@mutant
def m14_acknowledged_twice() -> None:
    edit(Subscriber, "ack", ("self.acked += done", "self.acked += done + (done > 1)"))


@mutant
def m19_returned_to_the_tail() -> None:
    def put_front(original, self, pieces):
        for piece in pieces:
            self.put(*piece)

    wrap(Buffer, "put_front", put_front)


@mutant
def m34_middle_works_without_demand() -> None:
    edit(StageCore, "_wants_work", ("if out.need() > 0:", "if True:"))


@mutant
def partial_acknowledgement_forgotten() -> None:
    edit(Subscriber, "ack", ("self.head += left", "pass"))


@mutant
def returned_in_reverse() -> None:
    wrap(Subscriber, "unacked", lambda original, self, *args: original(self, *args)[::-1])


@mutant
def middle_acknowledges_at_once() -> None:
    def init(original, self, port, *, tracked):
        original(self, port, tracked=False)

    wrap(ConsumerSide, "__init__", init)
    del MiddleLane.receive, MiddleLane.returned  # they know of origins only


@mutant
def acknowledgement_forgotten() -> None:
    edit(ConsumerSide, "later", ("self._owe()", "pass"))


@mutant
def leave_overtakes_the_subscription() -> None:
    edit(StageCore, "_knows", ("return out is not None and", "return True or"))


@mutant
def both_leave_and_events_come_twice() -> None:
    edit(
        StageCore,
        "_on_cancel",
        ("out.leave(subscription, acked, handled,", "out.leave(subscription, acked, handled if subscribed else acked,"),
    )


@mutant
def sent_corrected_before_the_dispatcher_knows() -> None:
    edit(ProducerSide, "leave", ("    self._sync()", "    subscriber.sent = max(handled, acked); self._sync()"))


@mutant
def finished_with_events_in_flight() -> None:
    wrap(ProducerSide, "quiet", lambda original, self: True)


@mutant
def finishing_stage_goes_on_asking() -> None:
    edit(ConsumerSide, "rest", ("window.least = -1", "pass"))


@mutant
def info_goes_to_the_back_again() -> None:
    edit(
        StageCore,
        "_next_work",
        (
            "if self.out is None or",
            "if into.work:\n            into.work.append((None, what, -1))\n        elif self.out is None or",
        ),
    )


@mutant
def info_before_the_events() -> None:
    wrap(Buffer, "hold", lambda original, self, message: False)


@mutant
def call_forgotten_at_a_kill() -> None:
    edit(StageCore, "_end", ("if self.caller is not None:", "if False:"))


@mutant
def work_after_the_end() -> None:
    edit(
        StageCore,
        "_advance",
        (' and self.state != "ended"', ""),
        ("if self._ending is not None:", 'if self._ending is not None and self.state != "ended":'),
    )
    edit(StageCore, "_end", ("self.agenda.clear()", "pass"))


@mutant
def dropped_and_not_counted() -> None:
    edit(ProducerSide, "_drop", ('self.discard(size, token, "buffer full")', "pass"))


@mutant
def buffer_without_a_bound() -> None:
    edit(ProducerSide, "_store", ("if soft or", "if True or"))


@mutant
def accumulating_stage_sends() -> None:
    edit(ProducerSide, "accumulate", (" and not hold", ""))


@mutant
def fast_lane_while_events_wait() -> None:
    def advance(original, self):
        original(self)
        self.lane = self.callback is None and self.plain

    wrap(ProducerLane, "_advance", advance)
    wrap(MiddleLane, "_advance", advance)


@mutant
def partition_returned_to_the_tail() -> None:
    edit(PartitionDispatcher, "cancel", ("lane.pieces.extendleft(reversed(pieces))", "lane.pieces.extend(pieces)"))


@mutant
def partition_spill_overtaken() -> None:
    edit(PartitionDispatcher, "_enqueue", ("lane.spilled or", ""))


@mutant
def broadcast_lane_out_of_order() -> None:
    edit(BroadcastDispatcher, "_drain", ("lane.pieces.popleft()", "lane.pieces.pop()"))


@mutant
def fair_cap_ignored() -> None:
    edit(FairQueue, "_select", ("count = min(count, cap - key.in_flight)", "pass"))


@mutant
def fair_cap_never_lifted() -> None:
    wrap(FairQueue, "landed", lambda original, self, names: None)


@mutant
def fair_weights_ignored() -> None:
    edit(FairDispatcher, "_share", ("return self._quantum * weight", "return self._quantum"))


@mutant
def fair_key_backwards() -> None:
    edit(FairQueue, "_add", ("else key.append)", "else key.appendleft)"))
    edit(FairQueue, "put", ("key.append(", "key.appendleft("))


@mutant
def priority_without_ageing() -> None:
    edit(PriorityQueue, "put", ("rank if ageing is None else rank * ageing + arrival", "rank"))


@mutant
def priority_equals_backwards() -> None:
    edit(PriorityQueue, "put", (", arrival, (event, mark, arrival)", ", -arrival, (event, mark, arrival)"))


@mutant
def suspects_joined_with_others() -> None:
    edit(ProducerSide, "deliver", ("if type(token) is Suspect:", "if type(token) is Suspect and self._corked is None:"))


@mutant
def suspects_not_marked() -> None:
    edit(ProducerSide, "fail", ("subscriber.failed = (start, stop, reason)", "pass"))


@mutant
def count_not_kept_across_halves() -> None:
    wrap(
        Suspect,
        "part",
        lambda original, self, start, stop: Suspect(min(self.deliveries, 1), original(self, start, stop).token),
    )


@mutant
def count_of_the_newest_failure_only() -> None:
    edit(ProducerSide, "_blame", ("token.deliveries + 1 if known else 1", "1"))


@mutant
def whole_batch_dead_lettered() -> None:
    def bury(original, self, piece, *why):
        while piece[1] > 1:
            first, piece = split(piece, 1)
            original(self, first, *why)
        original(self, piece, *why)

    wrap(ProducerSide, "_bury", bury)
    edit(ProducerSide, "_blame", ("if size == 1:", "if True:"))


@mutant
def innocent_neighbours_blamed() -> None:
    edit(ConsumerSide, "leave", ("at + self.size", "window.received"))


@mutant
def dead_letter_one_delivery_early() -> None:
    edit(ProducerSide, "_blame", ("worst >= self._most", "worst >= self._most - 1"))


@mutant
def dead_letter_settled_before_it_is_safe() -> None:
    edit(
        ProducerSide,
        "_bury",
        ("self.buried += 1", "suspect.settle(1)"),
        ("suspect.token)", "None)"),
    )
    edit(ProducerSide, "safe", ("self.buried -= 1", "pass"))


@mutant
def dead_letter_never_settled() -> None:
    edit(ProducerSide, "safe", ("token.settle(1)", "pass"))


@mutant
def finished_before_a_dead_letter_is_safe() -> None:
    edit(ProducerSide, "quiet", ("if self.buried:", "if False:"))


@mutant
def dead_letter_lifts_no_cap() -> None:
    edit(ProducerSide, "safe", ("if self.queue.size and not self.accumulating:", "if False:"))


@mutant
def failed_waits_for_the_callback() -> None:
    edit(StageCore, "receive", ("message[0] in _DIRECT and", "message[0] in _DIRECT and message[0] != m.FAILED and"))


@mutant
def failed_ignored_while_a_callback_is_outstanding() -> None:
    def on_failed(original, self, message):
        if self.callback is None:
            original(self, message)

    wrap(StageCore, "_on_failed", on_failed)
    StageCore._handlers[m.FAILED] = StageCore._on_failed


@mutant
def kill_for_a_normal_reason_blamed() -> None:
    edit(ConsumerSide, "leave", ("and not is_normal(end.reason)", ""))


@mutant
def redelivered_behind_newer_events() -> None:
    edit(ProducerSide, "_blame", ("return [*before, *suspects, *after]", "return [*before, *after, *suspects]"))


@mutant
def suspects_to_the_tail_of_the_queue() -> None:
    def put_front(original, self, pieces):
        pieces = list(pieces)
        original(self, [piece for piece in pieces if type(piece[2]) is not Suspect])
        for piece in pieces:
            if type(piece[2]) is Suspect:
                self.put(*piece)

    wrap(Buffer, "put_front", put_front)


@mutant
def suspects_forget_their_keys() -> None:
    edit(FairQueue, "put_front", ("rest = self._front.put(list(pieces))", "rest = list(pieces)"))


@mutant
def number_of_a_delivery_stays_for_the_next_batch() -> None:
    edit(ConsumerSide, "receive", ("window.received + size, deliveries", "window.received + size + 1, deliveries"))


@mutant
def hole_counted_twice() -> None:
    counted = "if piece[0] is None:\n            hole += size\n            self.early += size"
    edit(Subscriber, "settle", ("if piece[0] is None:\n            hole += size", counted))


@mutant
def hole_never_taken_off() -> None:
    edit(Subscriber, "ack", ("self.early -= count", "pass"))


@mutant
def hole_comes_back() -> None:
    edit(
        Subscriber,
        "settle",
        ("self.early += size\n            hole += size", "self.early += size\n            kept.append(piece)"),
    )


@mutant
def holes_are_not_joined() -> None:
    kept = "if piece[0] is None:\n            kept.append(piece)"
    edit(Subscriber, "settle", ("if piece[0] is None:\n            hole += size", kept))


@mutant
def settled_overtaken_by_the_leave() -> None:
    edit(StageCore, "receive", ("message[0] in _DIRECT and", "message[0] in _DIRECT and message[0] != m.SETTLED and"))


@mutant
def settled_forgotten_at_a_crash() -> None:
    edit(ConsumerSide, "leave", ("self._settle_early(window)", "pass"))


@mutant
def deferred_acknowledged_at_once() -> None:
    edit(ConsumerSide, "done", ("if not window.origins:", "if True:"))


@mutant
def finished_with_deferred_events() -> None:
    edit(ConsumerSide, "unsettled", ("return ", "return False and "))


@mutant
def drained_source_still_asks() -> None:
    edit(
        StageCore,
        "_demand",
        ('self.state != "running"', '(self.state != "running" and not self._draining)'),
        ("if not out.accumulating:", "if not out.accumulating or self._draining:"),
    )


@mutant
def drained_source_still_sends() -> None:
    edit(StageCore, "drain", ("self.out.accumulate(self.source)", "pass"))


@mutant
def drained_source_leaves_its_consumers_alone() -> None:
    edit(
        StageCore,
        "_check_finished",
        ("out.quiet() if self._draining else out.empty()", "self._draining or out.empty()"),
    )


@mutant
def drained_stage_keeps_what_it_has_not_begun() -> None:
    edit(StageCore, "drain", ("self.cancel(subscription, reason)", "into.work.clear()"))


@mutant
def drained_stage_abandons_what_it_has_begun() -> None:
    edit(StageCore, "_check_finished", ("if over and", "if (over or self.into is not None) and"))


@mutant
def pause_ignored_by_the_lane() -> None:
    edit(StageCore, "pause", ("self._wake()", "pass"))


@mutant
def pause_ignored_by_the_source() -> None:
    edit(StageCore, "_demand", ("or self.paused", ""))


@mutant
def resumed_and_still_asleep() -> None:
    edit(StageCore, "resume", ("self._wake()", "pass"))


@mutant
def asks_only_when_acknowledged() -> None:
    edit(
        ConsumerSide, "done", ("window.asked - handled <= window.least", "window.asked - window.acked <= window.least")
    )
    edit(
        MiddleLane,
        "returned",
        ("window.asked - handled <= window.least", "window.asked - window.acked <= window.least"),
    )


@mutant
def acknowledges_only_with_an_ask() -> None:
    edit(ConsumerSide, "flush", ("if window.acked != window.told and window.open:", "if False:"))


from tests.mutants import pipelines, rates  # noqa: E402, F401  (they put their bugs on the list; they need what is above)
