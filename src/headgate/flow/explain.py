"""The plan of a flow as text."""

from __future__ import annotations

from headgate.flow.plan import INLINE, Layer, Plan, fused
from headgate.flow.program import Route


def explain(plan: Plan) -> str:
    """Return one paragraph for each source and layer: what it does, where, and where its results go; then why there."""
    lines: list[str] = []
    for number, source in enumerate(plan.sources):
        known = "bounded" if source.bounded else "may be endless"
        volume = source.volume
        size = "" if volume is None else f", {volume:,} {'bytes' if hasattr(source, 'files') else 'events'}"
        lines.append(f"source-{number + 1}: {source.where} ({known}{size}, max_demand {source.max_demand})")
    for layer in plan.layers:
        lines += ["", *_layer(layer)]
    if plan.why:
        lines += ["", f"runs {plan.why}"]
    return "\n".join(lines)


def _layer(layer: Layer) -> list[str]:
    count = "1 worker" if layer.workers == 1 else f"{layer.workers} workers"
    place = "on the event loop" if layer.place == INLINE else f"at {layer.place!r}"
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
    lines += [f"    -> {_route(route)}" for route in layer.routes]
    return lines


def _route(route: Route) -> str:
    name = route.name.partition(":")[0]
    if route.hash is not None:
        return f"{name}, by hash"
    if route.by_key and route.lanes > 1:
        return f"{name}, by key"
    if route.lanes > 1:
        return f"{name}, in turn"
    return "results" if name == "out" else name
