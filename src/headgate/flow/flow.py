"""`Flow`: what is to be done with events, described; it runs when it is iterated, collected or started."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Self

from headgate.errors import OptionError
from headgate.flow.aggregating import Aggregating
from headgate.flow.beginning import Beginning, place_of
from headgate.flow.explain import explain
from headgate.flow.graph import (
    BY_KEY,
    IN_TURN,
    KEYED,
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
    TeeNode,
    ThroughNode,
    UniqueNode,
)
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
    reading,
)
from headgate.flow.outputs import as_target
from headgate.flow.panes import Reduce
from headgate.flow.placing import plan_of
from headgate.flow.running import Running
from headgate.flow.steps import EVENTS, NOTHING, STATE, WINDOWED
from headgate.flow.times import Field
from headgate.flow.windows import WindowSpec
from headgate.runtime.options import Child, check_count
from headgate.runtime.reference import Ref


class Flow(Beginning, Aggregating, Running):
    """A flow: a description of sources and of what is done with their events.

    Every operator returns a new flow; nothing happens before it is run (`run`, `to_list`, ``for``, ``async for``,
    `app`), and each run begins anew. Where it runs, and on how many cores, `options` says; `explain` shows it. With
    several workers, events are handed out to them, and come together by key where that is needed.

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
        from headgate.flow.columns import Where, is_expression  # noqa: PLC0415 (an extra)

        if not is_expression(expression):
            raise OptionError(place_of("where"), "expression", "an expression of pyarrow.compute", expression)
        return self._with(ElementNode((self._node,), element(MAP_BATCHES, Where(expression), "raise", 1)))

    def aggregate(self, keys: Iterable[str] | str, **results: tuple[str, str]) -> Self:
        """Group the rows of columns, and aggregate within each group; gives one batch of columns.

        It is done by ``pyarrow.compute``, batch by batch, by each worker for what it sees; needs the extra ``columns``.
        Behind lists of mappings these become columns first.

        Args:
            keys: Names of columns; none: one group.
            **results: Name of the result = (column, aggregate), which is ``"sum"``, ``"count"``, ``"min"``, ``"max"``,
                ``"mean"``, ``"any"`` or ``"all"``. Missing values (null) are left out.

        Raises:
            OptionError: An option is wrong, or pyarrow is missing.
        """
        from headgate.flow.columns import aggregate  # noqa: PLC0415 (an extra)

        return self._with(FoldNode((self._node,), aggregate(place_of("aggregate"), keys, results)))

    def uniq(self, key: Field | None = None, *, late: Side | None = None) -> Self:
        """Keep the first event of each key, over all workers (behind `partition`: within each partition).

        Within a `window`, the first of each key in each window. All keys that have been seen are remembered, until
        their window closes: on an endless flow, use windows.

        Args:
            key: Event -> key, or the name of a field, or an index. Default: the event itself.
            late: Within a window: a side output for events that come too late.
        """
        where = place_of("uniq")
        read = reading(key, where, "key")
        if self._window is None:
            return self._with(UniqueNode((self._node,), where, read))
        reduce = Reduce(bool, _first, emits=True)
        return self._with(ReduceNode((self._node,), where, self._window, reduce, read, KEYED, NOTHING, late=late))

    # -- who does it --------------------------------------------------------------------------------------------------

    def options(self, *, workers: int | None = None, place: Any = None) -> Self:
        """Say how many workers there are, and where they run.

        If nobody says either, a flow runs on the caller's event loop, by one worker; but if it reads large files and
        puts together what it reads (``count_by``, ``sum``, ... right there), one worker process for each 48 MB of them
        does that, on at most all cores. `explain` tells which, and why.

        Args:
            workers: Of each layer; None: as it was. Default: one on the event loop, at other places one for each core.
            place: ``"inline"`` (on the event loop), ``"thread"``, or an object such as `Process`; None: as it was.

        Raises:
            OptionError: ``workers`` is no number of at least 1.
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
        """Hand events out anew, those with the same key to the same worker; what follows is done for each partition.

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
        node = ExchangeNode((self._node,), BY_KEY, reading(key, where, "key"), hash, workers, place, where)
        flow = self._with(node)
        return flow if window is None else flow.window(window)

    def shuffle(self, *, workers: int | None = None, place: Any = None) -> Self:
        """Hand events out anew to whichever worker is next, batch by batch."""
        where = place_of("shuffle")
        if workers is not None:
            check_count(where, "workers", workers, 1)
        return self._with(ExchangeNode((self._node,), IN_TURN, None, None, workers, place, where))

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
        return cls(node, workers=workers, place=place, window=first._window)  # noqa: SLF001

    def departition(self, init: Callable[[], Any], merge: Callable[[Any, Any], Any], done: Callable[..., Any]) -> Self:
        """Put together what all partitions give for a window: one event for each window, when all are done with it.

        What a partition gives, whenever a trigger fires or a window closes, is its accumulator as it is; of a reduce
        with keys, a mapping of key -> value. With `on_trigger`, it is each of the events that this returns.

        Args:
            init: () -> state.
            merge: (state, what a partition gave) -> state.
            done: state -> event; or (state, window) -> event.

        Raises:
            OptionError: One is no function, or (when it is planned) there is no reduce right before.
        """
        where = place_of("departition")
        for option, function in (("init", init), ("merge", merge), ("done", done)):
            if not callable(function):
                raise OptionError(where, option, "a function", function)
        return self._with(DepartitionNode((self._node,), where, init, merge, done))

    # -- several flows ------------------------------------------------------------------------------------------------

    def join(  # noqa: PLR0913 (each is a choice of its own)
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
        node = JoinNode((self._node, other._node), where, how, left, right, join, window, by, other_by, workers, late)
        Join(how, left or _itself, right, join, window=window, left_by=by, right_by=other_by, where=where)
        return self._with(node).options(workers=both._workers, place=both._place)  # noqa: SLF001

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
            *stages: Running ones, or recipes (which run as part of the flow). Each event goes to one of them. The flow
                goes on until they end; running ones do not by themselves, as they are not the flow's.

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

        The flow ends when nobody is left who takes them, and fails with a consumer of its own that fails.

        Args:
            *targets: Consumers that run already (references, names), recipes of consumers (``Child``; terms are given
                by ``subscribe_to=[To("flow", ...)]``), paths of files (``.jsonl``, ``.csv``, ``.parquet``; anything
                else gets a line of text for each event), or functions of a list of events. Each event goes to one of
                the targets.

        Raises:
            OptionError: One is something else.
        """
        where = place_of("into")
        if not targets:
            raise OptionError(where, "targets", "at least one", targets)
        return self._with(IntoNode((self._node,), tuple(as_target(each, where) for each in targets)))

    # -- windows and reduces ------------------------------------------------------------------------------------------

    def window(self, spec: WindowSpec | None) -> Self:
        """Do the reduces that follow (and `uniq`) within windows.

        Windows and their triggers see what these reduces see, also where other operators are in between.

        Args:
            spec: From `headgate.flow.windows`; None: no windows any more.

        Raises:
            OptionError: It is none; or (when the flow is planned) no reduce follows.
        """
        if spec is not None and not isinstance(spec, WindowSpec):
            raise OptionError(place_of("window"), "spec", "a window of headgate.flow.windows, or None", spec)
        return type(self)(self._node, workers=self._workers, place=self._place, window=spec)

    def on_trigger(self, function: Callable[..., Any]) -> Self:
        """Say what the reduce before gives when its window closes or its trigger fires, and how it goes on.

        Args:
            function: (accumulator), (accumulator, `Partition`) or (accumulator, `Partition`, `Occasion`) -> (events,
                accumulator). What it returns as accumulator is what the window goes on with. Within windows, a reduce
                with keys has an accumulator for each; the occasion says whose it is.

        Raises:
            OptionError: There is no reduce right before, or it has one already.
        """
        where = place_of("on_trigger", function)
        if not callable(function):
            raise OptionError(where, "function", "a function", function)
        node = self._reduce_before(where)
        if node.on_trigger is not None or node.emit not in (EVENTS, WINDOWED):
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
        node = self._node if isinstance(self._node, FoldNode) else self._reduce_before(where)
        if node.emit not in (EVENTS, WINDOWED) or (isinstance(node, ReduceNode) and node.on_trigger is not None):
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
        return explain(plan_of(self._described(), workers=self._workers, place=self._place))

    def __repr__(self) -> str:
        """Show how it ends."""
        return f"<Flow ending with {type(self._node).__name__.removesuffix('Node').lower()}>"


def _itself(event: Any) -> Any:
    return event


def _first(seen: bool, event: Any) -> tuple[Iterable[Any], bool]:  # noqa: FBT001 (a step)
    return () if seen else (event,), True
