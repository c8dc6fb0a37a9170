"""From a description to layers of workers. Pure.

A layer is a group of workers that all do the same. A new one begins only where that is needed: for concurrency (async
calls), for routing (events that have to come together by key, or in one place) or where several flows meet. Everything
else goes into the layer that is there: neighbouring operators become one loop, and what follows a reduce is done where
the reduce is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from headgate.errors import OptionError
from headgate.flow.departing import Departition, as_one
from headgate.flow.folds import Fold
from headgate.flow.graph import (
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
    SourceNode,
    TeeNode,
    ThroughNode,
    UniqueNode,
)
from headgate.flow.inputs import FilesInput, Input
from headgate.flow.operators import Element, Side
from headgate.flow.program import Key, ProgramSpec, Route, StepSpec
from headgate.flow.reading import PARQUET
from headgate.flow.steps import Elements, Folding, Partial, Unique
from headgate.flow.timed import Combining, Joining, Windowing_
from headgate.flow.watermarks import AtEnd
from headgate.flow.windows import EventTimeSpec, GlobalSpec
from headgate.runtime.places import cores

INLINE: Final = "inline"  # with the caller: there, too, runs a single worker behind others, as results go there
OUT: Final = "out"
HOME: Final = (INLINE, "task", "thread")


@dataclass(eq=False)
class Link:
    """One input of a layer.

    Attributes:
        port: ``"in"``, ``"left"`` or ``"right"``.
        layer: The layer that it comes from; None: a source.
        source: The number of the source.
    """

    port: str
    layer: Layer | None = None
    source: int = -1


@dataclass(eq=False)
class Layer:
    """A group of workers.

    Attributes:
        name: What its stages are called.
        workers: How many.
        place: Where they run.
        links: What it gets.
        steps: What it does.
        routes: Where its results go.
        bounded: Its input is known to end.
        partitioned: Each worker is a partition that the user wants apart.
        key: By which events are partitioned already, if they are.
        calls: The async function that it calls, if that is all it does before its steps.
        through: The end that stages of the user's subscribe to, and these stages, which it gets its events from.
        leads_home: All that it gives goes to this process.
        ours: All of its sources are the flow's own.
        whole: What a source gives leads to one answer, not to several, of which some may have been given.
    """

    name: str
    workers: int
    place: Any
    links: list[Link] = field(default_factory=list)
    steps: list[StepSpec] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    bounded: bool = True
    partitioned: bool = False
    key: Any = None
    calls: AsyncNode | None = None
    through: tuple[Any, ...] = ()
    leads_home: bool = True
    whole: bool = True
    ours: bool = True

    @property
    def fed_by_sources(self) -> bool:
        """Whether what it gets is kept by sources until it is done with it."""
        return all(link.layer is None for link in self.links) and not self.through

    @property
    def recovers(self) -> bool:
        """Whether the others of the layer can do again what one of them had when it died.

        What it has taken is still with the sources, unless it went into state that nobody else has. What it has given
        can be told apart from that only where all of it goes the same way home.
        """
        if self.place == INLINE or self.workers == 1 or self.calls is not None:
            return False
        if not self.fed_by_sources or not self.ours:
            return False
        if not all(isinstance(each, (Elements, Partial, Combining)) for each in self.steps) or not self.leads_home:
            return False
        return self.whole or (bool(self.steps) and isinstance(self.steps[-1], (Partial, Combining)))

    def program(self, reports: float | None = None) -> ProgramSpec:
        """Return what its workers do."""
        return ProgramSpec(
            self.name, fused(self.steps), tuple(self.routes), self.workers, self.bounded, reports, self.recovers
        )


def fused(steps: list[StepSpec]) -> tuple[StepSpec, ...]:
    """Put neighbouring element-wise operators together."""
    found: list[StepSpec] = []
    for step in steps:
        last = found[-1] if found else None
        if isinstance(step, Elements) and isinstance(last, Elements):
            found[-1] = Elements(last.elements + step.elements)
        else:
            found.append(step)
    return tuple(found)


_NO_KEY: Final = object()


class Plan:
    """The layers of a flow.

    Args:
        node: The end of the flow.
        workers: How many a layer has; None: one where they run inline, else one for each core.
        place: Where they run; None: inline.

    Attributes:
        sources: The sources, by number.
        layers: The layers, each behind those that it gets events from.
        sides: The side outputs, by number.
        targets: Where the results go, if the flow says so itself.
        out: The layer that has the results.
        why: Why it runs where it does, in words.
    """

    why = ""

    def __init__(self, node: Node, *, workers: int | None = None, place: Any = None) -> None:
        """Decide on all of it."""
        self.place = place if place is not None else INLINE
        self.workers = workers if workers is not None else default_workers(self.place)
        self.sources: list[Input] = []
        self.layers: list[Layer] = []
        self.sides: list[Side] = []
        self.ends: list[tuple[Layer, str, tuple[Any, ...]]] = []
        self._made = 0
        self._holes: dict[HoleNode, Callable[[], Layer]] = {}
        targets: tuple[Any, ...] = ()
        if isinstance(node, IntoNode):
            targets, node = node.targets, node.before[0]
        self.out = self._lower(node)
        self.end(self.out, OUT, targets)

    def end(self, layer: Layer, name: str, targets: tuple[Any, ...]) -> None:
        """Let the results of a layer leave the flow."""
        layer.routes.append(Route(name, 1))
        self.ends.append((layer, name, targets))

    @property
    def repeatable(self) -> bool:
        """Whether all sources can be read again."""
        return all(each.repeatable for each in self.sources)

    @property
    def bounded(self) -> bool:
        """Whether all sources are known to end."""
        return all(each.bounded for each in self.sources)

    # -- layers -------------------------------------------------------------------------------------------------------

    def _layer(self, what: str, workers: int, place: Any, *, bounded: bool) -> Layer:
        self._made += 1
        layer = Layer(f"{what}-{self._made}", workers, place, bounded=bounded)
        self.layers.append(layer)
        return layer

    def _after(self, layer: Layer, what: str, workers: int, place: Any, route: Route | None = None) -> Layer:
        """Begin a new layer behind one."""
        new = self._layer(what, workers, place, bounded=layer.bounded)
        self._connect(layer, new, "in", route)
        return new

    def _connect(self, layer: Layer, new: Layer, port: str, route: Route | None = None) -> None:
        name = f"{new.name}:{port}:{len(new.links)}"
        layer.routes.append(replace(route or Route("", 1), name=name, lanes=new.workers))
        new.links.append(Link(port, layer))
        layer.leads_home = layer.leads_home and new.place in HOME

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _lower(self, node: Node) -> Layer:
        return self._by_type[type(node)](self, node)

    def _source(self, node: SourceNode) -> Layer:
        first = len(self.sources)
        self.sources.extend(node.inputs)
        layer = self._layer("work", self.workers, self.place, bounded=all(each.bounded for each in node.inputs))
        layer.links = [Link("in", None, number) for number in range(first, len(self.sources))]
        layer.whole = all(each.whole for each in node.inputs)
        layer.ours = all(each.ours for each in node.inputs)
        return layer

    def _element(self, node: ElementNode) -> Layer:
        layer = self._lower(node.before[0])
        assert node.element is not None  # noqa: S101 (checked when it was built)
        layer.steps.append(Elements((self._aside(node.element),)))
        if node.element.kind not in ("filter", "reject", "tap"):
            layer.key = None
        return layer

    def _aside(self, element: Element) -> Element:
        """Give an operator the number of its side output instead of that itself, which stays here."""
        return element if element.side is None else replace(element, side=None, number=self.side(element.side))

    def side(self, side: Side | None) -> int:
        """Return the number of a side output; -1: none."""
        if side is None:
            return -1
        for number, each in enumerate(self.sides):
            if each is side:
                return number
        self.sides.append(side)
        return len(self.sides) - 1

    def _async(self, node: AsyncNode) -> Layer:
        before = self._lower(node.before[0])
        assert node.element is not None  # noqa: S101 (checked when it was built)
        layer = self._after(before, "calls", 1, INLINE)
        layer.calls = replace(node, before=(), element=self._aside(node.element))
        if self.place == INLINE and self.workers == 1:
            return layer
        return self._after(layer, "work", self.workers, self.place)

    def _fold(self, node: FoldNode, *, apart: bool = False) -> Layer:
        """Lower a reduce of everything; ``apart``: each partition gives its own result."""
        layer = self._lower(node.before[0])
        fold = node.fold
        assert fold is not None  # noqa: S101 (checked when it was built)
        if fold.columns and not layer.steps:
            self._narrow(layer, fold)
        apart = layer.partitioned and (apart or not fold.merges)
        alone = layer.workers == 1 and (layer.place in HOME or not fold.merges)  # else parts of it cross sooner
        if alone or apart or (node.keyed and same_key(layer.key, node.key)):
            layer.steps.append(Folding(fold, node.emit))
        elif fold.merges:
            layer.steps.append(Partial(fold))
            layer = self._after(layer, "merge", 1, INLINE)
            layer.steps.append(Folding(fold, node.emit, merging=True))
        else:
            layer = self._together(layer, node.keyed, node.key, fold.where)
            layer.steps.append(Folding(fold, node.emit))
        return layer

    def _narrow(self, layer: Layer, fold: Fold) -> None:
        """Let no more be read of files with columns than a reduce right behind them looks at."""
        for link in layer.links:
            source = self.sources[link.source] if link.layer is None else None
            if isinstance(source, FilesInput) and source.files.kind == PARQUET:
                self.sources[link.source] = source.narrowed(*fold.reads())

    def _together(self, layer: Layer, keyed: bool, key: Key, where: str) -> Layer:  # noqa: FBT001
        """Let what belongs together come together: by key, or all of it."""
        if keyed:
            new = self._after(
                layer, "reduce", layer.workers, layer.place, Route("", 1, by_key=True, key=key, where=where)
            )
            new.key = key if key is not None else IDENTITY
            return new
        return self._after(layer, "reduce", 1, INLINE)

    def _unique(self, node: UniqueNode) -> Layer:
        layer = self._lower(node.before[0])
        step = Unique(node.where, node.key)
        layer.steps.append(step)
        if layer.workers == 1 or layer.partitioned or same_key(layer.key, node.key):
            return layer
        new = self._together(layer, KEYED, node.key, node.where)
        new.steps.append(step)
        return new

    def _reduce(self, node: ReduceNode, *, apart: bool = False) -> Layer:
        """Lower a reduce within windows; as `_fold`."""
        layer = self._lower(node.before[0])
        spec, reduce = node.window or GlobalSpec(), node.reduce
        assert reduce is not None  # noqa: S101 (checked when it was built)
        # A result for each partition, if parts of one cannot be put together, or somebody looks at them.
        apart = layer.partitioned and (apart or reduce.combine is None or node.on_trigger is not None)
        if layer.workers > 1 and not apart and self._combines(node, layer):
            layer.steps.append(Combining(node.where, spec, reduce, node.key, node.keyed))
            layer = self._after(layer, "windows", 1, INLINE)
            layer.steps.append(replace(self._windowing(node, layer), merging=True))
            return layer
        if layer.workers > 1 and not apart and not (node.keyed and same_key(layer.key, node.key)):
            watermark = (spec, layer.bounded) if isinstance(spec, EventTimeSpec) else None
            route = Route("", 1, by_key=node.keyed, key=node.key, watermark=watermark, where=node.where)
            workers, place = (layer.workers, layer.place) if node.keyed else (1, INLINE)
            layer = self._after(layer, "windows", workers, place, route)
            layer.key = (node.key or IDENTITY) if node.keyed else None
        elif layer.workers > 1 and isinstance(spec, EventTimeSpec):
            self._watch(layer, spec)
        layer.steps.append(self._windowing(node, layer))
        return layer

    def _combines(self, node: ReduceNode, layer: Layer) -> bool:
        """Say whether workers can put together what they see: where order does not matter, as nothing can be late."""
        spec, reduce = node.window, node.reduce
        if not isinstance(spec, EventTimeSpec) or reduce is None or not layer.bounded:
            return False
        if not (spec.watermark is None or isinstance(spec.watermark, AtEnd)) or spec.trigger is not None:
            return False
        return reduce.combine is not None and not reduce.emits

    def _windowing(self, node: ReduceNode, layer: Layer) -> Windowing_:
        assert node.reduce is not None  # noqa: S101 (checked when it was built)
        return Windowing_(
            node.where,
            node.window or GlobalSpec(),
            node.reduce,
            node.key,
            node.keyed,
            node.emit,
            node.finish,
            node.on_trigger,
            self.side(node.late),
            tagged=False,
            bounded=layer.bounded,
        )

    def _watch(self, layer: Layer, spec: EventTimeSpec) -> None:
        """Let those who partition events tell each partition how far event time has come."""
        for link in layer.links:
            if link.layer is None or layer.steps:
                continue
            routes = link.layer.routes
            routes[-1] = replace(routes[-1], watermark=(spec, layer.bounded))

    def _exchange(self, node: ExchangeNode) -> Layer:
        layer = self._lower(node.before[0])
        place = node.place if node.place is not None else (self.place if node.workers != 1 else INLINE)
        workers = node.workers if node.workers is not None else self.workers
        if layer.workers == 1 and workers == 1 and layer.place == place and node.hash is None:
            layer.partitioned = True
            return layer
        route = Route("", workers, by_key=node.by_key, key=node.key, hash=node.hash, where=node.where)
        new = self._after(layer, "partition" if node.by_key else "shuffle", workers, place, route)
        new.partitioned = True
        new.key = (node.key or IDENTITY) if node.by_key and node.hash is None else None
        return new

    def _merge(self, node: MergeNode) -> Layer:
        layers = [self._lower(each) for each in node.before]
        if all(each.fed_by_sources and not each.steps and not each.calls for each in layers):
            first, *others = layers
            for each in others:
                first.links.extend(each.links)
                first.bounded = first.bounded and each.bounded
                first.whole = first.whole and each.whole
                first.ours = first.ours and each.ours
                self.layers.remove(each)
            return first
        new = self._layer(
            "merge", max(each.workers for each in layers), self.place, bounded=all(each.bounded for each in layers)
        )
        for each in layers:
            self._connect(each, new, "in")
        return new

    def _departition(self, node: DepartitionNode) -> Layer:
        before = node.before[0]
        if isinstance(before, FoldNode):
            layer = self._fold(before, apart=True)
            folding = layer.steps[-1]
            assert isinstance(folding, Folding)  # noqa: S101 (it has just been put there)
            layer.steps[-1] = replace(folding, give=as_one(folding.fold, folding.emit, keyed=before.keyed))
        else:
            layer = self._reduce(before, apart=True) if isinstance(before, ReduceNode) else self._lower(before)
            last = layer.steps[-1] if layer.steps else None
            if not isinstance(before, ReduceNode) or not isinstance(last, Windowing_):
                raise OptionError(node.where, "departition", "used right behind a reduce", type(before).__name__)
            if last.reduce.emits:  # of what it sends on nobody knows the window
                raise OptionError(node.where, "departition", "used behind a reduce that sends nothing on", last.where)
            layer.steps[-1] = replace(last, tagged=True)
        assert node.init is not None and node.merge is not None and node.done is not None  # noqa: S101, PT018
        step = Departition(node.where, node.init, node.merge, node.done, layer.workers)
        if layer.workers > 1:
            layer = self._after(layer, "departition", 1, INLINE)
        layer.steps.append(step)
        return layer

    def _join(self, node: JoinNode) -> Layer:
        left, right = (self._lower(each) for each in node.before)
        workers = node.workers if node.workers is not None else max(left.workers, right.workers)
        new = self._layer("join", workers, self.place, bounded=left.bounded and right.bounded)
        assert node.left_key is not None and node.right_key is not None  # noqa: S101, PT018
        for port, layer, key, by in (
            ("left", left, node.left_key, node.left_by),
            ("right", right, node.right_key, node.right_by),
        ):
            watermark = None
            if isinstance(node.window, EventTimeSpec) and workers > 1:
                spec = node.window if by is None else replace(node.window, by=by)
                watermark = (spec, new.bounded)
            self._connect(layer, new, port, Route("", 1, by_key=True, key=key, watermark=watermark, where=node.where))
        options = (("left_by", node.left_by), ("right_by", node.right_by), ("bounded", new.bounded))
        new.steps.append(
            Joining(
                node.where,
                node.mode,
                node.left_key,
                node.right_key,
                node.join,
                node.window,
                options,
                self.side(node.late),
            )
        )
        return new

    def _tee(self, node: TeeNode) -> Layer:
        layer = self._lower(node.before[0])
        assert node.hole is not None  # noqa: S101 (made with it)
        self._holes[node.hole] = lambda: self._after(layer, "tee", layer.workers, layer.place)
        for branch in node.branches:
            targets: tuple[Any, ...] = ()
            end = branch
            if isinstance(end, IntoNode):
                targets, end = end.targets, end.before[0]
            last = layer if isinstance(end, HoleNode) else self._lower(end)
            self.end(last, f"tee-{len(self.ends) + 1}", targets)
        return self._after(layer, "work", layer.workers, layer.place)

    def _hole(self, node: HoleNode) -> Layer:
        return self._holes[node]()

    def _through(self, node: ThroughNode) -> Layer:
        layer = self._lower(node.before[0])
        name = f"through-{len(self.ends) + 1}"
        self.end(layer, name, ())
        new = self._layer("work", self.workers, self.place, bounded=layer.bounded)
        new.through = (name, node.stages)
        return new

    _by_type: Final[dict[type[Node], Callable[[Any, Any], Layer]]] = {
        SourceNode: _source,
        ElementNode: _element,
        AsyncNode: _async,
        FoldNode: _fold,
        UniqueNode: _unique,
        ReduceNode: _reduce,
        ExchangeNode: _exchange,
        MergeNode: _merge,
        DepartitionNode: _departition,
        JoinNode: _join,
        TeeNode: _tee,
        HoleNode: _hole,
        ThroughNode: _through,
    }


def identity(event: Any) -> Any:
    """Return an event itself: the key of those that are their own."""
    return event


IDENTITY: Final = identity


def same_key(one: Any, other: Any) -> bool:
    """Say whether two functions are known to give the same key."""
    return one is not None and (one is (other or IDENTITY) or one == (other or IDENTITY))


def default_workers(place: Any) -> int:
    """Return how many workers a layer has, if nobody says: one where they would share a core."""
    if place in (INLINE, "task"):
        return 1
    return cores()
