"""Where a flow runs if nobody says so: on the event loop, or by worker processes that each read a share of its files.

Processes pay where they read much themselves and give little: where what they read is put together over there, before
it crosses. Then nothing but bytes of files decides, which is known before anything is read. See decision 26.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Final

from headgate.flow.folds import FoldAll, GroupBy, Top
from headgate.flow.graph import Node
from headgate.flow.inputs import FilesInput
from headgate.flow.operators import TAP
from headgate.flow.plan import INLINE, Layer, Plan
from headgate.flow.steps import Elements, Partial
from headgate.flow.timed import Combining
from headgate.runtime.places import Process, cores

SHARE: Final = 48_000_000
"""Bytes of files that are worth a worker process. With two of these, counting words takes about as long on the event
loop as in two processes, their start included; with more, the processes gain. Decision 26 has the figures.
"""
SEVERAL: Final = 2
"""Fewer worker processes are not worth it: this process could do as much itself."""
_NEEDED: Final = ("cloudpickle", "tblib")


def plan_of(node: Node, *, workers: int | None = None, place: Any = None) -> Plan:
    """Plan a flow, and decide where it runs if neither ``workers`` nor ``place`` is given.

    Args:
        node: The end of the flow.
        workers: How many workers a layer has; None: nobody has said.
        place: Where they run; None: nobody has said.

    Returns:
        The plan; its ``why`` tells how it came about.

    Raises:
        OptionError: The flow cannot be planned.
    """
    plan = Plan(node, workers=workers, place=place)
    if workers is not None or place is not None:
        plan.why = "as options say"
        return plan
    size, parts = _files(plan)
    count = min(cores(), parts, size // SHARE)
    why_not = _why_not(plan, size, parts, count)
    if not why_not:
        there = Plan(node, workers=count, place=Process())
        why_not = next(filter(None, map(_crosses, there.layers)), "")
        if not why_not:
            there.why = f"in {count} worker processes, as {_megabytes(size)} of files are summed up where they are read"
            return there
    plan.why = f"on the event loop, as {why_not}"
    return plan


def _files(plan: Plan) -> tuple[int, int]:
    """Return the bytes of all files, and how many workers at most can read them; (0, 0) with sources of other kinds."""
    inputs = [each for each in plan.sources if isinstance(each, FilesInput)]
    if len(inputs) < len(plan.sources):
        return 0, 0
    try:
        sizes, parts = zip(*(each.files.weigh() for each in inputs), strict=True)
        return sum(sizes), sum(parts)
    except (OSError, ValueError):  # missing, or not what it should be: who reads it will say so
        return 0, 0


def _why_not(plan: Plan, size: int, parts: int, count: int) -> str:
    """Say what is against worker processes, as far as sources and the machine go; empty: nothing."""
    if not all(isinstance(each, FilesInput) for each in plan.sources):
        return "not all of its sources are files"
    if count >= SEVERAL:
        missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        return f"headgate[process] is not installed ({', '.join(missing)})" if missing else ""
    if size < SEVERAL * SHARE:
        return f"{_megabytes(size)} of files are less than {_megabytes(SEVERAL * SHARE)}"
    return "its one file cannot be read in parts" if parts < SEVERAL else "there is one core"


def _crosses(layer: Layer) -> str:
    """Say why a layer is better off on the event loop; empty: it gives only what it has put together of its files."""
    if layer.place == INLINE:
        return ""
    steps = layer.steps
    taps = [each for step in steps if isinstance(step, Elements) for each in step.elements if each.kind == TAP]
    if taps:
        return f"{taps[0].where} is done for what it does here"
    if not layer.fed_by_sources or not steps or not isinstance(steps[-1], (Partial, Combining)):
        return f"each event of {layer.name} would cross between processes"
    if _collects(steps[-1]):
        return f"{steps[-1].where} keeps all events, which would cross between processes"
    return ""


def _collects(step: Partial | Combining) -> bool:
    """Say whether what it has put together is as much as it was before."""
    begin: Any
    if isinstance(step, Combining):
        begin = step.reduce.init
        fold = getattr(begin, "__self__", None)
    else:
        fold = step.fold
        begin = fold.init if isinstance(fold, FoldAll) else None
    return isinstance(fold, GroupBy) or (isinstance(fold, Top) and fold.count is None) or begin is list


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
