"""The topology of an app, drawn from its recipes: nothing is started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from headgate.protocol.messages import CONSUMER, PRODUCER, PRODUCER_CONSUMER, Terms
from headgate.runtime.options import Child, To

_ROLES: Final = {PRODUCER: "producer", PRODUCER_CONSUMER: "middle", CONSUMER: "consumer"}
_SHAPES: Final = {PRODUCER: ('(["', '"])'), PRODUCER_CONSUMER: ('["', '"]'), CONSUMER: ('[["', '"]]')}
_ASCII: Final = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "▶": ">", "·": "-"})


@dataclass(slots=True)
class Node:
    """A stage, or a group of them.

    Attributes:
        key: Its name in the drawing.
        recipe: What it is started from; None: nobody here has this name.
        inputs: Whom it subscribes to, and on which terms.
        outputs: Who subscribes to it.
    """

    key: str
    label: str
    recipe: Child | None
    inputs: list[tuple[Node, Terms]] = field(default_factory=list)
    outputs: list[tuple[Node, Terms]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Return the name, and how many there are of it."""
        count = 1 if self.recipe is None else self.recipe.count
        return self.label if count == 1 else f"{self.label} x{count}"

    @property
    def facts(self) -> list[str]:
        """Return what is worth knowing of it: class, role, dispatcher, place."""
        recipe = self.recipe
        if recipe is None:
            return ["not in this app"]
        facts = [_class_name(recipe)]
        if recipe.role != CONSUMER:
            dispatcher = recipe.fresh_dispatcher()
            name = type(dispatcher).__name__.removesuffix("Dispatcher").lower()
            if name != "demand":
                facts.append(f"{name} dispatcher")
        if not _is_spawner(recipe):
            facts.append(recipe.place if isinstance(recipe.place, str) else recipe.place.word)
        if recipe.remark:
            facts.append(recipe.remark)
        return facts


@dataclass(slots=True)
class Box:
    """A supervisor.

    Attributes:
        key: Its name in the drawing.
        title: Its id.
        facts: Its strategy and its limit of restarts.
        content: What it starts, in order.
    """

    key: str
    title: str
    facts: list[str]
    content: list[Node | Box] = field(default_factory=list)


