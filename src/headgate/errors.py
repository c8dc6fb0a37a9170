"""Everything that Headgate raises, and the signals by which a handler steers its stage.

::

    HeadgateError
    ├── OptionError (also ValueError)    an option is unknown, of the wrong type or out of range
    │   └── NameTakenError               a second stage wants a name that a living one has
    ├── ProtocolError                    somebody broke the rules of demand
    │   ├── HandlerError                 you: a callback returned what it must not
    │   └── PeerError                    the other side: it sent what was not asked, or to the wrong role
    ├── DispatchError                    an event cannot be routed (its hash raised, its partition is unknown, ...)
    ├── BufferOverflowError              more events than were asked, and no room to keep them
    ├── SubscriptionError                a subscription was refused, or there is nobody to subscribe to
    ├── HookError                        a hook of yours raised (``dead_letter``, ...); ``__cause__`` is what it raised
    ├── RestartLimitError                a supervisor gave up: too many restarts in too short a time
    ├── RunError (also RuntimeError)     ``headgate.run`` was called where it cannot run
    ├── EventError (also ValueError)     an event cannot be recorded, or what is recorded cannot be read as its type
    ├── ReversalError                    an event cannot be undone: it was already, or has no inverse
    ├── StoreError                       what keeps messages or events cannot be read or written
    │   └── EventLogError                an event log cannot do what it was asked: locked, full, not one of ours, ...
    │       ├── AppendConflictError      a stream is at another version than was expected
    │       ├── AppendConditionError     there is an event that must not be there
    │       ├── FencedError              a checkpoint belongs to somebody else by now
    │       ├── RebuildingError          somebody else is building that projection anew
    │       └── DamagedLogError          what was recorded is not what is read
    ├── StageCrashed                     a stage ended abnormally; ``__cause__`` is what its handler raised
    ├── NoStageError                     a call to a stage that has ended, or that never was
    ├── CrossingError                    something cannot go to another process, or come back from there
    ├── WorkerLostError                  the process of a stage has ended under it
    ├── SourceError                      the source of a pipeline raised; ``__cause__`` is what
    ├── AcknowledgementError             a message was to be settled that cannot be (any more)
    │   ├── DuplicateSettlementError     it has its outcome already
    │   └── LeaseExpiredError            its lease was over: its source has handed it to somebody else
    ├── UnknownBatcherError              a message was put to a batcher that its pipeline does not have
    ├── HandlerTimeoutError (also TimeoutError)    a handler, or a deferred acknowledgement, took too long
    ├── QueueFullError                   a bounded queue was put to, and has no room
    ├── QueueClosedError                 a queue was put to that takes no more
    ├── RecordError                      a record of a file cannot be read
    ├── FlowError                        a flow cannot be built or run to its end
    │   ├── OperatorError                a function of yours raised; it has the event, the operator and the traceback
    │   └── FlowInterruptedError         a worker died, and what it held cannot be done again
    └── AugmentError                     a message could not be looked up; ``__cause__`` is what the look-up raised
        ├── LookupTimeoutError (also TimeoutError)    the look-up took too long
        └── CircuitOpenError             nobody asked, as the outside system has failed too often

    Stop, Ignore                         signals: raise them in a handler; they are no errors
    Retry, Reject, Skip                  the same, in a pipeline's handlers, about one message

Every message names the stage, the option or callback, what was expected and what came.
"""

from __future__ import annotations

from typing import Any


class HeadgateError(Exception):
    """The root of every error of this library."""


class OptionError(HeadgateError, ValueError):
    """An option is unknown, of the wrong type or out of range.

    Attributes:
        where: What the option belongs to, e.g. ``"Child(Counter)"``.
        option: The option's name.
        expected: What would have been accepted.
        got: The value that came.
    """

    def __init__(self, where: str, option: str, expected: str, got: Any) -> None:
        """Name the place, the option, what it takes and what it was given."""
        super().__init__(where, option, expected, got)
        self.where = where
        self.option = option
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.where}: expected option {self.option!r} to be {self.expected}, got: {short(self.got)}"


