"""`Message` and `Source`: what pipelines, and the connectors that they read from, agree on.

A `Source` hands out messages and is told what became of them. A `Message` is handed out once and ends in exactly one
*outcome*: acknowledged, failed, requeued or dead-lettered. Whoever keeps the books about that is a message's *keeper*;
a pipeline gives each message its keeper when it has fetched it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from traceback import format_exception
from typing import Any, ClassVar, Final, Literal, Protocol

ACKNOWLEDGED: Final = "acknowledged"
"""It was handled. Its source forgets it."""
FAILED: Final = "failed"
"""It was given up, and its source forgets it as well: nobody wants to see it again."""
REQUEUED: Final = "requeued"
"""Its source has it again, and will hand it out again."""
DEAD_LETTERED: Final = "dead_lettered"
"""It was given up, and is kept for somebody to look at."""

OUTCOMES: Final = (ACKNOWLEDGED, FAILED, REQUEUED, DEAD_LETTERED)

DEFERRED: Final = "deferred"
"""No outcome yet: whoever holds its handle will settle it."""

BULK: Final = "bulk"
FLUSH: Final = "flush"

DEFAULT: Final = "default"
"""The name of the batcher that a message goes to unless told otherwise, and of the only processing step."""


class Keeper(Protocol):
    """Keeps the books about a message."""

    def settle(self, message: Message, outcome: str, delay: float = 0.0, *, counted: bool = True) -> None:
        """Take note of the outcome of a message; a second one is an error of the caller, and is counted."""
        ...

    def duplicate(self, message: Message, outcome: str) -> None:
        """Take note that somebody wants to settle a message that has its outcome already."""
        ...

    def configure(self, message: Message, options: dict[str, Any]) -> None:
        """Change how this one message is acknowledged."""
        ...

    def defer(self, message: Message, timeout: float) -> Deferred:
        """Let a message be settled later."""
        ...


class Deferred(Protocol):
    """Settles a message that was deferred, once. May be called from any thread."""

    def ack(self) -> None:
        """It was handled."""
        ...

    def fail(self, reason: Any) -> None:
        """It has failed; the pipeline and its source decide what becomes of it, it is not tried again here."""
        ...

    def requeue(self, delay: float = 0.0) -> None:
        """Let its source hand it out again, after so many seconds."""
        ...


class _Metadata:
    """A dict for each message that wants one: most never do, so it is made when it is looked at."""

    def __get__(self, message: Message | None, owner: type[Message]) -> Any:
        if message is None:
            return self
        made: dict[str, Any] = {}
        message.__dict__["metadata"] = made
        return made


class Message:
    """One message on its way through a pipeline.

    Args:
        data: The payload; anything.
        metadata: What the source says about it. Default: an empty dict.
        key: What it belongs to (a user, a conversation, ...): for order and fairness by key.
        receipt: By what the source knows it again; opaque to everybody else.
        deliveries: How often it has been handed out, this time included.

    Attributes:
        batcher: The name of the batcher (or route) that it goes to from the processors. Default ``"default"``.
        deadline: Unix time in seconds from which on it is not worth handling; None (default): it always is.
        reason: Why it has failed; None as long as it has not.
        outcome: How it ended; None as long as it is under way, ``"deferred"`` while somebody holds its handle.
        attempts: How often a handler has failed with it since it was fetched.
        keeper: Whom to tell how it ended. This and what follows is the pipeline's.
        owner: Who is at it.
        batching: Its batch key and mode, if they are not the usual ones: most messages have neither.
        step: The number of the step that it goes on with.
    """

    # Defaults stand on the class: making a message then writes only what is its own.
    receipt: Any = None
    key: Any = None
    deliveries: int = 1
    batcher: str = DEFAULT
    batching: tuple[Any, str] | None = None
    deadline: float | None = None
    reason: Any = None
    outcome: str | None = None
    metadata: dict[str, Any] = _Metadata()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    attempts: int = 0
    keeper: Keeper | None = None
    owner: Any = None
    step: int = 0

    def __init__(
        self,
        data: Any,
        metadata: dict[str, Any] | None = None,
        key: Any = None,
        *,
        receipt: Any = None,
        deliveries: int = 1,
    ) -> None:
        """Keep what is not the default."""
        self.data = data
        if metadata is not None:
            self.metadata = metadata
        if key is not None:
            self.key = key
        if receipt is not None:
            self.receipt = receipt
        if deliveries != 1:
            self.deliveries = deliveries

    def __repr__(self) -> str:
        """Show the payload and what has become of it."""
        text = repr(self.data)
        state = self.outcome or ("failed" if self.reason is not None else "under way")
        return f"<Message {text if len(text) <= 60 else text[:57] + '...'} {state}>"  # noqa: PLR2004 (one line)

    @property
    def batch_key(self) -> Any:
        """Within a batcher, messages of different keys are never in one batch. Default None."""
        return None if self.batching is None else self.batching[0]

    @batch_key.setter
    def batch_key(self, key: Any) -> None:
        self.batching = (key, BULK if self.batching is None else self.batching[1])

    @property
    def batch_mode(self) -> str:
        """``"bulk"`` (default), or ``"flush"``: its batch is closed at once."""
        return BULK if self.batching is None else self.batching[1]

    @batch_mode.setter
    def batch_mode(self, mode: str) -> None:
        self.batching = (None if self.batching is None else self.batching[0], mode)

    # -- what a handler says about it ---------------------------------------------------------------------------------

    @property
    def ok(self) -> bool:
        """Whether nothing has failed with it."""
        return self.reason is None

    def fail(self, reason: Any) -> Message:
        """Mark it as failed: it goes to no batcher, and its retry policy decides what becomes of it.

        Args:
            reason: Why: an exception or anything else that is not None.
        """
        self.reason = "failed" if reason is None else reason
        return self

    def put_data(self, data: Any) -> Message:
        """Replace the payload."""
        self.data = data
        return self

    def put_batcher(self, batcher: str) -> Message:
        """Choose the batcher (or route) that it goes to."""
        self.batcher = batcher
        return self

    def put_batch_key(self, key: Any) -> Message:
        """Choose which messages it may share a batch with."""
        self.batch_key = key
        return self

    def put_batch_mode(self, mode: Literal["bulk", "flush"]) -> Message:
        """Choose whether its batch waits for more (``"bulk"``) or is closed at once (``"flush"``)."""
        self.batch_mode = mode
        return self

    def configure_ack(self, **options: Any) -> Message:
        """Change how this one message is acknowledged.

        Args:
            **options: ``on_failure="retry" | "dead_letter" | "discard" | "requeue"``, ``delay=`` (seconds, for
                ``"requeue"``), and what its source knows besides.

        Raises:
            OptionError: An option that its source does not have, or a wrong value.
        """
        if self.keeper is not None:
            self.keeper.configure(self, options)
        return self

    def ack_immediately(self) -> Message:
        """Acknowledge it now (or settle it as failed, if it is): whatever happens later changes nothing any more."""
        if self.keeper is not None and self.outcome is None:
            self.keeper.settle(self, ACKNOWLEDGED if self.reason is None else FAILED, 0.0)
        return self

    def defer(self, timeout: float = 30.0) -> Deferred:
        """Let it be settled later, by whoever holds the handle; its lease is extended meanwhile.

        Args:
            timeout: Seconds after which it has failed, with a `HandlerTimeoutError`.

        Returns:
            The handle.

        Raises:
            RuntimeError: It does not come from a pipeline that runs.
        """
        if self.keeper is None:
            raise RuntimeError("Message.defer: expected a message of a pipeline that runs, nobody keeps its books")
        return self.keeper.defer(self, timeout)

    def recover(self, batcher: str | None = None) -> Message:
        """Take its failure back, in ``handle_failed``: it is acknowledged, or goes to a batcher after all."""
        self.reason = None
        if batcher is not None:
            self.batcher = batcher
        return self

    # -- one into many, many into one ---------------------------------------------------------------------------------

    def split(self, payloads: Iterable[Any]) -> list[Message]:
        """Make many messages of it: it is acknowledged when all of them are.

        It ends as the worst of them: dead-lettered, failed, requeued, acknowledged, in this order. Without payloads it
        is acknowledged at once.

        Args:
            payloads: The data of each.

        Returns:
            The messages, with the metadata, key and batching of this one; to be returned by the handler.
        """
        parts = [_derived(self, data) for data in payloads]
        Joint([self], parts)
        return parts

    @property
    def traceback(self) -> str:
        """The traceback of the exception that it failed with, or its reason, as text."""
        reason = self.reason
        if reason is None:
            return ""
        return "".join(format_exception(reason)) if isinstance(reason, BaseException) else f"{reason!r}\n"


def merge(messages: Iterable[Message], data: Any) -> Message:
    """Make one message of many: all of them end as it does.

    A handler that collects messages lets those wait by `Message.defer`, and returns the merged one with the last; a
    batch handler returns it in place of those that it was made of.

    Args:
        messages: At least one.
        data: The payload of the new one, which takes metadata, key and batching of the first.
    """
    parents = list(messages)
    if not parents:
        raise ValueError("headgate.merge: expected at least one message, got none")
    made = _derived(parents[0], data)
    Joint(parents, [made])
    return made


def _derived(parent: Message, data: Any) -> Message:
    made = Message(data, dict(parent.__dict__["metadata"]) if "metadata" in parent.__dict__ else None, parent.key)
    made.deliveries = parent.deliveries
    made.batcher = parent.batcher
    made.batching = parent.batching
    made.deadline = parent.deadline
    return made


class Joint:
    """The keeper of derived messages: settles their parents when all of them have ended.

    Args:
        parents: Who is to end as they do.
        parts: The derived messages.
    """

    __slots__ = ("_counted", "_deferred", "_delay", "_left", "_parents", "_reason", "_worst")

    _ORDER: ClassVar[tuple[str, ...]] = (ACKNOWLEDGED, REQUEUED, FAILED, DEAD_LETTERED)

    def __init__(self, parents: list[Message], parts: list[Message]) -> None:
        """Become the keeper of the parts."""
        self._parents = parents
        self._left = len(parts)
        self._deferred = 0
        self._worst = ACKNOWLEDGED
        self._delay = 0.0
        self._counted = False  # one of those that go back was handled
        self._reason: Any = None
        for part in parts:
            part.keeper = self
        if not parts:
            self._end()

    @property
    def parents(self) -> list[Message]:
        """Who ends as they do."""
        return self._parents

    @property
    def left(self) -> int:
        """How many have not ended, those that were ever deferred not counted."""
        return self._left - self._deferred

    def settle(self, message: Message, outcome: str, delay: float = 0.0, *, counted: bool = True) -> None:
        """Take note of one; with the last, its parents end."""
        if message.outcome is not None:
            self.duplicate(message, outcome)
            return
        message.outcome = outcome
        order = self._ORDER
        if order.index(outcome) > order.index(self._worst):
            self._worst, self._reason = outcome, message.reason
        if outcome == REQUEUED:
            self._counted = self._counted or counted
        self._delay = max(self._delay, delay)
        self._left -= 1
        if not self._left:
            self._end()

    def duplicate(self, message: Message, outcome: str) -> None:
        """Pass it on: whoever keeps the books of the parents counts it."""
        keeper = self._parents[0].keeper
        if keeper is not None:
            keeper.duplicate(message, outcome)

    def configure(self, message: Message, options: dict[str, Any]) -> None:  # noqa: ARG002 (it is for its parents)
        """Pass it on: it is for the source of the parents."""
        for parent in self._parents:
            if parent.keeper is not None:
                parent.keeper.configure(parent, options)

    def defer(self, message: Message, timeout: float) -> Deferred:
        """Pass it on."""
        keeper = self._parents[0].keeper
        if keeper is None:
            raise RuntimeError("Message.defer: expected a message of a pipeline that runs, nobody keeps its books")
        self._deferred += 1
        return keeper.defer(message, timeout)

    def _end(self) -> None:
        for parent in self._parents:
            if self._reason is not None and parent.reason is None:
                parent.reason = self._reason
            if parent.keeper is not None and parent.outcome in (None, DEFERRED):  # of those to be merged, some may wait
                parent.keeper.settle(parent, self._worst, self._delay, counted=self._counted)


def _unheard() -> None:
    """Say that there is something to fetch again; nobody hears it until a pipeline has set this."""


class Source:
    """Where messages come from. Subclass it to connect a pipeline to something new.

    What it promises: a message that was fetched and has no outcome is handed out again when its lease has passed, or
    when the source is opened again (if it `redelivers`). What a pipeline promises: every message that was fetched is
    given to exactly one of `ack`, `nack`, `discard` and `dead_letter`, once; no more is fetched than was asked for by
    the stages behind; `fetch` is never called while another `fetch` is under way, and never after `drain`.

    Each method may be plain or async. Plain ones are called on the event loop, so they must not block; with
    ``blocking = True`` all of them are called in a thread that belongs to this source, one at a time.
    `headgate.testing.check_source` checks a source of your own.

    Attributes:
        name: For statistics and errors. Default: the class's name.
        blocking: Its methods block: they are called in a thread of its own.
        redelivers: What is given to `nack` is handed out again.
        keeps_letters: It has a place for dead letters of its own, `dead_letter`.
        ordered: It hands out messages of one key in order, and none of them while an earlier one is under way: what
            comes back by `nack` comes before the later ones of its key.
        lease: Seconds after which a message without outcome is handed out to somebody else unless `extend` was called;
            None: never.
        poll: Seconds after which to fetch again when there was nothing; None: only when `wake` was called.
        lookahead: Messages that may be fetched ahead of demand by a pipeline that chooses the next one (by fairness or
            priority); low where that costs something, as leases do. Default 1,000.
        failed: What `fetch` has raised it will raise for ever: the pipeline finishes what is under way, and fails.
        max_deliveries: How often a message is handed out before it is a dead letter; None: up to the pipeline.
        wake: Set by the pipeline: call it, from any thread, when there is something to fetch again.
    """

    name: str = ""
    blocking: bool = False
    redelivers: bool = False
    keeps_letters: bool = False
    ordered: bool = False
    lease: float | None = None
    poll: float | None = None
    lookahead: int = 1000
    failed: bool = False
    max_deliveries: int | None = None
    wake: Callable[[], None] = staticmethod(_unheard)

    def prepare(self, options: dict[str, Any]) -> Any:  # noqa: ARG002 (for subclasses)
        """Change the options of a pipeline that is made with this source, before anything starts.

        Args:
            options: Those that it was given, by name; they are checked again afterwards.

        Returns:
            None, the options, or a pair of the options and a list of children that are to run in front of the others.
        """
        return None

    def open(self) -> Any:
        """Be ready to be fetched from. Called once before everything else."""

    def close(self) -> Any:
        """Give back connections and files. Called once, last."""

    def fetch(self, count: int) -> Any:
        """Hand out messages.

        Args:
            count: How many at most, at least 1.

        Returns:
            A list of `Message`; an empty one when there is nothing now. An async one may wait until there is
            something, but returns when `drain` is called. None: there will be nothing more, but for what comes back
            by `nack`; after that it is called again.
        """
        raise NotImplementedError

    def ack(self, messages: Sequence[Message]) -> Any:
        """Forget messages that were handled.

        Returns:
            None, or a list of those that could not be acknowledged since their lease had expired.
        """

    def nack(self, messages: Sequence[Message], delay: float = 0.0, *, counted: bool = True) -> Any:
        """Take messages back, to hand them out again.

        Args:
            messages: In the order in which they were fetched.
            delay: Seconds to wait before that.
            counted: Whether that delivery counts; False: nobody has tried to handle them.

        Returns:
            As `ack`.
        """

    def discard(self, messages: Sequence[Message]) -> Any:
        """Forget messages that have failed for good; ``reason`` says why. Default: as `ack`."""
        return self.ack(messages)

    def dead_letter(self, messages: Sequence[Message]) -> Any:
        """Keep messages that have failed for good, with ``reason`` and ``traceback``. Only if `keeps_letters`."""
        raise NotImplementedError

    def extend(self, messages: Sequence[Message], seconds: float) -> Any:
        """Prolong the leases of messages that are being handled, to this many seconds from now.

        Returns:
            As `ack`.
        """

    def drain(self) -> Any:
        """Hand out nothing more: an async `fetch` that waits returns now."""

    def configure(self, message: Message, options: dict[str, Any]) -> None:  # noqa: ARG002 (for subclasses)
        """Take options of `Message.configure_ack` that the pipeline does not know.

        Raises:
            TypeError: There are none, or not these.
        """
        if options:
            raise TypeError(f"{self.name or type(self).__name__} has no option {next(iter(options))!r}")
