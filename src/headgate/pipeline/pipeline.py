"""`Pipeline`: the class that users subclass, and the recipe of its stages."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from headgate import telemetry
from headgate.errors import NoStageError, OptionError
from headgate.pipeline.augment import Augment
from headgate.pipeline.batching import KINDS as BATCH_KINDS
from headgate.pipeline.batching import BatchInfo, BatchStage
from headgate.pipeline.by_hand import Nowhere
from headgate.pipeline.crossing import state_of
from headgate.pipeline.options import (
    ON_FAILURE,
    RETRY,
    Batcher,
    Processors,
    check_handler_place,
    is_async,
    named,
    remark_of,
)
from headgate.pipeline.rates import RateLimiter
from headgate.pipeline.routes import Route
from headgate.pipeline.run import Run
from headgate.pipeline.running import PipelineRun
from headgate.pipeline.sourcing import SourceStage
from headgate.pipeline.wide import KINDS
from headgate.protocol.children import PERMANENT, Backoff
from headgate.runtime.options import Child, To, check_choice, check_count, check_name, refuse_unknown
from headgate.runtime.places import Process
from headgate.supervision.supervisor import Supervisor
from headgate.types import DEFAULT, Message, Source

if TYPE_CHECKING:
    from headgate.system import System

MAX_WAITING: Final = 1000
"""Messages that may be fetched and wait for a processor."""
PLAIN_DEMAND: Final = 10
_OURS: Final[dict[str, Any]] = {"max_deliveries": None}
"""Of all stages: what a stage was at that is killed is handled again. Who gives up messages are we, not the stages."""
_COME_BACK: Final = 86400.0
"""Seconds for which processors wait for their source stage to be started again: its supervisor decides."""


class NotSet:
    """What ``context`` is as long as nothing was given."""

    def __repr__(self) -> str:
        """Say so."""
        return "context_not_set"

    def __reduce__(self) -> str:
        """Be the same object in every process."""
        return "CONTEXT_NOT_SET"


CONTEXT_NOT_SET: Final = NotSet()


class Pipeline(Supervisor):
    """Messages from a source, through processors and batchers, each of them acknowledged when it is done with.

    ::

        class Orders(headgate.Pipeline):
            source = SQLiteQueue("orders.db")
            processors = Processors(concurrency=10)
            batchers = {"default": Batcher(size=100, timeout=1.0)}

            async def handle_message(self, message):
                message.data = await parse(message.data)

            def handle_batch(self, messages, batch):
                insert([message.data for message in messages])

        headgate.run(Orders())

    What is written on the class is the default of what the constructor is given. A pipeline is an app, and can be the
    child of a `Supervisor` as well; one object runs once at a time.

    Args:
        source: A `Source`, several of them, or another `Pipeline` (or a `route` of it), whose messages go on here.
            Default: none; messages are put in by hand.
        processors: `Processors`, or a dict of several steps by name, in order; also ``augment(...)``.
        batchers: `Batcher` by name; a single one is named ``"default"``. Without, messages are acknowledged when they
            were processed.
        name: A name for logs, and the beginning of its stages' names. Default: the class's name.
        id: Names it among its siblings. Default: the name.
        context: Anything; handlers find it as ``self.context``.
        partition_by: A function of a message, or ``"key"`` for its own: messages of one key are processed one at a
            time, in order, and go to the batchers in order. None is no key.
        fair_by: A function of a message, or ``"key"``: the users whose messages take turns.
        priority_by: A function of a message: its class, an integer; the lowest goes first.
        lookahead: Messages that may be fetched ahead of demand, to choose the next one of. Default: with ``fair_by`` or
            ``priority_by`` what the source says (1,000; a `MemoryQueue` 1,000,000), else 0.
        max_waiting: The most messages that may be fetched and wait for a processor. Default 1,000 or ``lookahead``; one
            key may have a tenth of that, if its source can take the rest back in order.
        rate_limit: A `RateLimiter` for fetching, of this pipeline or shared with others; one with ``key=`` for each
            key. A list for both kinds.
        on_failure: What becomes of messages that have failed for good: ``"retry"`` (default): handed out again by the
            source, after a wait, up to ``max_deliveries`` times, then a dead letter; if the source takes nothing back,
            a dead letter at once. ``"dead_letter"``. ``"requeue"``: as ``"retry"``, but as
            often as it fails. ``"discard"``: nobody keeps it.
        max_deliveries: For sources that do not say it themselves. Default 5.
        redelivery: The waits before a message is handed out again. Default: from 1 second to 5 minutes.
        dead_letters: Called with the `DeadLetter` of each message that is given up (``event`` is the message), plain or
            async; its source keeps it besides, if it can. Default: if it cannot, the system's hook, which logs it.
        shutdown: Seconds for draining: when it is stopped, what was begun is finished, what was not goes back. Default
            30.
        restart: For the supervisor above.
        max_restarts: Of its stages, as of a `Supervisor`,
        max_seconds: within so many seconds.
        clock: Gives Unix time, for deadlines. Default ``time.time``.

    Raises:
        OptionError: An option is unknown, of the wrong type or out of range.
    """

    source: ClassVar[Any] = None
    processors: ClassVar[Any] = None
    batchers: ClassVar[Any] = None

    _OPTIONS: ClassVar[tuple[str, ...]] = (
        "source",
        "processors",
        "batchers",
        "name",
        "id",
        "context",
        "partition_by",
        "fair_by",
        "priority_by",
        "lookahead",
        "max_waiting",
        "rate_limit",
        "on_failure",
        "max_deliveries",
        "redelivery",
        "dead_letters",
        "shutdown",
        "restart",
        "max_restarts",
        "max_seconds",
        "clock",
    )

    def __init__(self, **options: Any) -> None:
        """Check the options and lay out the stages."""
        kind, theirs = type(self), vars(self).keys() | {"ours"}
        where = f"Pipeline({kind.__name__})"
        refuse_unknown_of(where, options, self._OPTIONS)
        given = {name: _attribute(self, name) for name in self._OPTIONS if name in _declared(kind)}
        given.update(options)
        self.sources = _sources(where, given.get("source"))
        children: list[Any] = []
        for source in self.sources:
            given, more = _prepared(where, source, given, self._OPTIONS)
            children += more
        if given.get("source") is not None:  # a source may have changed it
            self.sources = _sources(where, given["source"])
        self._take(where, given)
        self._resolve(where)
        self._current: Run | None = None
        children = [*children, *self._layout()]
        try:
            super().__init__(
                children,
                name=self.name,
                id=self.id,
                shutdown=given.get("shutdown", 30.0),
                restart=given.get("restart", PERMANENT),
                max_restarts=given.get("max_restarts", 3),
                max_seconds=given.get("max_seconds", 5.0),
                auto_shutdown=True,
            )
        except OptionError as error:
            raise OptionError(where, error.option, error.expected, error.got) from None
        self.where = where
        self.ours = frozenset(vars(self)) - theirs

    def __getstate__(self) -> dict[str, Any]:
        """Cross to a worker with the user's own attributes."""
        return state_of(self, self.ours)

    def __repr__(self) -> str:
        """Show the id."""
        return f"<Pipeline {self.id!r}>"

    # -- what users define --------------------------------------------------------------------------------------------

    def prepare_messages(self, messages: list[Message]) -> Any:
        """Prepare the messages of one delivery, before they are handled one by one; plain or async.

        Returns:
            None, or the same messages (in any order). If it raises, all of them fail.
        """
        raise NotImplementedError

    def worker_started(self) -> Any:
        """Prepare a worker process for a handler that is placed there, before its first message; plain or async.

        ``self`` is a copy there, with ``name``, ``id``, ``context`` and the attributes that you have put on it. This is
        the place to make what cannot cross: connections, models, open files. If it raises, the stage ends.
        """
        raise NotImplementedError

    def handle_failed(self, messages: list[Message]) -> Any:
        """Look at messages that have failed for good, before that is settled; plain or async.

        Their ``reason`` says why. It may change them, `Message.configure_ack` them, or `Message.recover` them.

        Returns:
            None, or the same messages.
        """
        raise NotImplementedError

    # -- options ------------------------------------------------------------------------------------------------------

    def _take(self, where: str, given: dict[str, Any]) -> None:
        """Check the options of the whole."""
        self.name: Any = check_name(where, "name", given.get("name")) or type(self).__name__
        self.id = check_name(where, "id", given.get("id")) or self.name
        self.context = given.get("context", CONTEXT_NOT_SET)
        self.step_options: dict[str, Processors] = named(
            where, "processors", _with_augments(given.get("processors")), Processors, DEFAULT
        ) or {DEFAULT: Processors()}
        self.batcher_options: dict[str, Batcher] = named(where, "batchers", given.get("batchers"), Batcher, DEFAULT)
        self.partition_key = _key(where, "partition_by", given.get("partition_by"))
        self.fair_key = _key(where, "fair_by", given.get("fair_by"))
        self.priority_of = _key(where, "priority_by", given.get("priority_by"))
        lookahead = given.get("lookahead")
        chooses = self.fair_key is not None or self.priority_of is not None
        self.lookahead_by_source = lookahead is None
        if lookahead is None:
            lookahead = max(source.lookahead for source in self.sources) if chooses else 0
        check_count(where, "lookahead", lookahead, 0, "an integer of at least 0, or None")
        self.lookahead: int = lookahead
        waiting = given.get("max_waiting")
        if waiting is not None:
            check_count(where, "max_waiting", waiting, 1, "an integer of at least 1, or None")
        self.max_waiting: int = max(MAX_WAITING, lookahead) if waiting is None else waiting
        self.shared_limit, self.key_limit = _limits(where, given.get("rate_limit"))
        self.on_failure = given.get("on_failure", RETRY)
        check_choice(where, "on_failure", self.on_failure, ON_FAILURE)
        self.max_deliveries = given.get("max_deliveries", 5)
        check_count(where, "max_deliveries", self.max_deliveries, 1)
        redelivery = given.get("redelivery")
        self.redelivery = Backoff(first=1.0, most=300.0) if redelivery is None else redelivery
        if not isinstance(self.redelivery, Backoff):
            raise OptionError(where, "redelivery", "a Backoff(...)", self.redelivery)
        self.dead_letters = _function(where, "dead_letters", given.get("dead_letters"), "a function of a DeadLetter")
        self.clock = _function(where, "clock", given.get("clock"), "a function without arguments")

    def _resolve(self, where: str) -> None:
        """Find the handlers of all steps and batchers, and where they run."""
        self.prepares = type(self).prepare_messages is not Pipeline.prepare_messages
        overridden = type(self).handle_failed is not Pipeline.handle_failed
        self.failure_hook: Callable[[list[Message]], Any] | None = self.handle_failed if overridden else None
        self.routes: dict[str, Route] = {}
        self.handlers: dict[str, tuple[Any, str | Process, str]] = {}
        for name, options in self.step_options.items():
            method = "handle_message" if name == DEFAULT else f"handle_{name}"
            at = f"{where}, processors[{name!r}]"
            handler = self._handler(at, options.handler, method)
            place = check_handler_place(at, handler, options.place, options.timeout)
            kind = "wide" if options.ordered is not None else "plain" if place == "inline" else "async"
            if kind == "plain" and self.prepares and is_async(self.prepare_messages):
                kind = "async"
            if kind == "wide" and place != "task":
                raise OptionError(at, "ordered", "left out, as the handler is not async", options.ordered)
            self.handlers[name] = (handler, place, kind)
        self.batch_handlers: dict[str, tuple[Any, str | Process]] = {}
        for name, batcher in self.batcher_options.items():
            at = f"{where}, batchers[{name!r}]"
            handler = self._handler(at, batcher.handler, "handle_batch")
            place = check_handler_place(at, handler, batcher.place, batcher.run_timeout, "run_timeout")
            self.batch_handlers[name] = (handler, place)

    def _handler(self, where: str, given: Any, method: str) -> Any:
        if callable(given):
            return given
        found = getattr(self, given or method, None)
        if not callable(found):
            expected = f"a function, or the name of a method (there is no {given or method!r})"
            raise OptionError(where, "handler", expected, given)
        return found

    def route(self, name: str = DEFAULT) -> Route:
        """Return a source for another pipeline: messages of this one that are put to that name go on there.

        Args:
            name: As for `Message.put_batcher`. Default: where messages go unless told otherwise.

        Raises:
            OptionError: A batcher has this name.
        """
        if name in self.batcher_options:
            raise OptionError(self.where, "route", "a name that no batcher has", name)
        if name not in self.routes:
            self.routes[name] = Route(self.id, name)
            self.routes[name].redelivers = all(source.redelivers for source in self.sources)  # it ends there
        return self.routes[name]

    def open_routes(self, run: Run) -> dict[str, Route]:
        """Return the routes by name, for a run that begins."""
        return {name: route.connect(run) for name, route in self.routes.items()}

    # -- the stages ---------------------------------------------------------------------------------------------------

    def _layout(self) -> list[Child]:
        """Return the recipes of all stages."""
        base = self.name
        children: list[Child] = []
        above: list[str] = []
        for index, _ in enumerate(self.sources):
            name = f"{base}.source-{index + 1}"
            recipe = Child(SourceStage, self, index, name=name, id=f"source-{index + 1}", buffer_size=None, **_OURS)
            children.append(recipe)
            above.append(name)
        steps = list(self.step_options.items())
        for number, (step, options) in enumerate(steps):
            _, place, kind = self.handlers[step]
            cls = KINDS[kind, number == len(steps) - 1]
            most = options.max_demand or (
                options.concurrency if kind == "wide" else PLAIN_DEMAND if kind == "plain" else 1
            )
            terms: dict[str, Any] = {"max_demand": most, "min_demand": options.min_demand, "retry": _COME_BACK}
            more: dict[str, Any] = _OURS if number == len(steps) - 1 else {"buffer_size": None, **_OURS}
            recipe = Child(
                cls,
                self,
                number,
                name=f"{base}.{step}",
                id=f"processors.{step}",
                subscribe_to=[To(name, **terms) for name in above],
                count=1 if kind == "wide" else options.concurrency,
                **more,
            )
            recipe.grouped = kind != "wide"
            recipe.remark = remark_of(place)
            children.append(recipe)
            above = [f"{base}.{step}"]
        for name, batcher in self.batcher_options.items():
            children += self._batch_stages(name, batcher)
        return children

    def _batch_stages(self, name: str, batcher: Batcher) -> list[Child]:
        stage = f"{self.name}.batcher.{name}"
        kind = "plain" if self.batch_handlers[name][1] == "inline" else "async"
        handlers = Child(
            BATCH_KINDS[kind],
            self,
            name,
            name=f"{self.name}.batch.{name}",
            id=f"batch.{name}",
            subscribe_to=[To(stage, max_demand=1, retry=_COME_BACK)],
            count=batcher.concurrency,
        )
        handlers.grouped = True
        handlers.remark = remark_of(self.batch_handlers[name][1])
        batches = Child(BatchStage, self, name, name=stage, id=f"batcher.{name}", buffer_size=None, **_OURS)
        return [batches, handlers]

    # -- running ------------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Run:
        """The run that goes on.

        Raises:
            NoStageError: It does not run.
        """
        if self._current is None:
            raise NoStageError(f"pipeline {self.id!r} does not run: expected 'async with', 'await' or headgate.run")
        return self._current

    def supervise(self, system: System, path: tuple[str, ...]) -> PipelineRun:
        """Make what runs it.

        Raises:
            OptionError: It runs already.
        """
        if self._current is not None and not self._current.closed:
            raise OptionError(self.where, "start", "made once more, as this object runs already", self)
        self._current = Run(self, system.node)
        return PipelineRun(self, system, path, self._current)

    async def __aenter__(self) -> PipelineRun:
        """Start it in a system of its own."""
        running: Any = await super().__aenter__()
        return running  # type: ignore[no-any-return]

    def span(self, name: str, **metadata: Any) -> telemetry.Span | None:
        """Begin to tell of something, if anybody listens."""
        if not telemetry.handlers:
            return None
        return telemetry.Span(name, pipeline=self.id, context=self.context, **metadata)

    async def test_message(self, data: Any, **options: Any) -> Message:
        """Put a message into the running pipeline and wait for its outcome; see `PipelineRun.test_message`."""
        return (await self.current.test([data], flush=True, **options))[0]

    async def test_batch(self, payloads: Iterable[Any], **options: Any) -> list[Message]:
        """Put messages into the running pipeline and wait for their outcomes; see `PipelineRun.test_batch`."""
        return await self.current.test(list(payloads), **options)