class Graph:
    """What an app consists of, and who asks whom.

    Args:
        app: A `Supervisor`.
    """

    def __init__(self, app: Any) -> None:
        """Read the recipes."""
        self.nodes: list[Node] = []
        self._boxes = 0
        self._by_name: dict[str, Node] = {}
        self.top = self._box(app)
        for node in list(self.nodes):
            if node.recipe is not None:
                for to in node.recipe.subscribe_to:
                    producer = self._find(to)
                    node.inputs.append((producer, to.terms))
                    producer.outputs.append((node, to.terms))

    def _box(self, supervisor: Any) -> Box:
        limit = "any number of restarts"
        if supervisor.max_restarts is not None:
            limit = f"at most {supervisor.max_restarts} restarts in {supervisor.max_seconds:g} s"
        box = Box(f"box{self._boxes}", supervisor.id, [supervisor.strategy, limit])
        self._boxes += 1
        for child in supervisor.children:
            if isinstance(child, Child):
                node = Node(f"stage{len(self.nodes)}", child.name or child.id, child)
                self.nodes.append(node)
                box.content.append(node)
                if child.name is not None:
                    self._by_name[child.name] = node
                    for name in child.names():  # somebody may subscribe to one of a group
                        self._by_name.setdefault(name, node)
            else:
                box.content.append(self._box(child))
        return box

    def _find(self, to: To) -> Node:
        name = to.producer if isinstance(to.producer, str) else to.producer.name
        node = self._by_name.get(name)
        if node is None:
            node = self._by_name[name] = Node(f"stage{len(self.nodes)}", name, None)
            self.nodes.append(node)
        return node

    # -- text ---------------------------------------------------------------------------------------------------------

    def text(self, *, ascii_only: bool = False) -> str:
        """Draw it for a terminal: who supervises whom, and which way events go.

        Args:
            ascii_only: With no other characters than those of ASCII.
        """
        lines = [f"{self.top.title}  (supervisor: {', '.join(self.top.facts)})"]
        rows = list(self._tree(self.top, ""))
        width = max((len(head) for head, _ in rows), default=0)
        lines += [f"{head:<{width}}  {tail}".rstrip() for head, tail in rows]
        lines += ["", "events"]
        seen: set[str] = set()
        starts = [each for each in self.nodes if not each.inputs]
        for node in [*starts, *self.nodes]:
            if node.key not in seen:
                lines += self._flow(node, seen)
        text = "\n".join(lines)
        return text.translate(_ASCII) if ascii_only else text

    def _tree(self, box: Box, indent: str) -> Iterator[tuple[str, str]]:
        for index, each in enumerate(box.content):
            last = index == len(box.content) - 1
            head = f"{indent}{'└─' if last else '├─'} {each.title}"
            if isinstance(each, Box):
                yield head, f"supervisor: {', '.join(each.facts)}"
                yield from self._tree(each, indent + ("   " if last else "│  "))
            else:
                role = "" if each.recipe is None else _ROLES[each.recipe.role]
                yield head, f"{role:<8}  {', '.join(each.facts)}"

    def _flow(self, node: Node, seen: set[str], indent: str = "", first: bool = True) -> Iterator[str]:  # noqa: FBT001, FBT002
        if first:
            missing = "  (not in this app)" if node.recipe is None else ""
            alone = "" if node.outputs or node.recipe is None else "  (nobody subscribes to it)"
            yield f"  {node.title}{missing}{alone}"
        if node.key in seen:
            return
        seen.add(node.key)
        for index, (consumer, terms) in enumerate(node.outputs):
            last = index == len(node.outputs) - 1
            again = "  (its outputs: see above)" if consumer.key in seen and consumer.outputs else ""
            yield f"  {indent}{'└─▶' if last else '├─▶'} {consumer.title}  {_terms(consumer, terms)}{again}"
            yield from self._flow(consumer, seen, indent + ("    " if last else "│   "), first=False)

    # -- mermaid ------------------------------------------------------------------------------------------------------

    def mermaid(self) -> str:
        """Draw it as a Mermaid flowchart: supervisors are boxes, edges carry max and min demand."""
        lines = ["flowchart LR", *self._draw(self.top, "    ")]
        for node in self.nodes:
            if node.recipe is None:
                lines.append(f"    {self._shape(node)}")
                lines.append(f"    style {node.key} stroke-dasharray: 4 4")
        for node in self.nodes:
            for consumer, terms in node.outputs:
                label = ", ".join([f"{terms.max_demand} / {terms.min_demand}", *_more(terms)])
                lines.append(f'    {node.key} -->|"{_escape(label)}"| {consumer.key}')
        return "\n".join(lines)

    def _draw(self, box: Box, indent: str) -> Iterator[str]:
        title = " · ".join([box.title, *box.facts[:1]])
        yield f'{indent}subgraph {box.key}["{_escape(title)}"]'
        for each in box.content:
            if isinstance(each, Box):
                yield from self._draw(each, indent + "    ")
            else:
                yield f"{indent}    {self._shape(each)}"
        yield f"{indent}end"

    @staticmethod
    def _shape(node: Node) -> str:
        left, right = _SHAPES[PRODUCER_CONSUMER if node.recipe is None else node.recipe.role]
        return f"{node.key}{left}{_escape(node.title)}<br/>{_escape(' · '.join(node.facts))}{right}"


def _class_name(recipe: Child) -> str:
    if not _is_spawner(recipe):
        return recipe.label
    plan = recipe.args[0]
    child = plan.child.label if isinstance(plan.child, Child) else getattr(plan.child, "__name__", "child")
    return f"one {child} for each event, in a {plan.kind}" if plan.kind != "stage" else f"one {child} for each event"


def _is_spawner(recipe: Child) -> bool:
    """Say whether it is a `ConsumerSupervisor`, which this layer does not know."""
    return recipe.ref_class.__name__ == "ConsumerSupervisorRef"


def _terms(consumer: Node, terms: Terms) -> str:
    each = "each " if consumer.recipe is not None and consumer.recipe.count > 1 else ""
    if terms.manual:
        asks = f"{each}asks by hand"
    else:
        asks = f"{each}asks for {terms.max_demand:,}, again at {terms.min_demand:,}"
    return ", ".join([asks, *(part for part in _more(terms) if part != "manual")])


def _more(terms: Terms) -> list[str]:
    """Return what is not as usual."""
    more = ["manual"] if terms.manual else []
    if terms.partition is not None:
        more.append(
            f"partitions {', '.join(map(str, terms.partition))}"
            if isinstance(terms.partition, (list, range))
            else f"partition {terms.partition}"
        )
    if terms.selector is not None:
        more.append("selected")
    if terms.cancel != "permanent":
        more.append(terms.cancel)
    return more


def _escape(text: str) -> str:
    """Make a text safe inside of a Mermaid label."""
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