class NameTakenError(OptionError):
    """A second stage wants the name of a living one. ``got`` is the name."""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.where}: the name {self.got!r} is taken by a living stage"


class FlowError(HeadgateError):
    """A flow cannot be built as it was described, or did not get to its end."""


class OperatorError(FlowError):
    """A function of yours raised in a flow. ``__cause__`` is what, where it could be kept.

    Attributes:
        operator: Which operator it belongs to, and its line.
        event: What it was given.
        error: The type of what it raised, and what that says.
        traceback: Of the worker, as text.
    """

    def __init__(self, operator: str, event: Any, error: str, traceback: str) -> None:
        """Name the operator, the event and the error."""
        super().__init__(operator, event, error, traceback)
        self.operator = operator
        self.event = event
        self.error = error
        self.traceback = traceback

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.operator} raised {self.error}, for {short(self.event)}"


class FlowInterruptedError(FlowError):
    """A worker of a flow died, and what it held cannot be done again: its input is gone, or results were given away.

    Attributes:
        worker: Its name.
        layer: What it did.
        reason: What it died of.
        why: Why nobody else could go on for it.
    """

    def __init__(self, worker: str, layer: str, reason: str, why: str) -> None:
        """Name the worker, its layer, the reason, and why that ends the flow."""
        super().__init__(worker, layer, reason, why)
        self.worker = worker
        self.layer = layer
        self.reason = reason
        self.why = why

    def __str__(self) -> str:
        """Say it in one line."""
        return f"worker {self.worker!r} of the flow ({self.layer}) was lost: {self.reason}; {self.why}"


class ProtocolError(HeadgateError):
    """A rule of the demand protocol was broken."""


class HandlerError(ProtocolError):
    """A callback of yours returned what it must not.

    Attributes:
        stage: The stage's name.
        callback: E.g. ``"handle_events"``.
        expected: What the callback may return.
        got: What it returned.
    """

    def __init__(self, stage: str, callback: str, expected: str, got: Any) -> None:
        """Name the stage, its callback, what may be returned and what was."""
        super().__init__(stage, callback, expected, got)
        self.stage = stage
        self.callback = callback
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        """Say it in one line."""
        kind = type(self.got).__name__
        return (
            f"stage {self.stage!r}: expected {self.callback} to return {self.expected}, got {kind}: {short(self.got)}"
        )


class PeerError(ProtocolError):
    """The other end of a subscription sent what was not asked, or to the wrong role."""


class DispatchError(HeadgateError):
    """An event cannot be routed. Only that event is left out (and counted); everything else goes on.

    Attributes:
        stage: The name of the stage that dispatches.
        option: The option at fault, e.g. ``"hash"``.
        expected: What the option must give.
        event: The event that cannot be routed.
    """

    def __init__(self, stage: str, option: str, expected: str, got: str, event: Any) -> None:
        """Name the stage, the option, what it must give and what it gave for which event."""
        super().__init__(stage, option, expected, got, event)
        self.stage = stage
        self.option = option
        self.expected = expected
        self.got = got
        self.event = event

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"stage {self.stage!r}: expected option {self.option!r} to give {self.expected}, "
            f"got {' '.join(self.got.split())} for event {short(self.event)}"
        )


class BufferOverflowError(HeadgateError):
    """More events came than were asked for, and the buffer has no room for the surplus.

    Attributes:
        stage: The stage's name.
        buffer_size: The bound of its buffer, in events.
        refused: The events that were not taken, in order: nothing is lost silently.
    """

    def __init__(self, stage: str, buffer_size: int, refused: Any) -> None:
        """Name the stage and its bound, and hand the surplus back."""
        super().__init__(stage, buffer_size, refused)
        self.stage = stage
        self.buffer_size = buffer_size
        self.refused = refused

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"stage {self.stage!r}: expected at most the events that were asked for plus {self.buffer_size} "
            f"(option 'buffer_size'), got {len(self.refused)} more; "
            "emit no more than the demand, raise buffer_size, or choose buffer_keep='first' or 'last'"
        )