def refuse_unknown_of(where: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    """Refuse options that are none of these."""
    unknown = {name: value for name, value in options.items() if name not in known}
    if unknown:
        scope: dict[str, Any] = {}
        exec(f"def pipeline(*, {', '.join(f'{name}=None' for name in known)}): ...", scope)  # noqa: S102 (names of ours)
        refuse_unknown(where, unknown, scope["pipeline"])


def _declared(kind: type[Any]) -> set[str]:
    """Return the names that subclasses of `Pipeline` have set."""
    names: set[str] = set()
    for each in kind.__mro__:
        if each is Pipeline:
            break
        names.update(vars(each))
    return names


def _attribute(pipeline: Pipeline, name: str) -> Any:
    """Return an option that is written on the class; a function of ``self`` and something else is a method."""
    value = inspect.getattr_static(type(pipeline), name)
    if inspect.isfunction(value) and len(inspect.signature(value).parameters) < 2:  # noqa: PLR2004 (self and one more)
        return value
    return getattr(pipeline, name)


def _sources(where: str, value: Any) -> list[Source]:
    if value is None:
        return [Nowhere()]
    many = value if isinstance(value, (list, tuple)) else [value]
    sources: list[Source] = []
    for each in many:
        source: Any = each.route() if isinstance(each, Pipeline) else each
        if not isinstance(source, Source):
            raise OptionError(where, "source", "a Source, a Pipeline, or a list of them", each)
        sources.append(source)
    if not sources:
        raise OptionError(where, "source", "at least one Source", value)
    if len({id(source) for source in sources}) < len(sources):
        raise OptionError(where, "source", "different sources", value)
    return sources


def _prepared(
    where: str, source: Source, given: dict[str, Any], known: tuple[str, ...]
) -> tuple[dict[str, Any], list[Any]]:
    """Let a source change the options before anything starts."""
    answer = source.prepare(dict(given))
    if answer is None:
        return given, []
    options, children = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, [])  # noqa: PLR2004
    if not isinstance(options, dict) or not isinstance(children, list):
        expected = "to return None, a dict of options, or a pair of that and a list of children"
        raise OptionError(where, f"{type(source).__name__}.prepare", expected, answer)
    refuse_unknown_of(where, options, known)
    return options, children


