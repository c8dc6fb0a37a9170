"""Flow: parallel map and reduce over bounded and endless data. See `Flow`, `windows`, `triggers` and `watermarks`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from headgate.flow import triggers, watermarks, windows
    from headgate.flow.app import FlowApp, FlowRun, FlowStatistics
    from headgate.flow.flow import Flow
    from headgate.flow.keys import stable_hash
    from headgate.flow.operators import Failure, Side, retry
    from headgate.flow.timed import Occasion, Partition, Windowed
    from headgate.flow.times import ExtractionError
    from headgate.flow.triggers import Continue, Fire, Firing
    from headgate.flow.windows import Window

__all__ = [
    "Continue",
    "ExtractionError",
    "Failure",
    "Fire",
    "Firing",
    "Flow",
    "FlowApp",
    "FlowRun",
    "FlowStatistics",
    "Occasion",
    "Partition",
    "Side",
    "Window",
    "Windowed",
    "retry",
    "stable_hash",
    "triggers",
    "watermarks",
    "windows",
]

_LATER: Final = {
    "Continue": "triggers",
    "ExtractionError": "times",
    "Failure": "operators",
    "Fire": "triggers",
    "Firing": "triggers",
    "Flow": "flow",
    "FlowApp": "app",
    "FlowRun": "app",
    "FlowStatistics": "app",
    "Occasion": "timed",
    "Partition": "timed",
    "Side": "operators",
    "Window": "windows",
    "Windowed": "timed",
    "retry": "operators",
    "stable_hash": "keys",
}
"""What is imported when it is first looked at: a worker that only counts does not wait for windows and joins."""


def __getattr__(name: str) -> Any:
    if name in ("triggers", "watermarks", "windows"):
        return importlib.import_module(f"{__name__}.{name}")
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