class SubscriptionError(HeadgateError):
    """A subscription was refused, or there is nobody to subscribe to.

    Attributes:
        consumer: Name of the stage that wanted to subscribe.
        producer: Name of the stage that it wanted.
        missing: True when there is no such stage (any more); False when the stage refused.
    """

    def __init__(self, consumer: str, producer: str, why: str, *, missing: bool = False) -> None:
        """Name both stages and say why."""
        super().__init__(consumer, producer, why)
        self.consumer = consumer
        self.producer = producer
        self.why = why
        self.missing = missing

    def __str__(self) -> str:
        """Say it in one line."""
        return f"stage {self.consumer!r} cannot subscribe to {self.producer!r}: {self.why}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep ``missing`` when the error crosses a process."""
        return (_subscription_error, (self.consumer, self.producer, self.why, self.missing))


def _subscription_error(consumer: str, producer: str, why: str, missing: bool) -> SubscriptionError:  # noqa: FBT001 (positional for pickle)
    return SubscriptionError(consumer, producer, why, missing=missing)


class StageCrashed(HeadgateError):  # noqa: N818 (a fact about a stage, and the name that the docs use)
    """A stage ended abnormally. ``__cause__`` is the exception that its handler raised, when there was one.

    Attributes:
        stage: The stage's name.
        reason: Why it ended: the exception, or the abnormal reason that it was stopped with.
    """

    def __init__(self, stage: str, reason: Any) -> None:
        """Name the stage and keep the reason."""
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason
        if isinstance(reason, BaseException):
            self.__cause__ = reason

    def __str__(self) -> str:
        """Say it in one line."""
        if isinstance(self.reason, BaseException):
            return f"stage {self.stage!r} crashed: {_line(self.reason)}"
        return f"stage {self.stage!r} stopped abnormally: {short(self.reason)}"


class HookError(HeadgateError):
    """A hook of yours raised; ``__cause__`` is what.

    Attributes:
        hook: The option that it was given as, e.g. ``"dead_letter"``.
        where: The name of the stage or supervisor that called it.
    """

    def __init__(self, hook: str, where: str, error: BaseException) -> None:
        """Name the hook and who called it."""
        super().__init__(hook, where, error)
        self.hook = hook
        self.where = where
        self.__cause__ = error

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.where!r}: expected the hook {self.hook!r} to return, it raised {_line(self.args[2])}"


class RestartLimitError(HeadgateError):
    """A supervisor gave up: its children had to be restarted too often. ``__cause__`` is why the last one ended.

    Attributes:
        supervisor: Its name.
        child: The id of the child that ended last.
        max_restarts: How many restarts it allows,
        max_seconds: within how many seconds.
    """

    def __init__(self, supervisor: str, child: str, max_restarts: int, max_seconds: float, reason: Any) -> None:
        """Name the supervisor and the child, the limit, and why the child ended."""
        super().__init__(supervisor, child, max_restarts, max_seconds, reason)
        self.supervisor = supervisor
        self.child = child
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self.reason = reason
        if isinstance(reason, BaseException):
            self.__cause__ = reason

    def __str__(self) -> str:
        """Say it in one line."""
        reason = _line(self.reason) if isinstance(self.reason, BaseException) else short(self.reason)
        return (
            f"supervisor {self.supervisor!r} gave up: expected at most {self.max_restarts} restarts within "
            f"{self.max_seconds:g} s, then child {self.child!r} ended again: {reason}"
        )


class RunError(HeadgateError, RuntimeError):
    """`headgate.run` was called where it cannot run: not in the main thread, or where an event loop runs already."""


class EventError(HeadgateError, ValueError):
    """An event cannot be recorded, or what is recorded cannot be read as its type.

    Attributes:
        where: The type of the event, or what else it is about.
        field: What of it is wrong.
        expected: What would have been accepted.
        got: What came.
    """

    def __init__(self, where: str, field: str, expected: str, got: Any) -> None:
        """Name the event, what of it is wrong, what is accepted and what came."""
        super().__init__(where, field, expected, got)
        self.where = where
        self.field = field
        self.expected = expected
        self.got = got

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.where}: expected {self.field} to be {self.expected}, got: {short(self.got)}"