def _with_augments(value: Any) -> Any:
    """Turn what is no `Processors` but can be a step into one."""

    def turn(each: Any) -> Any:
        if isinstance(each, Augment):
            step = Processors(each, concurrency=each.width)
            step.ordered = each.ordered
            return step
        return each

    return {name: turn(each) for name, each in value.items()} if isinstance(value, Mapping) else turn(value)


def _key(where: str, option: str, value: Any) -> Callable[[Message], Any] | None:
    if value == "key":
        return operator.attrgetter("key")
    if value is not None and not callable(value):
        raise OptionError(where, option, "a function of a message, 'key', or None", value)
    return value  # type: ignore[no-any-return]


def _limits(where: str, value: Any) -> tuple[RateLimiter | None, RateLimiter | None]:
    many = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    shared: RateLimiter | None = None
    by_key: RateLimiter | None = None
    for each in many:
        if not isinstance(each, RateLimiter) or (shared if not each.keyed else by_key) is not None:
            expected = "a RateLimiter(...), or a list of one without and one with key="
            raise OptionError(where, "rate_limit", expected, value)
        if each.keyed:
            by_key = each
        else:
            shared = each
    return shared, by_key


def _function(where: str, option: str, value: Any, expected: str) -> Any:
    if value is not None and not callable(value):
        raise OptionError(where, option, f"{expected}, or None", value)
    return value


__all__ = ["CONTEXT_NOT_SET", "BatchInfo", "Pipeline"]
