"""What a flow is described by: a tree of nodes, from its end to its sources. Pure; nothing is decided here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from headgate.flow.folds import Fold
from headgate.flow.inputs import Input
from headgate.flow.operators import Element, Side
from headgate.flow.panes import Reduce
from headgate.flow.program import Key
from headgate.flow.windows import WindowSpec

BY_KEY: Final = True
IN_TURN: Final = False
KEYED: Final = True


@dataclass(frozen=True)
class Node:
    """One node. ``before`` are those that it gets its events from."""

    before: tuple[Node, ...] = ()


@dataclass(frozen=True)
class SourceNode(Node):
    """Sources whose events are taken together."""

    inputs: tuple[Input, ...] = ()


@dataclass(frozen=True)
class ElementNode(Node):
    """An element-wise operator."""

    element: Element | None = None


@dataclass(frozen=True)
class AsyncNode(Node):
    """An async function of each event.

    Attributes:
        concurrency: How many calls are under way at most.
        rate: How many begin in a second at most; None: any number.
        ordered: Results come in the order of the events.
    """

    element: Element | None = None
    concurrency: int = 100
    rate: float | None = None
    ordered: bool = True


@dataclass(frozen=True)
class FoldNode(Node):
    """A reduce of everything, which may be done in parts."""

    fold: Fold | None = None
    key: Key = None
    keyed: bool = False
    emit: str = "events"


@dataclass(frozen=True)
class UniqueNode(Node):
    """The first event of each key."""

    where: str = ""
    key: Key = None


@dataclass(frozen=True)
class ReduceNode(Node):
    """A reduce within windows, or with triggers.

    Attributes:
        combines: The reduce may be done in parts.
    """

    where: str = ""
    window: WindowSpec | None = None
    reduce: Reduce | None = None
    key: Key = None
    keyed: bool = False
    emit: str = "events"
    finish: Callable[[Any], Any] | None = None
    on_trigger: Callable[..., Any] | None = None
    late: Side | None = None


@dataclass(frozen=True)
class ExchangeNode(Node):
    """Events are handed out anew.

    Attributes:
        by_key: Each event to the worker of its key; else to whoever is next.
        key: Event -> key.
        hash: Instead: event -> number of the worker.
        workers: How many; None: as before.
        place: Where; None: as before.
    """

    by_key: bool = False
    key: Key = None
    hash: Callable[[Any], Any] | None = None
    workers: int | None = None
    place: Any = None
    where: str = ""


@dataclass(frozen=True)
class MergeNode(Node):
    """The events of several flows."""


@dataclass(frozen=True)
class DepartitionNode(Node):
    """What all partitions give for a window becomes one event."""

    where: str = ""
    init: Callable[[], Any] | None = None
    merge: Callable[[Any, Any], Any] | None = None
    done: Callable[..., Any] | None = None


@dataclass(frozen=True)
class JoinNode(Node):
    """Two flows, put together by key."""

    where: str = ""
    mode: str = "inner"
    left_key: Callable[[Any], Any] | None = None
    right_key: Callable[[Any], Any] | None = None
    join: Callable[[Any, Any], Any] | None = None
    window: WindowSpec | None = None
    left_by: Any = None
    right_by: Any = None
    workers: int | None = None
    late: Side | None = None


@dataclass(frozen=True)
class TeeNode(Node):
    """The same events for several flows.

    Attributes:
        branches: The ends of the other flows; each begins with a `HoleNode` that is this one's.
        hole: What they begin with.
    """

    branches: tuple[Node, ...] = ()
    hole: HoleNode | None = None


@dataclass(frozen=True, eq=False)
class HoleNode(Node):
    """Where a branch begins."""


@dataclass(frozen=True)
class ThroughNode(Node):
    """Stages of the user's in between.

    Attributes:
        stages: Running ones, by reference or name, or recipes.
    """

    stages: tuple[Any, ...] = ()
    where: str = ""


@dataclass(frozen=True)
class IntoNode(Node):
    """The end of a flow: where its events go.

    Attributes:
        targets: `Outlet` objects (`headgate.flow.outputs`).
    """

    targets: tuple[Any, ...] = ()


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all before it, branches of a `TeeNode` included."""
    yield node
    for each in (*node.before, *(node.branches if isinstance(node, TeeNode) else ())):
        yield from walk(each)