class ReversalError(HeadgateError):
    """An event cannot be undone.

    Attributes:
        event: Which one, e.g. ``"event 7 (deposited)"``.
        why: Why not.
    """

    def __init__(self, event: str, why: str) -> None:
        """Name the event and say why."""
        super().__init__(event, why)
        self.event = event
        self.why = why

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.event} cannot be reversed: {self.why}"


class StoreError(HeadgateError):
    """A file that keeps messages cannot be read or written. ``__cause__`` is what the database said, when it did.

    Attributes:
        path: The file.
        doing: What was tried, e.g. ``"put"``.
        why: What is wrong.
        advice: What to do about it.
    """

    def __init__(self, path: str, doing: str, why: str, advice: str) -> None:
        """Name the file, what was tried, what is wrong and what to do."""
        super().__init__(path, doing, why, advice)
        self.path = path
        self.doing = doing
        self.why = why
        self.advice = advice

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.path}: cannot {self.doing}: {' '.join(self.why.split())}; {self.advice}"


class EventLogError(StoreError):
    """An event log cannot do what it was asked; ``__cause__`` is what its database said, when it did.

    Attributes:
        store: Which one: a path, or an address without its password.
        why: What is the matter.
    """

    def __init__(self, store: str, why: str) -> None:
        """Name the store and say what is the matter."""
        super().__init__(store, "", why, "")
        self.args = (store, why)
        self.store = store

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.store}: {' '.join(self.why.split())}"


class AppendConflictError(EventLogError):
    """A stream is at another version than was expected: somebody else has appended to it.

    Attributes:
        stream: Which one.
        expected_version: What it was expected to be at; 0: it was expected to be empty.
        version: What it is at.
    """

    def __init__(self, store: str, stream: str, expected_version: int, version: int) -> None:
        """Name the stream and both versions."""
        super().__init__(store, f"stream {stream!r}: expected version {expected_version}, it is at {version}")
        self.args = (store, stream, expected_version, version)
        self.stream = stream
        self.expected_version = expected_version
        self.version = version


class AppendConditionError(EventLogError):
    """There is an event that must not be there: since it was looked, somebody has appended what the decision rests on.

    Attributes:
        stream: Where was to be appended.
        after: The position that was looked up to.
        position: Of the first event behind it that was not to be there.
    """

    def __init__(self, store: str, stream: str, after: int, position: int) -> None:
        """Name the stream and both positions."""
        super().__init__(
            store, f"stream {stream!r}: expected no such event after position {after}, there is {position}"
        )
        self.args = (store, stream, after, position)
        self.stream = stream
        self.after = after
        self.position = position


class FencedError(EventLogError):
    """A checkpoint belongs to somebody else by now: what was done for it must not count."""


class RebuildingError(EventLogError):
    """Somebody else is building a projection anew.

    Attributes:
        projection: Its name.
    """

    def __init__(self, store: str, projection: str) -> None:
        """Name the projection."""
        super().__init__(store, f"projection {projection!r} is being built anew by somebody else")
        self.args = (store, projection)
        self.projection = projection


class DamagedLogError(EventLogError):
    """What was recorded is not what is read.

    Attributes:
        position: The first position where it shows; None: it cannot be told.
    """

    def __init__(self, store: str, why: str, position: int | None = None) -> None:
        """Name the store, the damage and where it is."""
        super().__init__(store, why if position is None else f"position {position}: {why}")
        self.args = (store, why, position)
        self.position = position


class NoStageError(HeadgateError):
    """A stage was called that has ended, or that never was."""


class CrossingError(HeadgateError):
    """Something cannot go to another process (an open file, a lock, a generator), or does not come up there."""


