"""Every error says in one line who, which option, what was expected and what came, and crosses a process unharmed."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import headgate
from headgate import (
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

EXAMPLES = {
    HeadgateError: HeadgateError("something"),
    OptionError: OptionError("Child(Counter)", "buffer_size", "an integer of at least 0, or None", -1),
    NameTakenError: NameTakenError("Child(Counter)", "name", "a name that no living stage has", "counter"),
    ProtocolError: ProtocolError("something"),
    HandlerError: HandlerError("counter", "handle_demand", "a sequence of events", 5),
    PeerError: PeerError("stage 'counter' is a producer, it was sent events"),
    DispatchError: DispatchError("counter", "hash", "one of the partitions 0, 1", "7", {"id": 3}),
    BufferOverflowError: BufferOverflowError("counter", 10, [1, 2, 3]),
    SubscriptionError: SubscriptionError("printer", "counter", "it has ended", missing=True),
    HookError: HookError("dead_letter", "counter", ValueError("bad")),
    RestartLimitError: RestartLimitError("app", "counter", 3, 5.0, ValueError("bad")),
    RunError: RunError("headgate.run: an event loop runs here already"),
    StageCrashed: StageCrashed("counter", ValueError("bad")),
    EventError: EventError("deposited", "amount", "a number", "ten"),
    ReversalError: ReversalError("event 7 (deposited)", "it was already, by position 9"),
    EventLogError: EventLogError("ledger.db", "it is full"),
    AppendConditionError: AppendConditionError("ledger.db", "course-1", 3, 5),
    AppendConflictError: AppendConflictError("ledger.db", "account-1", 3, 5),
    RebuildingError: RebuildingError("ledger.db", "balances"),
    FencedError: FencedError("ledger.db", "the checkpoint is somebody else's"),
    DamagedLogError: DamagedLogError("ledger.db", "its digest is wrong", 7),
    QueueFullError: QueueFullError("orders", 1000, 3),
    QueueClosedError: QueueClosedError("orders"),
    RecordError: RecordError("orders.csv", 7, 210, "expected 3 fields (a, b, c), got 2"),
    StoreError: StoreError("jobs.db", "put", "database or disk is full", "make room, then go on"),
    NoStageError: NoStageError("stage 'counter' has ended"),
    FlowError: FlowError("flow 'words': its results go elsewhere"),
    OperatorError: OperatorError("map(int) at words.py:3", "x", "ValueError: bad", "Traceback ..."),
    FlowInterruptedError: FlowInterruptedError("words.work-1.1", "map(int)", "was killed", "it was the last"),
    CrossingError: CrossingError("Child(Counter): argument 1 cannot go to another process: an open file"),
    WorkerLostError: WorkerLostError("worker 3", 4711, "was killed by SIGKILL"),
    AugmentError: AugmentError("users", 7, ValueError("bad")),
    LookupTimeoutError: LookupTimeoutError("users", 7, 1.5),
    CircuitOpenError: CircuitOpenError("users", 7, 30.0),
    SourceError: SourceError("orders", "ack", OSError("away"), 3),
    AcknowledgementError: AcknowledgementError("orders", "a message", "it cannot be settled"),
    DuplicateSettlementError: DuplicateSettlementError("orders", "a message", "it was acknowledged already"),
    LeaseExpiredError: LeaseExpiredError("orders", "a message", "expected ack before its lease was over"),
    UnknownBatcherError: UnknownBatcherError("app", "otehr", ("default", "other")),
    HandlerTimeoutError: HandlerTimeoutError("app.default-1", "handle_message", 2.5),
}
each = pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: type(error).__name__)


def test_no_error_is_left_out_here():
    kinds = {value for value in vars(headgate).values() if inspect.isclass(value) and issubclass(value, HeadgateError)}
    assert kinds == set(EXAMPLES)


@each
def test_all_have_one_root(error):
    assert isinstance(error, HeadgateError)
    assert isinstance(error, Exception)


def test_the_family():
    assert issubclass(OptionError, ValueError)
    assert issubclass(NameTakenError, OptionError)
    assert issubclass(HandlerError, ProtocolError)
    assert issubclass(PeerError, ProtocolError)
    assert issubclass(LookupTimeoutError, AugmentError)
    assert issubclass(LookupTimeoutError, TimeoutError)
    assert issubclass(CircuitOpenError, AugmentError)
    assert issubclass(DuplicateSettlementError, AcknowledgementError)
    assert issubclass(LeaseExpiredError, AcknowledgementError)
    assert issubclass(HandlerTimeoutError, TimeoutError)
    for signal in (Stop, Ignore, Retry, Reject, Skip):
        assert not issubclass(signal, HeadgateError), "a signal is no error"


@each
def test_a_message_is_one_line(error):
    assert "\n" not in str(error)
    assert len(str(error)) > 5


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (OptionError, ["Child(Counter)", "'buffer_size'", "an integer of at least 0, or None", "-1"]),
        (NameTakenError, ["Child(Counter)", "'counter'", "taken"]),
        (HandlerError, ["'counter'", "handle_demand", "a sequence of events", "int: 5"]),
        (DispatchError, ["'counter'", "'hash'", "one of the partitions 0, 1", "7", "{'id': 3}"]),
        (BufferOverflowError, ["'counter'", "'buffer_size'", "10", "3 more", "buffer_keep"]),
        (SubscriptionError, ["'printer'", "'counter'", "it has ended"]),
        (StageCrashed, ["'counter'", "ValueError", "bad"]),
        (EventError, ["deposited", "amount", "a number", "'ten'"]),
        (ReversalError, ["event 7", "position 9"]),
        (AppendConflictError, ["ledger.db", "'account-1'", "version 3", "at 5"]),
        (DamagedLogError, ["ledger.db", "position 7", "digest"]),
        (AugmentError, ["'users'", "7", "ValueError: bad"]),
        (LookupTimeoutError, ["'users'", "7", "1.5 s"]),
        (CircuitOpenError, ["'users'", "7", "30 s"]),
        (QueueFullError, ["'orders'", "3 more", "1000", "'size'"]),
        (RecordError, ["orders.csv:7", "expected 3 fields (a, b, c), got 2"]),
        (SourceError, ["'orders'", "ack", "3 messages", "OSError: away"]),
        (DuplicateSettlementError, ["'orders'", "acknowledged already", "a message"]),
        (LeaseExpiredError, ["'orders'", "ack", "lease", "a message"]),
        (UnknownBatcherError, ["'app'", "'otehr'", "'default', 'other'"]),
        (HandlerTimeoutError, ["'app.default-1'", "handle_message", "2.5 s"]),
        (StoreError, ["jobs.db", "put", "disk is full", "make room"]),
        (WorkerLostError, ["worker 3", "4711", "SIGKILL"]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_message_names_who_what_was_expected_and_what_came(kind, parts):
    message = str(EXAMPLES[kind])
    for part in parts:
        assert part in message


@each
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_crosses_a_process(error, protocol):
    there = pickle.loads(pickle.dumps(error, protocol))
    assert type(there) is type(error)
    assert str(there) == str(error)
    for name, value in vars(error).items():
        other = vars(there)[name]
        if isinstance(value, BaseException):
            assert (type(other), other.args) == (type(value), value.args)
        else:
            assert other == value


@each
def test_an_error_can_be_copied(error):
    assert str(copy.copy(error)) == str(error)


def test_the_cause_of_a_crash_crosses_with_it():
    there = pickle.loads(pickle.dumps(StageCrashed("counter", ValueError("bad"))))
    assert isinstance(there.__cause__, ValueError)
    assert there.__cause__ is there.reason


def test_signals_cross_too():
    there = pickle.loads(pickle.dumps(Stop(("shutdown", 5))))
    assert there.reason == ("shutdown", 5)
    assert isinstance(pickle.loads(pickle.dumps(Ignore())), Ignore)
    for signal in (Reject("no"), Skip("no")):
        there = pickle.loads(pickle.dumps(signal))
        assert (type(there), there.reason) == (type(signal), "no")
    again = pickle.loads(pickle.dumps(Retry(after=5.0, reason="away")))
    assert (again.after, again.reason) == (5.0, "away")


def test_a_deadline_that_is_over_says_so():
    assert "deadline" in str(HandlerTimeoutError("app.default", "deadline", 0.0))


def test_a_fetch_is_about_no_messages():
    assert "messages" not in str(SourceError("orders", "fetch", OSError("away")))


def test_a_crash_without_an_exception_says_the_reason():
    error = StageCrashed("counter", "oops")
    assert str(error) == "stage 'counter' stopped abnormally: 'oops'"
    assert error.__cause__ is None


WITH_VALUE = {
    "OptionError": lambda value: OptionError("Child(Counter)", "option", "something else", value),
    "HandlerError": lambda value: HandlerError("counter", "handle_demand", "a sequence", value),
    "DispatchError": lambda value: DispatchError("counter", "hash", "a partition", "none", value),
    "StageCrashed": lambda value: StageCrashed("counter", value),
}
with_value = pytest.mark.parametrize("make", WITH_VALUE.values(), ids=WITH_VALUE.keys())


class Broken:
    def __repr__(self):
        raise RuntimeError("no text")


@with_value
def test_a_long_value_is_cut(make):
    assert len(str(make("x" * 10_000))) < 400


@with_value
def test_a_value_of_several_lines_stays_one_line(make):
    assert "\n" not in str(make(np.arange(20).reshape(4, 5)))


@with_value
def test_a_value_that_cannot_be_shown_does_not_hide_the_error(make):
    assert "counter" in str(make(Broken())).lower()


def test_a_cause_of_several_lines_stays_one_line():
    assert "\n" not in str(StageCrashed("counter", ValueError("first\nsecond")))
