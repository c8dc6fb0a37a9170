"""Headgate: demand-driven data pipelines.

Consumers ask, producers never send more than was asked. Start with `Producer`, `ProducerConsumer` and `Consumer`, put
them into `Child` recipes, those into a `Supervisor`, and that into `run`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from headgate.draining import Drained
from headgate.errors import (
    AcknowledgementError,
    AppendConditionError,
    AppendConflictError,
    AugmentError,
    BufferOverflowError,
    CircuitOpenError,
    CrossingError,
    DamagedLogError,
    DispatchError,
    DuplicateSettlementError,
    EventError,
    EventLogError,
    FencedError,
    FlowError,
    FlowInterruptedError,
    HandlerError,
    HandlerTimeoutError,
    HeadgateError,
    HookError,
    Ignore,
    LeaseExpiredError,
    LookupTimeoutError,
    NameTakenError,
    NoStageError,
    OperatorError,
    OptionError,
    PeerError,
    ProtocolError,
    QueueClosedError,
    QueueFullError,
    RebuildingError,
    RecordError,
    Reject,
    RestartLimitError,
    Retry,
    ReversalError,
    RunError,
    Skip,
    SourceError,
    StageCrashed,
    Stop,
    StoreError,
    SubscriptionError,
    UnknownBatcherError,
    WorkerLostError,
)
from headgate.observe.stall import Diagnosis, StageDiagnosis
from headgate.ordered import ordered
from headgate.protocol.children import Backoff
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.broadcast import BroadcastDispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.dispatch.keyed import FairDispatcher, PriorityDispatcher
from headgate.protocol.dispatch.partition import PartitionDispatcher, stable_hash
from headgate.protocol.messages import DeadLetter, Down, End, Subscription, Terms
from headgate.protocol.statistics import StageStatistics, SubscriptionStatistics
from headgate.runner import run
from headgate.runtime.options import Child, To
from headgate.runtime.places import Process, Ray, cores
from headgate.runtime.reference import Ref, StageContext
from headgate.sources import from_iterable
from headgate.stage import Consumer, Producer, ProducerConsumer
from headgate.streaming import stream
from headgate.supervision.consumer_supervisor import ConsumerSupervisor, ConsumerSupervisorRef
from headgate.supervision.members import ChildInfo, Counts
from headgate.supervision.running import Supervision
from headgate.supervision.supervisor import Supervisor
from headgate.system import System
from headgate.types import Message, Source, merge

if TYPE_CHECKING:
    from headgate.eventlog.events import Event
    from headgate.eventlog.log import EventLog
    from headgate.flow.flow import Flow
    from headgate.pipeline.augment import Augment, AugmentStatistics, augment
    from headgate.pipeline.batching import BatchInfo
    from headgate.pipeline.options import Batcher, Processors
    from headgate.pipeline.pipeline import Pipeline
    from headgate.pipeline.rates import RateLimiter, RateStatistics
    from headgate.pipeline.running import BatcherStatistics, PipelineRun, PipelineStatistics
    from headgate.protocol.circuits import CircuitBreaker
    from headgate.protocol.retries import RetryPolicy

__all__ = [
    "AcknowledgementError",
    "AppendConditionError",
    "AppendConflictError",
    "Augment",
    "AugmentError",
    "AugmentStatistics",
    "Backoff",
    "BatchInfo",
    "Batcher",
    "BatcherStatistics",
    "BroadcastDispatcher",
    "BufferOverflowError",
    "Child",
    "ChildInfo",
    "CircuitBreaker",
    "CircuitOpenError",
    "Consumer",
    "ConsumerSupervisor",
    "ConsumerSupervisorRef",
    "Counts",
    "CrossingError",
    "DamagedLogError",
    "DeadLetter",
    "DemandDispatcher",
    "Diagnosis",
    "DispatchError",
    "Dispatcher",
    "Down",
    "Drained",
    "DuplicateSettlementError",
    "End",
    "Event",
    "EventError",
    "EventLog",
    "EventLogError",
    "FairDispatcher",
    "FencedError",
    "Flow",
    "FlowError",
    "FlowInterruptedError",
    "HandlerError",
    "HandlerTimeoutError",
    "HeadgateError",
    "HookError",
    "Ignore",
    "LeaseExpiredError",
    "LookupTimeoutError",
    "Message",
    "NameTakenError",
    "NoStageError",
    "OperatorError",
    "OptionError",
    "PartitionDispatcher",
    "PeerError",
    "Pipeline",
    "PipelineRun",
    "PipelineStatistics",
    "PriorityDispatcher",
    "Process",
    "Processors",
    "Producer",
    "ProducerConsumer",
    "ProtocolError",
    "QueueClosedError",
    "QueueFullError",
    "RateLimiter",
    "RateStatistics",
    "Ray",
    "RebuildingError",
    "RecordError",
    "Ref",
    "Reject",
    "RestartLimitError",
    "Retry",
    "RetryPolicy",
    "ReversalError",
    "RunError",
    "Skip",
    "Source",
    "SourceError",
    "StageContext",
    "StageCrashed",
    "StageDiagnosis",
    "StageStatistics",
    "Stop",
    "StoreError",
    "Subscription",
    "SubscriptionError",
    "SubscriptionStatistics",
    "Supervision",
    "Supervisor",
    "System",
    "Terms",
    "To",
    "UnknownBatcherError",
    "WorkerLostError",
    "augment",
    "cores",
    "from_iterable",
    "merge",
    "ordered",
    "run",
    "stable_hash",
    "stream",
]
__version__ = "0.1.0"

_LATER: Final = {
    "Augment": "headgate.pipeline.augment",
    "AugmentStatistics": "headgate.pipeline.augment",
    "BatchInfo": "headgate.pipeline.batching",
    "Batcher": "headgate.pipeline.options",
    "BatcherStatistics": "headgate.pipeline.running",
    "CircuitBreaker": "headgate.protocol.circuits",
    "Event": "headgate.eventlog.events",
    "EventLog": "headgate.eventlog.log",
    "Flow": "headgate.flow.flow",
    "Pipeline": "headgate.pipeline.pipeline",
    "PipelineRun": "headgate.pipeline.running",
    "PipelineStatistics": "headgate.pipeline.running",
    "Processors": "headgate.pipeline.options",
    "RateLimiter": "headgate.pipeline.rates",
    "RateStatistics": "headgate.pipeline.rates",
    "RetryPolicy": "headgate.protocol.retries",
    "augment": "headgate.pipeline.augment",
}
"""What is imported when it is first looked at: a program without pipelines does not pay for them."""


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
