# mypy: disable-error-code="var-annotated"
"""What `import headgate` gives: exactly these names, each explained, and nothing heavy."""

import inspect
import json
import subprocess
import sys

import pytest

import headgate

NAMES = [
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


def fresh(code):
    """Run code in a new interpreter, and return what it prints, from JSON."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(run.stdout)


def loaded(statement):
    return set(fresh(f"import sys, json\n{statement}\nprint(json.dumps(sorted(sys.modules)))"))


@pytest.fixture(scope="module")
def modules():
    return loaded("import headgate")


def test_the_public_names_are_exactly_these():
    assert headgate.__all__ == NAMES


def test_every_public_name_is_there():
    assert all(hasattr(headgate, name) for name in headgate.__all__)


def test_a_star_import_gives_them_and_nothing_else():
    scope = {}
    exec("from headgate import *", scope)
    assert set(scope) - {"__builtins__"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_explained(name):
    value = getattr(headgate, name)
    text = inspect.getdoc(value)
    assert text
    assert text.split("\n")[0].rstrip().endswith((".", ":")), "a first line that is a sentence"
    if inspect.isclass(value):
        assert value.__doc__, "its own, not that of its base"


def public_members():
    for name in NAMES:
        value = getattr(headgate, name)
        if inspect.isclass(value):
            for member, found in vars(value).items():
                if not member.startswith("_") and (inspect.isroutine(found) or isinstance(found, property)):
                    yield pytest.param(getattr(value, member), id=f"{name}.{member}")


@pytest.mark.parametrize("member", list(public_members()))
def test_every_public_method_and_property_is_explained(member):
    assert inspect.getdoc(member)


def test_the_version_is_that_of_the_project(request):
    text = (request.config.rootpath / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{headgate.__version__}"' in text


@pytest.mark.parametrize(
    "other",
    [
        "numpy",
        "pyarrow",
        "pandas",
        "ray",
        "sqlite3",
        "hypothesis",
        "pytest",
        "rich",
        "multiprocessing",
        "cloudpickle",
        "tblib",
        "headgate.runtime.hub",
        "unittest",
        "tkinter",
        "headgate.testing",
    ],
)
def test_importing_loads_nothing_that_is_not_needed(modules, other):
    assert other not in modules


def test_importing_loads_only_the_standard_library_and_itself(modules):
    bare = loaded("pass")
    foreign = {name.partition(".")[0] for name in modules - bare} - set(sys.stdlib_module_names) - {"headgate"}
    assert not foreign


def test_importing_costs_less_than_twice_of_asyncio(modules):
    """Modules are counted, since a time says more about the machine than about the library."""
    assert len(modules) < 2 * len(loaded("import asyncio"))
