"""Flow: parallel map and reduce over bounded and endless data. See `Flow`, `windows`, `triggers` and `watermarks`."""

from headgate.flow import triggers, watermarks, windows
from headgate.flow.app import FlowApp, FlowRun, FlowStatistics
from headgate.flow.flow import Flow
from headgate.flow.keys import stable_hash
from headgate.flow.operators import Failure, Side, retry
from headgate.flow.steps import Occasion, Partition, Windowed
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
