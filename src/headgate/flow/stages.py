"""From a plan to recipes of stages: who subscribes to whom, and on what terms."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from headgate.flow.callers import Caller
from headgate.flow.exchange import CLERK, SpreadDispatcher
from headgate.flow.inputs import Input, StageInput
from headgate.flow.plan import INLINE, OUT, Layer, Link
from headgate.flow.workers import OUTSIDE, WORK, Clerk, Collector, Outlet, Worker
from headgate.runtime.options import Child, To
from headgate.runtime.places import Process, Ray

if TYPE_CHECKING:
    from headgate.flow.app import FlowRun

PACKETS: Final = 8
"""Packets that a worker has at most of each other worker; it asks for more when half of them are done."""


class Stages:
    """The recipes of all stages of a run.

    Attributes:
        children: In the order of their start.
        sources: The ids of those that hand out work.
        outside: Running producers that belong to somebody else.
        externals: Running stages that are to subscribe, and to whom.
        outlet: The name of the stage that has the results; None: they go elsewhere.
    """

    def __init__(self, run: FlowRun) -> None:
        self._run = run
        self._base = run.base
        self.children: list[Child] = []
        self.sources: set[str] = set()
        self.outside: list[Any] = []
        self.externals: list[tuple[Any, str]] = []
        self.outlet: str | None = None
        self._names: dict[int, Any] = {}
        self._places: list[Process | Ray] = []
        plan = run.plan
        for number, source in enumerate(plan.sources):
            self._source(number, source)
        ready = self._ends_between()
        for layer in plan.layers:
            if layer.through:
                ready[layer.through[0]]()
            self._layer(layer)
        self._clerk()
        for layer, name, targets in plan.ends:
            if name not in ready:
                self._end(layer, name, targets)

    def _source(self, number: int, source: Input) -> None:
        run = self._run
        if source.outside:
            assert isinstance(source, StageInput)  # noqa: S101 (the only one)
            producer = source.stage.producer if isinstance(source.stage, To) else source.stage
            self._names[number] = producer
            self.outside.append(producer)
            return
        child = source.child(f"{self._base}.source-{number + 1}", number, partial(run.given_back, number))
        self._names[number] = child.name
        self.children.append(child)
        self.sources.add(child.id)

    def _layer(self, layer: Layer) -> None:
        run = self._run
        for index in range(layer.workers):
            id_ = f"{self._base}.{layer.name}.{index + 1}"
            subscriptions = [to for link in layer.links for to in self._subscriptions(layer, link, index)]
            subscriptions += self._through(layer)
            spec = layer.program(run.app.watch)
            arguments: tuple[Any, ...] = (layer.calls, spec) if layer.calls else (spec, index)
            child = Child(
                Caller if layer.calls else Worker,
                *arguments,
                name=id_,
                subscribe_to=subscriptions,
                dispatcher=SpreadDispatcher(spec.lanes()),
                buffer_size=None,
                max_deliveries=None,
                delivery="at_least_once" if layer.recovers else "at_most_once",  # else its end ends the flow
                restart="temporary",
                place=None if layer.calls or layer.place == INLINE else self._shared(layer.place, index),
            )
            self.children.append(child)
            run.layer_of[id_] = layer

    def _shared(self, place: Any, index: int) -> Any:
        """Let workers of the same number share a process, so that there are as many as workers, not as layers too."""
        if not isinstance(place, (Process, Ray)) or place.group is not None:
            return place
        if place not in self._places:
            self._places.append(place)
        return replace(place, group=f"{self._base}.{self._places.index(place) + 1}.{index + 1}")

    def _subscriptions(self, layer: Layer, link: Link, index: int) -> Iterator[To]:
        if link.layer is None:
            source = self._run.plan.sources[link.source]
            to = To(self._names[link.source], max_demand=source.max_demand, min_demand=source.min_demand)
            if isinstance(source, StageInput) and isinstance(source.stage, To):
                to = copy.copy(source.stage)
            cancel = OUTSIDE if source.outside else "temporary"
            to.terms = to.terms._replace(cancel=cancel, key=(WORK, link.source))
            yield to
            return
        name = f"{layer.name}:{link.port}:{layer.links.index(link)}"
        for number in range(link.layer.workers):
            yield To(
                f"{self._base}.{link.layer.name}.{number + 1}",
                max_demand=PACKETS,
                cancel="temporary",
                partition=(name, index),
                key=(link.port, (link.layer.name, number)),
            )

    def _ends_between(self) -> dict[str, Callable[[], None]]:
        """Return what makes the stages behind layers whose results go through stages of the user's."""
        plan = self._run.plan
        between = {layer.through[0]: layer for layer in plan.layers if layer.through}
        return {
            name: (lambda layer=layer, name=name: self._between(layer, name))  # type: ignore[misc]
            for layer, name, _ in plan.ends
            if name in between
        }

    def _between(self, layer: Layer, name: str) -> None:
        outlet = self._make_outlet(layer, name, f"{self._base}.{name}", partial(self._run.left, through=True))
        target = next(each for each in self._run.plan.layers if each.through and each.through[0] == name)
        self._attach(target.through[1], outlet)

    def _through(self, layer: Layer) -> list[To]:
        key = (WORK, -1)
        return [
            To(self._names[id(each)], cancel="temporary", key=key)
            if isinstance(each, Child)
            else To(each, cancel=OUTSIDE, key=key)
            for each in (layer.through[1] if layer.through else ())
        ]

    def _attach(self, stages: tuple[Any, ...], outlet: str) -> None:
        """Let stages subscribe to an outlet: recipes become stages of the flow."""
        for number, stage in enumerate(stages):
            if not isinstance(stage, Child):
                self.externals.append((stage, outlet))
                continue
            child = copy.copy(stage)
            child.id = f"{outlet}.{stage.id}-{number + 1}"
            child.name = stage.name or child.id
            terms = [To(outlet)] if not stage.subscribe_to else []
            child.subscribe_to = [*terms, *(_renamed(to, outlet) for to in stage.subscribe_to)]
            child.restart = "temporary"
            self._names[id(stage)] = child.name
            self.children.append(child)

    def _clerk(self) -> None:
        run = self._run
        terms = [
            To(f"{self._base}.{layer.name}.{index + 1}", partition=CLERK, cancel="temporary", key=("in", CLERK))
            for layer in run.plan.layers
            for index in range(layer.workers)
        ]
        self.children.append(
            Child(_Clerk, run, id=f"{self._base}.clerk", subscribe_to=terms, restart="temporary", max_deliveries=None)
        )

    def _end(self, layer: Layer, name: str, targets: tuple[Any, ...]) -> None:
        run = self._run
        first = name == OUT
        if targets:
            called = (run.app.name if first else None) or f"{self._base}.{name}"
            outlet = self._make_outlet(layer, name, called, run.left)
            self._attach(targets, outlet)
            self.outlet = outlet if first else self.outlet
        elif first and run.app.consume == "stages":
            self.outlet = self._make_outlet(layer, name, run.app.name or f"{self._base}.{name}")
        else:
            consume = run.app.consume
            take = consume if first and callable(consume) else _nothing
            self.children.append(
                Child(
                    _Collector,
                    take,
                    id=f"{self._base}.{name}",
                    subscribe_to=self._lane(layer, name),
                    restart="temporary",
                    max_deliveries=None,
                )
            )

    def _make_outlet(self, layer: Layer, name: str, called: str, left: Callable[[Any], None] | None = None) -> str:
        self.children.append(
            Child(
                Outlet,
                left,
                name=called,
                subscribe_to=self._lane(layer, name),
                buffer_size=None,
                restart="temporary",
                max_deliveries=None,
            )
        )
        return called

    def _lane(self, layer: Layer, name: str) -> list[To]:
        return [
            To(
                f"{self._base}.{layer.name}.{index + 1}",
                max_demand=PACKETS,
                partition=(name, 0),
                cancel="temporary",
                key=("in", (layer.name, index)),
            )
            for index in range(layer.workers)
        ]


def _renamed(to: To, outlet: str) -> To:
    """Return a subscription of a user's recipe, to the outlet instead of to nobody in particular."""
    if to.producer != "flow":
        return to
    renamed = copy.copy(to)
    renamed.producer = outlet
    return renamed


def _nothing(events: Any) -> None:
    """Take results that nobody wants."""


class _Ending:
    """A consumer that ends when all its producers have."""

    stage: Any

    def handle_cancel(self, reason: Any, peer: Any) -> None:  # noqa: ARG002 (a callback's form)
        if not self.stage.subscriptions:
            self.stage.stop()


class _Collector(_Ending, Collector):
    """Ends with the flow."""


class _Clerk(_Ending, Clerk):
    """Counts, and hands out side outputs."""

    def __init__(self, run: FlowRun) -> None:
        super().__init__(run.reported)
