"""The plan of a flow as text."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from headgate.flow.plan import INLINE, OUT, Layer, Plan, fused
from headgate.flow.program import Route
from headgate.runtime.options import Child


def explain(plan: Plan) -> str:
    """Return one paragraph for each source and layer: what it does, where, and where its results go; then why there."""
    lines: list[str] = []
    for number, source in enumerate(plan.sources):
        known = "bounded" if source.bounded else "may be endless"
        volume = source.volume
        size = "" if volume is None else f", {volume:,} {'bytes' if hasattr(source, 'files') else 'events'}"
        lines.append(f"source-{number + 1}: {source.where} ({known}{size}, max_demand {source.max_demand})")
    for layer in plan.layers:
        lines += ["", *_layer(layer, plan)]
    if plan.why:
        lines += ["", f"runs {plan.why}"]
    return "\n".join(lines)


def _layer(layer: Layer, plan: Plan) -> list[str]:
    count = "1 worker" if layer.workers == 1 else f"{layer.workers} workers"
    place = "on the event loop" if layer.place == INLINE else f"at {_place(layer.place)}"
    origin = ", ".join(
        (f"source-{link.source + 1}" if link.layer is None else link.layer.name)
        + ("" if link.port == "in" else f" ({link.port})")
        for link in layer.links
    )
    if layer.through:
        origin = "stages of yours"
    lines = [f"{layer.name}: {count} {place}, from {origin}"]
    if layer.calls is not None and layer.calls.element is not None:
        calls = layer.calls
        order = "in order" if calls.ordered else "in any order"
        rate = "" if calls.rate is None else f", {calls.rate:g} a second at most"
        lines.append(f"    {layer.calls.element.where} ({calls.concurrency} at a time, {order}{rate})")
    lines += [f"    {step.describe()}" for step in fused(layer.steps)]
    if layer.recovers:
        lines.append("    (a worker that dies is made up for by the others)")
    lines += [f"    -> {_route(route, plan)}" for route in layer.routes]
    return lines


def _place(place: Any) -> str:
    """Show a place, with the options that are not what they would be anyhow."""
    if not is_dataclass(place):
        return repr(place)
    options = (
        (each.name, getattr(place, each.name)) for each in fields(place) if each.default != getattr(place, each.name)
    )
    return f"{type(place).__name__}({', '.join(f'{name}={value!r}' for name, value in options)})"


def _route(route: Route, plan: Plan) -> str:
    name = route.name.partition(":")[0]
    for _, end, targets in plan.ends:
        if end == route.name:
            return _end(name, targets)
    if route.hash is not None:
        return f"{name}, by hash"
    if route.by_key and route.lanes > 1:
        return f"{name}, by key"
    return f"{name}, in turn" if route.lanes > 1 else name


def _end(name: str, targets: tuple[Any, ...]) -> str:
    """Say where events leave the flow."""
    if name.startswith("through"):
        return "stages of yours"
    if not targets:
        return "results" if name == OUT else "nowhere"
    return ", ".join(each.id if isinstance(each, Child) else f"into {each}" for each in targets)
