"""`Flow`: what is to be done with events, described; it runs when it is iterated, collected or started."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from headgate.errors import OptionError
from headgate.flow.aggregating import Aggregating
from headgate.flow.explain import explain
from headgate.flow.graph import (
    AsyncNode,
    DepartitionNode,
    ElementNode,
    ExchangeNode,
    FoldNode,
    HoleNode,
    IntoNode,
    JoinNode,
    MergeNode,
    Node,
    ReduceNode,
    SourceNode,
    TeeNode,
    ThroughNode,
    UniqueNode,
)
from headgate.flow.inputs import ChildInput, FilesInput, Input, IterableInput, StageInput, check_iterable
from headgate.flow.joining import Join
from headgate.flow.operators import (
    FILTER,
    FLAT_MAP,
    MAP,
    MAP_BATCHES,
    MAP_VALUES,
    REJECT,
    TAP,
    Policy,
    Side,
    element,
    place,
    reading,
)
from headgate.flow.outputs import as_target
from headgate.flow.plan import Plan
from headgate.flow.reading import CSV, JSONL, LINES, PARQUET, Files, find
from headgate.flow.running import Running
from headgate.flow.steps import EVENTS, NOTHING, STATE, WINDOWED
from headgate.flow.times import Field
from headgate.flow.windows import WindowSpec
from headgate.runtime.options import Child, To, check_count
from headgate.runtime.reference import Ref

if TYPE_CHECKING:
    import os

    Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Flow(Aggregating, Running):
    """A flow: a description of sources and of what is done with their events.

    Every operator returns a new flow; nothing happens before it is run (`run`, `to_list`, ``for``, ``async for``,
    `app`), and each run begins anew. Without ``workers`` and ``place`` all of it is done by one worker on the caller's
    event loop; with several workers, events are handed out to them, and come together by key where that is needed.

    Which order events have: those of one worker keep theirs; between workers there is none.
    """

    __slots__ = ("_node", "_place", "_window", "_workers")

    def __init__(
        self, node: Node, *, workers: int | None = None, place: Any = None, window: WindowSpec | None = None
    ) -> None:
        """Keep the description. Flows begin with one of the ``from_`` functions."""
        self._node = node
        self._workers = workers
        self._place = place
        self._window = window

    def _with(self, node: Node) -> Self:
        return type(self)(node, workers=self._workers, place=self._place, window=self._window)

    # -- sources ------------------------------------------------------------------------------------------------------

    @classmethod
    def from_iterable(cls, iterable: Any, **options: Any) -> Self:
        """Take the elements of a sequence, an iterable or an async iterable. See `from_iterables`."""
        return cls.from_iterables([iterable], **options)

    @classmethod
    def from_iterables(
        cls,
        iterables: Iterable[Any],
        *,
        max_demand: int = 1000,
        min_demand: int | None = None,
        place: str | None = None,
    ) -> Self:
        """Take the elements of several iterables, each at its own pace.

        An iterator (a generator, a file) can be iterated once only; everything else begins anew with each run.

        Args:
            iterables: Sequences (also arrays, which are cut without copying), iterables or async iterables.
            max_demand: Elements that a worker has of each at most.
            min_demand: How few it has when it asks for more; default: half. A batch has at most the difference.
            place: Where they are iterated: ``"thread"`` for those whose ``next`` blocks. Default: on the event loop.

        Raises:
            OptionError: One cannot be iterated, there is none, or an option is wrong.
        """
        where = "Flow.from_iterables"
        _check_demand(where, max_demand, min_demand)
        found = list(iterables) if not isinstance(iterables, Flow) else [iterables]
        if not found:
            raise OptionError(where, "iterables", "at least one", iterables)
        for each in found:
            if isinstance(each, Flow):
                raise OptionError(where, "iterables", "no flow (Flow.merge puts flows together)", each)
            check_iterable(where, each)
        called = place_of("from_iterable")
        return cls(
            SourceNode(inputs=tuple(IterableInput(called, max_demand, min_demand, each, place) for each in found))
        )

    @classmethod
    def from_lines(
        cls,
        paths: Paths,
        *,
        split: int | None = 4 << 20,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> Self:
        """Take the lines of text files, without their ends.

        Workers read the files themselves, in ranges of bytes; each line is of the range that it begins in. Compressed
        files (.gz, .bz2, .xz, .zip of one file) cannot be split: each is read by one worker.

        Args:
            paths: A path, a pattern (``"logs/**/*.txt"``), or several of them.
            split: Bytes of a range; None: each file is read by one worker.
            encoding: Of the text; one in which a line break is the byte 10.
            errors: What happens with bytes that are no such text, as of ``open``.

        Raises:
            OptionError: There is no such file, or an option is wrong.
        """
        return cls._files("from_lines", paths, LINES, split, encoding, errors)

    from_files = from_lines

    @classmethod
    def from_csv(
        cls,
        paths: Paths,
        *,
        fields: Iterable[str] | None = None,
        delimiter: str = ",",
        split: int | None = 4 << 20,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> Self:
        """Take the rows of csv files, as dictionaries of text.

        A file in which something is quoted is read by one worker, as a line break may then be part of a value; all
        others are split as in `from_lines`.

        Args:
            paths: As `from_lines`.
            fields: The names of the columns; default: the first row of each file has them.
            delimiter: Between values.
            split: As `from_lines`.
            encoding: As `from_lines`.
            errors: As `from_lines`.

        Raises:
            OptionError: There is no such file, or an option is wrong.
        """
        names = None if fields is None else tuple(fields)
        return cls._files(
            "from_csv", paths, CSV, split, encoding, errors, (("fields", names), ("delimiter", delimiter))
        )

    @classmethod
    def from_jsonl(cls, paths: Paths, *, split: int | None = 4 << 20) -> Self:
        """Take the values of files that have one JSON value in each line; empty lines are passed over.

        Raises:
            OptionError: There is no such file, or an option is wrong.
        """
        return cls._files("from_jsonl", paths, JSONL, split, "utf-8", "strict")

    @classmethod
    def from_parquet(cls, paths: Paths, *, columns: Iterable[str] | None = None, batch: int | None = None) -> Self:
        """Take the rows of Parquet files, in batches of columns (``pyarrow.RecordBatch``); needs the extra ``columns``.

        `map_batches`, `where` and `aggregate` take such batches as they are; every other operator
        gets rows, as dictionaries.

        Args:
            paths: As `from_lines`.
            columns: Which columns; default: all.
            batch: Rows of a batch at most; default: a row group.

        Raises:
            OptionError: There is no such file, pyarrow is missing, or an option is wrong.
        """
        names = None if columns is None else tuple(columns)
        return cls._files("from_parquet", paths, PARQUET, None, "", "", (("columns", names), ("batch", batch)))

    @classmethod
    def _files(
        cls,
        kind: str,
        paths: Any,
        what: str,
        split: int | None,
        encoding: str,
        errors: str,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> Self:
        where = f"Flow.{kind}"
        if split is not None:
            check_count(where, "split", split, 1, "a number of bytes, or None")
        if encoding:
            _check_encoding(where, encoding)
        files = Files(find(paths, where), what, split, encoding, errors, options)
        return cls(SourceNode(inputs=(FilesInput(place_of(kind), 2, 1, files),)))

    @classmethod
    def from_stages(cls, stages: Iterable[Ref | str | To], *, max_demand: int = 1000) -> Self:
        """Take the events of producers that run already. The flow ends when all of them have ended.

        Args:
            stages: References, names, or ``To(...)`` with terms of their own.
            max_demand: Events that a worker has of each at most.

        Raises:
            OptionError: There is none, or one is something else.
        """
        where = "Flow.from_stages"
        found = list(stages) if not isinstance(stages, (str, Ref, To)) else [stages]
        if not found or not all(isinstance(each, (Ref, str, To)) for each in found):
            raise OptionError(where, "stages", "references, names or To(...), at least one", stages)
        inputs: tuple[Input, ...] = tuple(
            StageInput(place_of("from_stages"), max_demand, None, each) for each in found
        )
        return cls(SourceNode(inputs=inputs))

    @classmethod
    def from_children(cls, children: Iterable[Child], *, max_demand: int = 1000) -> Self:
        """Take the events of producers that run as part of the flow.

        Args:
            children: Their recipes. One that raises `Ignore` when it starts is left out.
            max_demand: Events that a worker has of each at most.

        Raises:
            OptionError: There is none, or one is no producer.
        """
        where = "Flow.from_children"
        found = list(children) if not isinstance(children, Child) else [children]
        if not found or not all(isinstance(each, Child) and each.role != "consumer" for each in found):
            raise OptionError(where, "children", "recipes of producers: Child(...), at least one", children)
        inputs: tuple[Input, ...] = tuple(
            ChildInput(place_of("from_children"), max_demand, None, each) for each in found
        )
        return cls(SourceNode(inputs=inputs))

    # -- element by element -------------------------------------------------------------------------------------------

    def _element(self, kind: str, function: Any, errors: Policy) -> Self:
        return self._with(ElementNode((self._node,), element(kind, function, errors, 2)))

    def map(self, function: Callable[[Any], Any], *, errors: Policy = "raise") -> Self:
        """Replace each event by what a function gives for it.

        Args:
            function: Event -> event. Lambdas and closures reach workers in other processes, too.
            errors: What happens when it raises: ``"raise"`` (default) ends the flow with an `OperatorError`; ``"skip"``
                leaves the event out, counted and sampled in the statistics; ``flow.retry(3)`` calls it again first;
                a ``flow.Side()`` gets what was left out.
        """
        return self._element(MAP, function, errors)

    def filter(self, function: Callable[[Any], Any], *, errors: Policy = "raise") -> Self:
        """Keep the events for which a function is true."""
        return self._element(FILTER, function, errors)

    def reject(self, function: Callable[[Any], Any], *, errors: Policy = "raise") -> Self:
        """Leave out the events for which a function is true."""
        return self._element(REJECT, function, errors)

    def flat_map(self, function: Callable[[Any], Iterable[Any]], *, errors: Policy = "raise") -> Self:
        """Replace each event by all that a function gives for it."""
        return self._element(FLAT_MAP, function, errors)

    def map_values(self, function: Callable[[Any], Any], *, errors: Policy = "raise") -> Self:
        """Replace the value of each (key, value) pair."""
        return self._element(MAP_VALUES, function, errors)

    def tap(self, function: Callable[[Any], Any], *, errors: Policy = "raise") -> Self:
        """Call a function for each event, which goes on as it is."""
        return self._element(TAP, function, errors)

    def map_batches(self, function: Callable[[Any], Any], *, errors: Policy = "raise") -> Self:
        """Replace whole batches: a function of a list of events (or of an array, a batch of columns) to another.

        How large batches are depends on the source (``max_demand - min_demand``, a range of a file) and is no promise.
        """
        return self._element(MAP_BATCHES, function, errors)

    def map_async(
        self,
        function: Callable[[Any], Any],
        *,
        concurrency: int = 100,
        rate: float | None = None,
        ordered: bool = True,
        errors: Policy = "raise",
    ) -> Self:
        """Replace each event by what an async function gives for it; many calls are under way at a time.

        Args:
            function: Event -> awaitable of an event.
            concurrency: How many calls at most, over all workers.
            rate: How many calls begin in a second at most; None: any number.
            ordered: Results come in the order of the events, so that a slow one holds up those behind it; else as they
                are there.
            errors: As of `map`.

        Raises:
            OptionError: An option is wrong.
        """
        described = element("map_async", function, errors, 1)
        check_count(described.where, "concurrency", concurrency, 1)
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate > 0):
            raise OptionError(described.where, "rate", "calls a second, above 0, or None", rate)
        return self._with(AsyncNode((self._node,), described, concurrency, rate, ordered))

    def where(self, expression: Any) -> Self:
        """Keep the rows of columns for which an expression of ``pyarrow.compute`` is true; needs the extra ``columns``.

        Args:
            expression: Such as ``pc.field("delay") > 60``.

        Raises:
            OptionError: It is none, or pyarrow is missing.
        """
        from headgate.flow.columns import Where, pc  # noqa: PLC0415 (an extra)

        if not isinstance(expression, pc.Expression):
            raise OptionError(place_of("where"), "expression", "an expression of pyarrow.compute", expression)
        return self._with(ElementNode((self._node,), replace(element(MAP_BATCHES, Where(expression), "raise", 1))))

    def aggregate(self, keys: Iterable[str] | str, **results: tuple[str, str]) -> Self:
        """Group the rows of columns, and aggregate within each group; gives one batch of columns.

        It is done by ``pyarrow.compute``, batch by batch, by each worker for what it sees; needs the extra ``columns``.
        Behind lists of mappings these become columns first.

        Args:
            keys: Names of columns; none: one group.
            **results: Name of the result = (column, ``"sum"``, ``"count"``, ``"min"``, ``"max"``, ``"mean"``, ``"any"`` or
                ``"all"``). Missing values (null) are left out.

        Raises:
            OptionError: An option is wrong, or pyarrow is missing.
        """
        from headgate.flow.columns import aggregate  # noqa: PLC0415 (an extra)

        return self._with(FoldNode((self._node,), aggregate(place_of("aggregate"), keys, results)))

    def uniq(self, key: Field | None = None) -> Self:
        """Keep the first event of each key, over all workers (behind `partition`: within each partition).

        All keys that have been seen are remembered; on an endless flow, count by windows instead.

        Args:
            key: Event -> key, or the name of a field, or an index. Default: the event itself.
        """
        where = place_of("uniq")
        return self._with(UniqueNode((self._node,), where, reading(key, where, "key")))

    # -- who does it --------------------------------------------------------------------------------------------------

    def options(self, *, workers: int | None = None, place: Any = None) -> Self:
        """Say how many workers there are, and where they run.

        Args:
            workers: Of each layer; None: as it was.
            place: ``"inline"``, ``"thread"``, or an object such as `Process`; None: as it was.
        """
        if workers is not None:
            check_count("Flow.options", "workers", workers, 1)
        return type(self)(
            self._node,
            workers=self._workers if workers is None else workers,
            place=self._place if place is None else place,
            window=self._window,
        )

    def partition(
        self,
        key: Field | None = None,
        *,
        workers: int | None = None,
        hash: Callable[[Any], int | None] | None = None,  # noqa: A002 (the field's word)
        window: WindowSpec | None = None,
        place: Any = None,
    ) -> Self:
        """Hand events out anew: those with the same key to the same worker. What follows is done partition by partition.

        Args:
            key: Event -> key, or the name of a field, or an index. Default: the event itself.
            workers: How many partitions; default: as many as the flow has workers.
            hash: Instead of a key: event -> number of the partition, from 0; None leaves the event out.
            window: The windows of the reduces that follow.
            place: Where these workers run.

        Raises:
            OptionError: An option is wrong.
        """
        where = place_of("partition")
        if workers is not None:
            check_count(where, "workers", workers, 1)
        if hash is not None and (key is not None or not callable(hash)):
            raise OptionError(where, "hash", "a function of an event, without a key", hash)
        node = ExchangeNode((self._node,), True, reading(key, where, "key"), hash, workers, place, where)
        flow = self._with(node)
        return flow if window is None else flow.window(window)

    def shuffle(self, *, workers: int | None = None, place: Any = None) -> Self:
        """Hand events out anew to whichever worker is next, batch by batch."""
        where = place_of("shuffle")
        if workers is not None:
            check_count(where, "workers", workers, 1)
        return self._with(ExchangeNode((self._node,), False, None, None, workers, place, where))

    @classmethod
    def merge(cls, *flows: Flow) -> Self:
        """Take the events of several flows.

        Raises:
            OptionError: There is none, or one is no flow.
        """
        if not flows or not all(isinstance(each, Flow) for each in flows):
            raise OptionError("Flow.merge", "flows", "flows, at least one", flows)
        first = flows[0]
        node = MergeNode(tuple(each._node for each in flows)) if len(flows) > 1 else first._node  # noqa: SLF001
        workers = max((each._workers or 0 for each in flows), default=0) or None  # noqa: SLF001
        place = next((each._place for each in flows if each._place is not None), None)  # noqa: SLF001
        return cls(node, workers=workers, place=place, window=first._window)

    def departition(
        self, init: Callable[[], Any], merge: Callable[[Any, Any], Any], done: Callable[..., Any]
    ) -> Self:
        """Put together what all partitions give for a window: one event for each window, when all are done with it.

        Args:
            init: () -> state.
            merge: (state, what a partition gave) -> state, for each event that it gave.
            done: state -> event; or (state, window) -> event.

        Raises:
            OptionError: One is no function.
        """
        where = place_of("departition")
        for option, function in (("init", init), ("merge", merge), ("done", done)):
            if not callable(function):
                raise OptionError(where, option, "a function", function)
        return self._with(DepartitionNode((self._node,), where, init, merge, done))

    # -- several flows ------------------------------------------------------------------------------------------------

    def join(
        self,
        other: Flow,
        key: Field,
        other_key: Field | None = None,
        *,
        how: str = "inner",
        join: Callable[[Any, Any], Any] | None = None,
        window: WindowSpec | None = None,
        by: Field | None = None,
        other_by: Field | None = None,
        workers: int | None = None,
        late: Side | None = None,
    ) -> Self:
        """Put each event together with those of another flow that have the same key.

        Both sides are kept until their window closes; without a window, until the other side has ended. A key of None
        is nobody's partner.

        Args:
            other: The right side.
            key: Event of this flow -> key, or the name of a field, or an index.
            other_key: The same for the other flow; default: as ``key``.
            how: ``"inner"``, ``"left"``, ``"right"`` or ``"full"``: whose events are given without a partner, too.
            join: (left, right) -> event; what is missing is None. Default: the pair.
            window: Only events of the same window find each other. Default: all of them do.
            by: Event of this flow -> its time; default: the window's ``by``.
            other_by: The same for the other flow.
            workers: How many; default: as before.
            late: A side output for (side, event) that come too late.

        Raises:
            OptionError: An option is wrong.
        """
        where = place_of("join")
        if not isinstance(other, Flow):
            raise OptionError(where, "other", "a flow", other)
        if how not in ("inner", "left", "right", "full"):
            raise OptionError(where, "how", "'inner', 'left', 'right' or 'full'", how)
        if workers is not None:
            check_count(where, "workers", workers, 1)
        left = reading(key, where, "key")
        right = reading(key if other_key is None else other_key, where, "other_key")
        both = Flow.merge(self, other)
        node = JoinNode(
            (self._node, other._node), where, how, left, right, join, window, by, other_by, workers, late
        )
        Join(how, left or _itself, right, join, window=window, left_by=by, right_by=other_by, where=where)
        return type(self)(node, workers=both._workers, place=both._place, window=self._window)

    def tee(self, *branches: Callable[[Flow], Flow] | Any) -> Self:
        """Send the same events to others as well.

        Args:
            *branches: Functions that make the rest of a branch from a flow; or what `into` takes.

        Raises:
            OptionError: One is neither.
        """
        where = place_of("tee")
        hole = HoleNode()
        ends: list[Node] = []
        for branch in branches:
            if callable(branch) and not isinstance(branch, (Child, type)):
                made = branch(self._with(hole))
                if not isinstance(made, Flow):
                    raise OptionError(where, "branches", "functions from a flow to a flow", branch)
                ends.append(made._node)  # noqa: SLF001
            else:
                ends.append(IntoNode((hole,), (as_target(branch, where),)))
        if not ends:
            raise OptionError(where, "branches", "at least one", branches)
        return self._with(TeeNode((self._node,), tuple(ends), hole))

    def through(self, *stages: Ref | str | Child) -> Self:
        """Lead events through middle stages of yours, and go on with what these give.

        Args:
            *stages: Running ones (they are subscribed, and go on when the flow has ended), or recipes (which run as part
                of the flow). Each event goes to one of them.

        Raises:
            OptionError: One is something else.
        """
        where = place_of("through")
        good = all(
            isinstance(each, (Ref, str)) or (isinstance(each, Child) and each.role == "producer_consumer")
            for each in stages
        )
        if not stages or not good:
            raise OptionError(where, "stages", "references, names or recipes of middle stages", stages)
        return self._with(ThroughNode((self._node,), stages, where))

    def into(self, *targets: Any) -> Self:
        """Say where the results go.

        Args:
            *targets: Consumers that run already (references, names), recipes of consumers (``Child``), paths of files
                (``.jsonl``, ``.csv``, ``.parquet``; anything else gets a line of text for each event), or functions of
                a list of events. Each event goes to one of the stages.

        Raises:
            OptionError: One is something else.
        """
        where = place_of("into")
        if not targets:
            raise OptionError(where, "targets", "at least one", targets)
        return self._with(IntoNode((self._node,), tuple(as_target(each, where) for each in targets)))

    # -- windows and reduces ------------------------------------------------------------------------------------------

    def window(self, spec: WindowSpec | None) -> Self:
        """Do the reduces that follow within windows.

        Args:
            spec: From `headgate.flow.windows`; None: no windows any more.

        Raises:
            OptionError: It is none.
        """
        if spec is not None and not isinstance(spec, WindowSpec):
            raise OptionError(place_of("window"), "spec", "a window of headgate.flow.windows, or None", spec)
        return type(self)(self._node, workers=self._workers, place=self._place, window=spec)

    def on_trigger(self, function: Callable[..., Any]) -> Self:
        """Say what the reduce before gives when its window closes or its trigger fires, and how it goes on.

        Args:
            function: (accumulator), (accumulator, `Partition`) or (accumulator, `Partition`, `Occasion`) -> (events,
                accumulator). What it returns as accumulator is what the window goes on with.

        Raises:
            OptionError: There is no reduce right before, or it has one already.
        """
        where = place_of("on_trigger", function)
        if not callable(function):
            raise OptionError(where, "function", "a function", function)
        node = self._reduce_before(where)
        if node.on_trigger is not None or node.emit != EVENTS:
            raise OptionError(where, "on_trigger", "used once, and not with emit", function)
        return self._with(replace(node, on_trigger=function))

    def emit(self, what: str) -> Self:
        """Say what the reduce before gives.

        Args:
            what: ``"events"``: what is in the accumulator (pairs of a mapping, elements of a collection, else itself);
                ``"state"``: the accumulator as one event; ``"nothing"``.

        Raises:
            OptionError: There is no reduce right before, it has an ``on_trigger``, or ``what`` is none of these.
        """
        where = place_of("emit")
        if what not in (EVENTS, STATE, NOTHING):
            raise OptionError(where, "what", "'events', 'state' or 'nothing'", what)
        if isinstance(self._node, FoldNode):
            return self._with(replace(self._node, emit=what))
        node = self._reduce_before(where)
        if node.on_trigger is not None or node.emit not in (EVENTS, WINDOWED):
            raise OptionError(where, "emit", "used once, and not with on_trigger", what)
        return self._with(replace(node, emit=what))

    def _reduce_before(self, where: str) -> ReduceNode:
        node = self._node
        if isinstance(node, FoldNode):
            node = self._as_reduce(node)
        if not isinstance(node, ReduceNode):
            raise OptionError(where, "reduce", "right before it", type(node).__name__)
        return node

    # -- what it looks like -------------------------------------------------------------------------------------------

    def explain(self) -> str:
        """Return the plan as text: layers, fused operators, partitions, windows, and where each runs."""
        return explain(Plan(self._node, workers=self._workers, place=self._place))

    def __repr__(self) -> str:
        """Show how it ends."""
        return f"<Flow ending with {type(self._node).__name__.removesuffix('Node').lower()}>"


def place_of(kind: str, function: Any = None) -> str:
    """Return the name and the line of an operator that the user's program has written down."""
    return place(kind, function, 3)


def _itself(event: Any) -> Any:
    return event


def _check_demand(where: str, max_demand: Any, min_demand: Any) -> None:
    check_count(where, "max_demand", max_demand, 1)
    if min_demand is not None:
        check_count(where, "min_demand", min_demand, 0)
        if min_demand >= max_demand:
            raise OptionError(where, "min_demand", f"an integer below max_demand ({max_demand})", min_demand)


def _check_encoding(where: str, encoding: str) -> None:
    try:
        good = "\n".encode(encoding) == b"\n"
    except (LookupError, UnicodeError):
        good = False
    if not good:
        raise OptionError(where, "encoding", "one in which a line break is the byte 10", encoding)