class WorkerLostError(HeadgateError):
    """The process that a stage ran in has ended under it.

    Attributes:
        node: Which worker.
        pid: Its process id; None when it is not known.
        how: How it ended, e.g. ``"was killed by SIGKILL"``.
    """

    def __init__(self, node: str, pid: int | None, how: str) -> None:
        """Name the worker, and say how it ended."""
        super().__init__(node, pid, how)
        self.node = node
        self.pid = pid
        self.how = how

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.node}{'' if self.pid is None else f' (process {self.pid})'} {self.how}"


class SourceError(HeadgateError):
    """The source of a pipeline raised; ``__cause__`` is what. It is tried again, after a while.

    Attributes:
        source: The source's name.
        method: What was called, e.g. ``"fetch"``.
        pending: How many messages this was about; 0 for ``"fetch"``.
    """

    def __init__(self, source: str, method: str, error: BaseException, pending: int = 0) -> None:
        """Name the source and what was called."""
        super().__init__(source, method, error, pending)
        self.source = source
        self.method = method
        self.pending = pending
        self.__cause__ = error

    def __str__(self) -> str:
        """Say it in one line."""
        about = f" for {self.pending} messages" if self.pending else ""
        return f"source {self.source!r}: expected {self.method}{about} to return, it raised {_line(self.args[2])}"


class AcknowledgementError(HeadgateError):
    """A message was to be settled that cannot be (any more).

    Attributes:
        source: The name of its source.
        event: The message.
    """

    def __init__(self, source: str, event: Any, why: str) -> None:
        """Name the source and the message, and say why."""
        super().__init__(source, event, why)
        self.source = source
        self.event = event
        self.why = why

    def __str__(self) -> str:
        """Say it in one line."""
        return f"source {self.source!r}: {self.why}: {short(self.event)}"


class DuplicateSettlementError(AcknowledgementError):
    """A message was to be settled that has its outcome already. The first one stands."""


class LeaseExpiredError(AcknowledgementError):
    """A message was handled, but its lease was over by then: its source has handed it to somebody else."""


class UnknownBatcherError(HeadgateError):
    """A message was put to a batcher that its pipeline does not have. The message fails.

    Attributes:
        pipeline: The pipeline's name.
        batcher: What was asked for.
        known: The names that there are.
    """

    def __init__(self, pipeline: str, batcher: Any, known: tuple[str, ...]) -> None:
        """Name the pipeline, the batcher that was asked for, and those that there are."""
        super().__init__(pipeline, batcher, known)
        self.pipeline = pipeline
        self.batcher = batcher
        self.known = known

    def __str__(self) -> str:
        """Say it in one line."""
        known = ", ".join(map(repr, self.known)) or "none"
        return f"pipeline {self.pipeline!r}: there is no batcher {short(self.batcher)}; there are: {known}"


class HandlerTimeoutError(HeadgateError, TimeoutError):
    """A handler, or a deferred acknowledgement, took longer than it may.

    Attributes:
        stage: The name of the stage or pipeline.
        callback: E.g. ``"handle_message"``; ``"deadline"``: a message was not begun with, as its deadline was over.
        seconds: How long it may take.
    """

    def __init__(self, stage: str, callback: str, seconds: float) -> None:
        """Name the stage, the callback, and its limit."""
        super().__init__(stage, callback, seconds)
        self.stage = stage
        self.callback = callback
        self.seconds = seconds

    def __str__(self) -> str:
        """Say it in one line."""
        if self.callback == "deadline":
            return f"stage {self.stage!r}: expected a message before its deadline, that was over when its turn came"
        return f"stage {self.stage!r}: expected {self.callback} to be done within {self.seconds:g} s, it was not"


class QueueFullError(HeadgateError):
    """A bounded queue was put to, and has no room. Nothing was put.

    Attributes:
        queue: Its name.
        size: How many messages may wait in it.
        refused: How many were to be put.
    """

    def __init__(self, queue: str, size: int, refused: int) -> None:
        """Name the queue and its bound."""
        super().__init__(queue, size, refused)
        self.queue = queue
        self.size = size
        self.refused = refused

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"queue {self.queue!r}: expected room for {self.refused} more, it holds at most {self.size} "
            "(option 'size'); put later, or wait for room"
        )


