"""One stage: the only place where its producing and its consuming side meet.

A core is fed by its driver: `receive` a message, run the `callback` that it then has, and tell it how that came out by
`returned` or `failed`. It acts through its `Port` and never waits. Its rules (docs/spec.md, S1 to S12):

* at most one callback is outstanding, and every callback ends in exactly one of returned and failed;
* while one is outstanding, only a consumer's leave, a stop and a kill take effect, and in a middle stage an ask (which
  calls nobody there); all else is held, in order;
* work that was begun comes before messages that came later; what a callback led to comes before both;
* a middle stage is given work only when its output is wanted, so that it stops asking when nobody asks of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import Any, ClassVar, Final

from headgate.errors import (
    BufferOverflowError,
    HandlerError,
    Ignore,
    NoStageError,
    PeerError,
    StageCrashed,
    Stop,
    SubscriptionError,
)
from headgate.protocol import messages as m
from headgate.protocol.batching import is_batch
from headgate.protocol.consumer import ConsumerSide
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.ledger import Kept, Origin
from headgate.protocol.messages import ASK, EVENTS, HANDLE_DEMAND, HANDLE_EVENTS, End, Message, Subscription, is_normal
from headgate.protocol.port import Port
from headgate.protocol.producer import AT_LEAST_ONCE, ProducerSide

_LEAVES: Final = frozenset({m.SETTLED, m.FAILED, m.CANCEL, m.CLOSED})
_DIRECT: Final = frozenset({*_LEAVES, m.SUBSCRIBED, m.REFUSED, m.STOP, m.KILL})
_FOLLOW: Final = "follow"
_EVENTS_EXPECTED: Final = "a sequence of events (list, tuple, range, array, ...) or None"


class StageCore:
    """The state of one stage.

    Args:
        port: What the driver lets the stage do.
        role: ``"producer"``, ``"producer_consumer"`` or ``"consumer"``.
        defined: The names of the callbacks that the stage's class has.
        dispatcher: For stages that produce.
        buffer_size: Bound of the queue in events, or None.
        buffer_keep: What happens beyond it: None (an error), ``"first"`` or ``"last"``.
        accumulate: Hold demand and events from the start.
        delivery: ``"at_least_once"`` or ``"at_most_once"``.
        max_deliveries: How often a batch that a handler fails with is given to handlers as a whole; None: for ever.

    Attributes:
        callback: The outstanding callback as (name, arguments), or None.
        caller: Whom the outstanding ``handle_call`` is to answer.
        answers: It has a ``handle_demand``.
        follows: It ends since a producer has ended.
        plain: It runs, is not paused, and nothing says that it should end.
        paused: No handler is given events, and a source is asked for none.
        completed: It ends since its stream is over: it has finished, or those that it got events from have.
        awaited: Subscriptions that the driver will make when there is a stage of the producer's name.
        kept: Input batches that it keeps unacknowledged until it has emitted what it made of them.
        failure: What its handler had when it failed or was killed: the number of events, and of their delivery.
        state: ``"starting"``, ``"running"``, ``"finishing"``, ``"ending"`` or ``"ended"``.
        reason: Why it ended.
    """

    lane = False
    """Whether the fast lane is open (`headgate.protocol.lane`)."""

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        port: Port,
        role: str,
        defined: Container[str],
        dispatcher: Dispatcher | None = None,
        *,
        buffer_size: int | None = 10_000,
        buffer_keep: str | None = None,
        accumulate: bool = False,
        delivery: str = AT_LEAST_ONCE,
        max_deliveries: int | None = None,
    ) -> None:
        """Build the sides that the role has."""
        self.port = port
        self.role = role
        self.callback: tuple[str, tuple[Any, ...]] | None = None
        self.caller: Any = None
        self.state = "starting"
        self.reason: Any = None
        self.agenda: deque[tuple[str, tuple[Any, ...]]] = deque()
        self.held: deque[Message] = deque()
        self._defined = defined
        self.follows = False
        self.plain = False  # running, and nothing says that it should end
        self._ending: tuple[Any, bool] | None = None  # the reason, and whether to go without `terminate`
        self._finish: Any = None  # the reason to end with when everything is handled
        self._finished = False
        self._left: End | None = None  # how its producer has left it, when that had not finished
        self._draining = False
        self.paused = False
        self.completed = False
        self.awaited = 0
        self.kept: list[Origin] = []
        self.failure: tuple[int, int] | None = None
        self._limit = buffer_size
        self.answers = HANDLE_DEMAND in defined
        self.out: ProducerSide | None = None
        self.into: ConsumerSide | None = None
        self.source = role == m.PRODUCER
        if role != m.CONSUMER:
            assert dispatcher is not None  # noqa: S101 (the driver's duty)
            self.out = ProducerSide(
                port,
                dispatcher,
                self.agenda,
                buffer_size=buffer_size,
                buffer_keep=buffer_keep,
                delivery=delivery,
                max_deliveries=max_deliveries,
            )
            self.out.accumulate(accumulate)
        if role != m.PRODUCER:
            self.into = ConsumerSide(port, tracked=self.out is not None)

    # -- the driver's side --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: the callback ``started`` comes first."""
        self.agenda.append((m.STARTED, ()))
        self._advance()

    def abandon(self) -> None:
        """Be ended without a word: it has never come up, so nobody has to be told."""
        self.state = "ended"
        self.callback = None
        self.agenda.clear()

    def receive(self, message: Message) -> None:
        """Take in a message. Afterwards run `callback`, if there is one that was not there before."""
        if self.callback is None:
            self._handle(message)
            self._advance()
        elif message[0] in _DIRECT and (message[0] not in _LEAVES or self._knows(message[1])):
            self._handle(message)
        elif message[0] != ASK or not self._ask_meanwhile(message):
            self.held.append(message)

    def _ask_meanwhile(self, message: Message) -> bool:
        """Let an ask take effect while a handler runs: all of it, or in a source at least what it acknowledges.

        A source takes all of it when its dispatcher pools asks and nothing waits, so that nothing is sent now.

        Returns:
            False when it has to be held behind other messages.
        """
        out = self.out
        if out is None or self.held:
            return False
        _, subscription, asked, acked = message
        if not self.source or (out.dispatcher.pools and out.direct and not out.waits()):
            return out.ask(subscription, asked, acked)
        subscriber = out.subscribers.get(subscription)
        if subscriber is not None and out.queue.ordered:
            subscriber.ack(acked)
        out.asks.append(message)
        return True

    def _knows(self, subscription: Subscription) -> bool:
        """Say whether a leave can take effect: not when the subscription itself is still held back."""
        out = self.out
        return out is not None and (subscription in out.subscribers or subscription in out.closing)

    def returned(self, value: Any) -> None:
        """Take in what the outstanding callback returned. Afterwards run `callback`, if there is one."""
        callback = self.callback
        assert callback is not None  # noqa: S101 (the driver's duty)
        self.callback = None
        name = callback[0]
        if name == HANDLE_EVENTS:
            into = self.into
            assert into is not None  # noqa: S101 (it had events)
            if value is None or self._emit_value(name, value, into.origin):
                into.done()
        elif name == HANDLE_DEMAND:
            if value is not None:
                self._emit_value(name, value, None)
        else:
            self._conclude(name, callback[1], value)
        self._advance()

    def failed(self, error: BaseException) -> None:
        """Take in that the outstanding callback raised. Afterwards run `callback`, if there is one."""
        callback = self.callback
        assert callback is not None  # noqa: S101 (the driver's duty)
        name = callback[0]
        if isinstance(error, Stop):
            self._set_ending(error.reason)
            self.returned(None)
            return
        self.callback = None
        self._note_failure(name)
        if name == m.TERMINATE:
            self.port.report(StageCrashed(self.port.name, error))
            self._end()
            return
        if name == m.HANDLE_CALL:
            self._answer(None, StageCrashed(self.port.name, error))
        if name == m.STARTED and isinstance(error, Ignore):
            self._set_ending(error)
        else:
            self._crash(error)
        self._advance()

    def _note_failure(self, name: str) -> None:
        into = self.into
        if name == HANDLE_EVENTS and into is not None and into.window is not None:
            self.failure = (into.size, into.window.deliveries)

    # -- what a stage does by itself, inside its callbacks or from outside ---------------------------------------------

    def reopen(self) -> None:
        """Go on after the driver has concluded a callback itself."""
        self._advance()

    def flush(self) -> None:
        """Send acknowledgements that could wait; the driver calls it when there is nothing else to do."""
        if self.into is not None:
            self.into.flush()
        out = self.out
        if out is not None and out.dispatcher.absorbed and self.state != "ended":
            out.dispatcher.idle()
            if out.queue.size and not out.accumulating:
                out.drain()
            self._wake()

    def keep(self) -> None:
        """Do not acknowledge the batch that the handler has before `emit` settles it.

        Raises:
            HandlerError: There is no such batch, or this is no middle stage.
        """
        into = self.into
        if into is None or self.out is None or into.window is None:
            raise HandlerError(self.port.name, "keep", "to be used by handle_events of a middle stage", None)
        origin = into.open_origin()
        origin.left += 1
        self.kept.append(origin)

    def again(self, rest: Any) -> None:
        """Give the end of the batch that the handler has to it once more, as soon as more output is wanted.

        Raises:
            HandlerError: There is no such batch.
        """
        if self.into is None or self.into.window is None:
            raise HandlerError(self.port.name, "again", "to be used by handle_events", rest)
        self.into.give_back(rest)

    def emit(self, batch: Any, *, settles: bool = False) -> None:
        """Dispatch events now.

        Args:
            batch: The events.
            settles: They are what was made of the batches that are kept (`keep`): these are acknowledged with them.

        Raises:
            HandlerError: It is no sequence of events, or this stage is a consumer.
            BufferOverflowError: There is no room; ``refused`` has the events that were not taken.
            NoStageError: The stage has ended.
        """
        out = self.out
        if self.state == "ended":
            raise NoStageError(f"stage {self.port.name!r} has ended: expected no more events to be emitted")
        if out is None:
            raise HandlerError(self.port.name, "emit", "to be used in a producer (a consumer sends nothing)", batch)
        if not is_batch(batch):
            raise HandlerError(
                self.port.name, "emit", "to be given a sequence of events (list, tuple, range, array, ...)", batch
            )
        size = len(batch)
        token: Origin | Kept | None = None
        if settles:
            token = Kept(size, self.kept)
            self.kept = []
        elif size and self.into is not None and self.into.window is not None:
            token = self.into.open_origin()
            token.left += size
        if not size:
            return
        refused = out.emit(batch, size, token, soft=token is not None)
        if out.dropped:
            self._note_discarded(out)
        self._wake()
        if refused is not None and len(refused):
            raise BufferOverflowError(self.port.name, self._limit or 0, refused)

    def subscribe(self, subscription: Subscription) -> None:
        """Subscribe to ``subscription.producer``; the port's ``subscribed`` says how it came out."""
        if self.into is None:
            error = SubscriptionError(self.port.name, _name(subscription.producer), "a producer cannot subscribe")
            self.port.subscribed(subscription, error)
        elif self.state in ("ending", "ended"):
            error = SubscriptionError(self.port.name, _name(subscription.producer), "the consumer has ended")
            self.port.subscribed(subscription, error)
        else:
            self.into.subscribe(subscription)
            self.agenda.append((m.HANDLE_SUBSCRIBE, (m.PRODUCER, subscription.terms, subscription)))
            self._wake()

    def ask(self, subscription: Subscription, count: int) -> bool:
        """Ask for more by hand; False when the subscription is not open."""
        return self.into is not None and self.into.ask(subscription, count)

    def cancel(self, subscription: Subscription, reason: Any) -> bool:
        """End a subscription from this side; this stage lives on. False when it is not open."""
        end = End("cancel", reason)
        known = False
        if self.state == "ended":
            return False
        if self.into is not None:
            known = self.into.cancel(subscription, end)
            if known:
                self.port.subscribed(subscription, None)  # nobody may wait for its answer for ever
        if not known and self.out is not None:
            known = self.out.cancel(subscription, end)
        if known:
            self.agenda.append((m.HANDLE_CANCEL, (end, subscription)))
            self._wake()
        return known

    def set_demand(self, mode: str) -> None:
        """Hold demand and events (``"accumulate"``) or let them go (``"forward"``)."""
        out = self.out
        if out is None:
            self.port.warn(
                f"stage {self.port.name!r}: expected set_demand on a stage that produces, "
                "a consumer has no demand to hold"
            )
            return
        out.accumulate(mode == "accumulate")
        if not out.accumulating:
            out.drain()
        self._wake()

    def info(self, message: Any) -> None:
        """Give a message to ``handle_info`` after everything that is buffered now."""
        if self.into is not None and self.into.work:
            self.into.work.append((None, message, -1))
        elif self.out is None or not self.out.info(message):
            self.agenda.append((m.HANDLE_INFO, (message,)))
        self._wake()

    def pause(self) -> None:
        """Give no more events to the handler, and ask a source for none; what is under way is finished."""
        self.paused = True
        self.plain = False
        self._wake()  # the fast lane closes

    def resume(self) -> None:
        """Go on after a pause."""
        self.paused = False
        self.plain = self.state == "running" and self._ending is None
        self._wake()

    def drain(self, reason: Any, subscriptions: Iterable[Subscription] | None = None) -> None:
        """End when nothing is in flight: a source keeps what it has not sent, and what comes back.

        A stage that consumes gives back what its handler has not begun; what a middle stage has begun, it finishes.

        Args:
            reason: Why.
            subscriptions: Which ones it leaves. While it has others, it goes on with those, and ends when their
                producers have finished. Default: all.
        """
        if self.state not in ("starting", "running", "finishing"):
            return
        into = self.into
        if into is not None:
            for subscription in list(into.windows) if subscriptions is None else subscriptions:
                self.cancel(subscription, reason)
            if any(each.open for each in into.windows.values()):
                return
        self.paused = False  # what it still has to do is little, and has to be done
        if self.out is not None:
            self._draining = self.source
            self.out.accumulate(self.source)
            if not self.source:
                self.out.drain()
        if self.state == "finishing":
            self._wake()
        else:
            self.finish(reason)

    def forget(self, heir: tuple[str, ...]) -> None:
        """Keep nothing any longer for consumers that will not be started again."""
        if self.out is not None and self.state != "ended":
            self.out.forget(heir)
            self._wake()

    def settled(self, origin: Origin) -> None:
        """Acknowledge an event of its own that was deferred."""
        if self.state != "ended":
            origin.settle(1)
            if self.state == "finishing":
                self._wake()

    def safe(self, token: Any) -> None:
        """Take note that the dead letter of an event is kept."""
        if self.out is not None and self.state != "ended":
            self.out.safe(token)
            self._wake()

    def finish(self, reason: Any = m.NORMAL) -> None:
        """End when everything that was emitted is handled; ask for nothing more."""
        if self.state in ("starting", "running"):
            self.state = "finishing"
            self.plain = False
            self._finish = reason
            if self.into is not None:
                self.into.rest()
            self._wake()

    def stop(self, reason: Any) -> None:
        """End as soon as no callback is outstanding; what was not handled goes back."""
        self._set_ending(reason)
        self._wake()

    # -- messages -----------------------------------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        tag = message[0]
        if tag == EVENTS:
            into = self.into
            if into is None:
                self.port.report(
                    PeerError(f"stage {self.port.name!r} is a producer, it was sent events by {message[1]!r}")
                )
            elif not into.receive(message[1], message[2]):
                self.port.send(message[1].producer, (m.CANCEL, message[1], End("cancel", "unknown_subscription"), 0, 0))
        elif tag == ASK:
            if self.out is None or not self.out.ask(message[1], message[2], message[3]):
                end = End("cancel", "unknown_subscription")
                self.port.send(message[1].consumer, (m.CANCELLED, message[1], end))
        else:
            self._handlers[tag](self, message)

    def _on_subscribe(self, message: Message) -> None:
        subscription = message[1]
        consumer = _name(subscription.consumer)
        error: SubscriptionError | None = None
        if self.out is None:
            error = SubscriptionError(
                consumer, self.port.name, "expected a producer or a middle stage, it is a consumer"
            )
        elif self.state in ("ending", "ended") or self._ending is not None:
            error = SubscriptionError(consumer, self.port.name, "it has ended", missing=True)
        elif subscription in self.out.subscribers:
            error = SubscriptionError(
                consumer, self.port.name, "expected a new subscription, this one exists (duplicated_subscription)"
            )
        else:
            try:
                self.out.subscribe(subscription)
            except SubscriptionError as refusal:
                error = refusal
            except Exception as fault:  # noqa: BLE001 (a dispatcher of the user's)
                error = SubscriptionError(
                    consumer, self.port.name, f"its dispatcher raised {type(fault).__name__}: {fault}"
                )
                error.__cause__ = fault
        if error is not None:
            self.port.send(subscription.consumer, (m.REFUSED, subscription, error))
            return
        self.agenda.append((m.HANDLE_SUBSCRIBE, (m.CONSUMER, subscription.terms, subscription)))

    def _on_subscribed(self, message: Message) -> None:
        self.port.subscribed(message[1], None)

    def _on_refused(self, message: Message) -> None:
        _, subscription, error = message
        into = self.into
        if into is None:
            return
        window = into.windows.pop(subscription, None)
        if window is not None and error.missing and window.open and self.port.lost(subscription, error):
            return
        self.port.subscribed(subscription, error)
        if window is not None:
            self.miss(subscription, error)

    def unawaited(self) -> None:
        """Take note that no more members of a group will come: with the last of them the stream is over."""
        into = self.into
        if into is not None and not self.awaited and not any(each.open for each in into.windows.values()):
            self.completed = True
            if self.out is not None:
                self.finish()
            else:
                self.stop(m.NORMAL)

    def miss(self, subscription: Subscription, error: SubscriptionError) -> None:
        """Follow the cancel mode of a subscription whose producer is missing."""
        if error.missing and subscription.terms.cancel != "temporary":
            self.stop(error)

    def _on_cancel(self, message: Message) -> None:
        _, subscription, end, acked, handled = message
        out = self.out
        if out is not None:
            subscribed = subscription in out.subscribers
            if out.leave(subscription, acked, handled, down=end.kind == "down") and subscribed:
                self.agenda.append((m.HANDLE_CANCEL, (end, subscription)))

    def _on_cancelled(self, message: Message) -> None:
        _, subscription, end = message
        into = self.into
        window = into.windows.get(subscription) if into is not None else None
        if into is not None and window is not None and window.open:
            self.port.subscribed(subscription, None)  # it may have ended before it was confirmed
            into.work.append((window, end, -1))

    def _on_redelivered(self, message: Message) -> None:
        _, subscription, batch, deliveries = message
        if self.into is not None and not self.into.receive(subscription, batch, deliveries):
            self.port.send(subscription.producer, (m.CANCEL, subscription, End("cancel", "unknown_subscription"), 0, 0))

    def _on_failed(self, message: Message) -> None:
        if self.out is not None:
            self.out.fail(message[1], message[2], message[3], message[4])

    def _on_settled(self, message: Message) -> None:
        if self.out is not None:
            self.out.settle(message[1], message[2])

    def _on_closed(self, message: Message) -> None:
        if self.out is not None:
            self.out.close(message[1], message[2])

    def _on_call(self, message: Message) -> None:
        if m.HANDLE_CALL not in self._defined:
            error = HandlerError(self.port.name, m.HANDLE_CALL, "an answer, but it has no handle_call", message[1])
            self.port.reply(message[2], None, error)
            return
        self.agenda.append((m.HANDLE_CALL, (message[1], message[2])))

    def _on_cast(self, message: Message) -> None:
        self.agenda.append((m.HANDLE_CAST, (message[1],)))

    def _on_info(self, message: Message) -> None:
        self.info(message[1])

    def _on_tell(self, message: Message) -> None:
        self.agenda.append((m.HANDLE_INFO, (message[1],)))

    def _on_stop(self, message: Message) -> None:
        self.stop(message[1])

    def _on_kill(self, message: Message) -> None:
        if self.callback is not None:  # whatever runs is abandoned: its events were not handled
            self._note_failure(self.callback[0])
            self.callback = None
        self._ending = (message[1], True)
        self.plain = False
        self._begin_end()

    _handlers: ClassVar[dict[int, Callable[[StageCore, Message], None]]] = {
        m.SUBSCRIBE: _on_subscribe,
        m.SUBSCRIBED: _on_subscribed,
        m.REFUSED: _on_refused,
        m.CANCEL: _on_cancel,
        m.CANCELLED: _on_cancelled,
        m.CLOSED: _on_closed,
        m.REDELIVERED: _on_redelivered,
        m.FAILED: _on_failed,
        m.SETTLED: _on_settled,
        m.CALL: _on_call,
        m.CAST: _on_cast,
        m.INFO: _on_info,
        m.TELL: _on_tell,
        m.STOP: _on_stop,
        m.KILL: _on_kill,
    }

    # -- what comes next ----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self.callback is None:
            self._advance()

    def _advance(self) -> None:
        """Go on until a callback is outstanding or there is nothing to do."""
        agenda, into, out = self.agenda, self.into, self.out
        while self.callback is None and self.state != "ended":
            if self._ending is not None:
                self._begin_end()
            elif agenda:
                name, args = agenda.popleft()
                if name == m.HANDLE_CALL:
                    self.caller = args[1]
                    self.callback = (name, args[:1])
                elif name in self._defined:
                    self.callback = (name, args)
                else:
                    self._conclude(name, args, None)
            elif into is not None and into.work and not self.paused and self._next_work(into):
                pass
            elif out is not None and out.asks:
                self._handle_ask(out.asks.popleft())
            elif self.held:  # before demand: a source whose events all go nowhere is asked again and again
                message = self.held.popleft()
                if self.source and message[0] == ASK:
                    self._handle_ask(message)
                else:
                    self._handle(message)
            elif self.source and self._demand():
                pass
            else:
                if self.state == "finishing":
                    self._check_finished()
                    if self.state == "ending":
                        continue
                return

    def _handle_ask(self, message: Message) -> None:
        """Take in an ask of a source: it is a demand of its own; but who leaves must not wait behind the callback."""
        self._handle(message)
        if not self.agenda and self._ending is None and not any(each[0] in _DIRECT for each in self.held):
            self._demand()

    def _next_work(self, into: ConsumerSide) -> bool:
        """Take the next piece of work; False when it has to wait for demand."""
        window, what, size = into.work[0]
        if size >= 0:
            if self.out is not None and not self._wants_work(self.out, into):
                return False
            self.callback = (HANDLE_EVENTS, into.next_batch())
            return True
        into.work.popleft()
        if window is None:
            if self.out is None or not self.out.info(what):
                self.agenda.append((m.HANDLE_INFO, (what,)))
        else:
            into.end(window)
            self.agenda.append((m.HANDLE_CANCEL, (what, window.subscription)))
            self.agenda.append((_FOLLOW, (what, window)))
        return True

    def _wants_work(self, out: ProducerSide, into: ConsumerSide) -> bool:
        """Say whether a middle stage is to handle its next batch: when more output is wanted than it has.

        A message that was begun is gone on with as long as the surplus fits the buffer and what its consumers can ask
        for.
        """
        if out.accumulating:
            return False
        if out.need() > 0:
            return True
        if not into.at:
            return False
        limit = sum(each.terms.max_demand for each in out.subscribers.values())
        return out.queue.size < (limit if self._limit is None else min(limit, self._limit))

    def _demand(self) -> bool:
        """Ask the producer's callback for what is wanted; False when that is nothing."""
        out = self.out
        assert out is not None  # noqa: S101 (it is a source)
        if self.state != "running" or self.paused:
            return False
        if not out.accumulating:
            if out.accumulated:
                count = min(out.accumulated.popleft(), out.need())
                if count <= 0:
                    return True
            else:
                count = out.need()
                if count <= 0:
                    return False
            self._invoke_demand(out, count)
            return True
        more = out.need() - sum(out.accumulated)
        if more > 0:
            out.accumulated.append(more)
        return False

    def _invoke_demand(self, out: ProducerSide, count: int) -> None:
        out.requested += count
        if self.answers:  # else events come by `emit` alone
            self.callback = (HANDLE_DEMAND, (count,))

    # -- what callbacks lead to ---------------------------------------------------------------------------------------

    def _emit_value(self, name: str, value: Any, token: Any) -> bool:
        """Emit what a callback returned; False when it is nothing that can be emitted, which ends the stage."""
        out = self.out
        if out is None:
            self._unwanted(name, value)
            return True
        if type(value) is not list and not is_batch(value):
            self._crash(HandlerError(self.port.name, name, _EVENTS_EXPECTED, value))
            return False
        size = len(value)
        if not size:
            return True
        if token is not None:
            token.left += size
        refused = out.emit(value, size, token, soft=token is not None)
        if out.dropped:
            self._note_discarded(out)
        if refused is not None and len(refused):
            self.port.report(BufferOverflowError(self.port.name, self._limit or 0, refused))
        return True

    def _unwanted(self, name: str, value: Any) -> None:
        """Report what a consumer's callback returned: there is nowhere to send it."""
        if is_batch(value) and not len(value):
            return
        self.port.report(HandlerError(self.port.name, name, "None (a consumer dispatches no events)", value))

    def _note_discarded(self, out: ProducerSide) -> None:
        count, out.dropped = out.dropped, 0
        self.agenda.append((m.HANDLE_DISCARDED, (count,)))

    def _conclude(self, name: str, args: tuple[Any, ...], value: Any) -> None:
        """Do what follows from a callback other than the two hot ones (or from its absence)."""
        if name == m.HANDLE_SUBSCRIBE:
            self._subscribe_handled(args[0], args[2], value)
        elif name == m.HANDLE_CALL:
            self._answer(value, None)
        elif name == m.STARTED:
            if self.state == "starting":
                self.state = "running"
                self.plain = self._ending is None and not self.paused
        elif name == m.HANDLE_DISCARDED:
            if value is True or name not in self._defined:
                self.port.warn(f"stage {self.port.name!r} has discarded {args[0]} events from its buffer")
        elif name == m.TERMINATE:
            self._end()
        elif name == _FOLLOW:
            self._apply_mode(*args)
        else:
            if value is not None:
                self._emit_value(name, value, None)
            if name == m.HANDLE_INFO and name not in self._defined:
                self.port.warn(f"stage {self.port.name!r} has no handle_info and got {args[0]!r}")
            elif name == m.HANDLE_CAST and name not in self._defined:
                self.port.report(HandlerError(self.port.name, name, "anything, but it has no handle_cast", args[0]))

    def _subscribe_handled(self, role: str, subscription: Subscription, value: Any) -> None:
        if value is not None and value != "automatic" and not (value == "manual" and role == m.PRODUCER):
            allowed = "None, 'automatic' or 'manual'" if role == m.PRODUCER else "None or 'automatic'"
            self._crash(HandlerError(self.port.name, m.HANDLE_SUBSCRIBE, allowed, value))
        elif role == m.PRODUCER:
            assert self.into is not None  # noqa: S101 (only consumers have producers)
            self.into.opened(subscription, manual=value == "manual")
        else:
            self.port.send(subscription.consumer, (m.SUBSCRIBED, subscription))

    def _apply_mode(self, end: End, window: Any) -> None:
        """Follow the cancel mode of a subscription that its producer ended."""
        mode = window.subscription.terms.cancel
        normal = is_normal(end.reason)
        if end.kind == "down" and not end.finished and self.port.lost(window.subscription, None):
            return
        if mode == "temporary" or (mode == "transient" and normal):
            return
        into = self.into
        if end.finished and into is not None and (self.awaited or any(each.open for each in into.windows.values())):
            return  # the stream of one producer is over, those of the others are not
        self.completed = self.completed or end.finished
        if normal and (self.out is not None or (into is not None and into.unsettled())):
            if self.state in ("starting", "running"):
                self._left = None if end.finished else end
            self.finish(end.reason)
        else:
            self.follows = self._ending is None and end.kind == "down"
            self._set_ending(end.reason)

    def _answer(self, value: Any, error: BaseException | None) -> None:
        caller, self.caller = self.caller, None
        if caller is None:  # answered already, or to be answered later
            return
        self.port.reply(caller, value, error)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _crash(self, error: BaseException) -> None:
        if self._ending is None or not self._ending[1]:  # a kill comes first
            self._ending = (StageCrashed(self.port.name, error), False)
            self.plain = False

    def _set_ending(self, reason: Any) -> None:
        """End as soon as no callback is outstanding; the first reason counts."""
        if self._ending is None:
            self._ending = (reason, False)
            self.plain = False

    def _check_finished(self) -> None:
        out, into = self.out, self.into
        over = out is None or (out.quiet() if self._draining else out.empty())
        if over and (into is None or not (into.work or into.unsettled())):
            if self._left is None:
                self.completed = True
            else:  # it was left in the midst of a stream, which may go on with a successor
                self.follows = self._left.kind == "down"
            self._ending = (self._finish, False)
            self._begin_end(finished=self.completed)

    def _begin_end(self, *, finished: bool = False) -> None:
        assert self._ending is not None  # noqa: S101 (we come from there)
        reason, at_once = self._ending
        if self.state == "ending":
            self._end()
            return
        self._finished = finished
        self.reason = reason
        self.state = "ending"
        for name, args in self.agenda:
            if name == m.HANDLE_CALL:
                self.refuse((m.CALL, *args))
        self.agenda.clear()
        if not at_once and m.TERMINATE in self._defined and not isinstance(reason, Ignore):
            self.callback = (m.TERMINATE, (reason,))
        else:
            self._end()

    def _end(self) -> None:
        """Leave everybody, give everything back, and be gone."""
        self.state = "ended"
        self._ending = None
        end = End("down", self.reason, self._finished)
        if self.into is not None:
            self.into.leave(end)
        if self.out is not None:
            for subscriber in self.out.subscribers.values():
                self.port.send(subscriber.address, (m.CANCELLED, subscriber.subscription, end))
        held, self.held = self.held, deque()
        self.agenda.clear()
        if self.caller is not None:  # its handle_call was killed
            self._answer(None, NoStageError(f"stage {self.port.name!r} has ended"))
        self.port.ended(self.reason)
        for message in held:
            self.refuse(message)

    def refuse(self, message: Message) -> None:
        """Answer a message that comes too late: the stage has ended (drivers use it for their mailboxes)."""
        refuse(self.port, message)


def refuse(port: Port, message: Message) -> None:
    """Answer a message to a stage that has ended or never was."""
    tag = message[0]
    if tag == m.SUBSCRIBE:
        subscription = message[1]
        error = SubscriptionError(_name(subscription.consumer), port.name, "there is no such stage", missing=True)
        port.send(subscription.consumer, (m.REFUSED, subscription, error))
    elif tag == m.CALL:
        port.reply(message[2], None, NoStageError(f"stage {port.name!r} has ended"))


def _name(address: Any) -> str:
    return str(getattr(address, "name", address))