class QueueClosedError(HeadgateError):
    """A queue was put to that takes no more. ``queue`` is its name."""

    def __init__(self, queue: str) -> None:
        """Name the queue."""
        super().__init__(queue)
        self.queue = queue

    def __str__(self) -> str:
        """Say it in one line."""
        return f"queue {self.queue!r}: expected to be put to before its input was closed"


class RecordError(HeadgateError):
    """A record of a file cannot be read: a row with wrong fields, no JSON, bytes that are no text, ...

    Attributes:
        path: The file.
        line: The number of its (first) line, from 1.
        offset: Where it begins, in bytes.
        why: What was expected and what came.
    """

    def __init__(self, path: str, line: int, offset: int, why: str) -> None:
        """Name the place and say why."""
        super().__init__(path, line, offset, why)
        self.path = path
        self.line = line
        self.offset = offset
        self.why = why

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.path}:{self.line}: {' '.join(self.why.split())}"


class AugmentError(HeadgateError):
    """A message could not be looked up. ``__cause__`` is what the look-up raised.

    Attributes:
        augment: The name of the augment.
        key: What was looked up.
        error: Why: an exception, or what to say.
    """

    def __init__(self, augment: str, key: Any, error: Any) -> None:
        """Name the augment and the key, and say why."""
        super().__init__(augment, key, error)
        self.augment = augment
        self.key = key
        self.error = error
        if isinstance(error, BaseException):
            self.__cause__ = error

    def __str__(self) -> str:
        """Say it in one line."""
        why = _line(self.error) if isinstance(self.error, BaseException) else self.error
        return f"augment {self.augment!r}: cannot look up {short(self.key)}: {why}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross a process, also as a TimeoutError, which would take the arguments for those of an OSError."""
        return (type(self), (self.augment, self.key, self.error))


class LookupTimeoutError(AugmentError, TimeoutError):
    """A look-up took longer than it may. ``error`` is how many seconds that is."""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"augment {self.augment!r}: looking up {short(self.key)} was not done within {self.error:g} s"


class CircuitOpenError(AugmentError):
    """Nobody asked, as the outside system has failed too often. ``error``: in how many seconds somebody tries."""

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"augment {self.augment!r}: {short(self.key)} was not looked up, as what is asked has failed too often "
            f"(next try in {self.error:.3g} s)"
        )


class Stop(Exception):  # noqa: N818 (a signal, not an error)
    """Raise it in a handler to end the stage with a reason (``"normal"`` unless given)."""

    def __init__(self, reason: Any = "normal") -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


class Ignore(Exception):  # noqa: N818 (a signal, not an error)
    """Raise it in ``__init__`` or ``started``: the stage is not to run; ``System.start`` raises it."""


class Retry(Exception):  # noqa: N818 (a signal, not an error)
    """Raise it in a pipeline's handler to have the message tried again, whatever its retry policy says.

    It counts as an attempt, so that a message is not tried for ever.

    Args:
        after: Seconds to wait before that; None: as its policy says.
        reason: Why; shown when it is given up in the end.
    """

    def __init__(self, after: float | None = None, reason: Any = "retry") -> None:
        """Keep both."""
        super().__init__(reason)
        self.after = after
        self.reason = reason


class Reject(Exception):  # noqa: N818 (a signal, not an error)
    """Raise it in a pipeline's handler to give a message up at once: it is a dead letter, and is not tried again."""

    def __init__(self, reason: Any = "rejected") -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


class Skip(Exception):  # noqa: N818 (a signal, not an error)
    """Raise it in a pipeline's handler to be done with a message: it is acknowledged, and goes no further."""

    def __init__(self, reason: Any = "skipped") -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


def short(value: Any, limit: int = 200) -> str:
    """Show a value in one line, whatever its own ``repr`` does."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # noqa: BLE001 (the error that is being told must not be lost over it)
        text = f"<{type(value).__name__} that cannot be shown>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _line(error: BaseException) -> str:
    """Show an exception in one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # noqa: BLE001 (as above)
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
