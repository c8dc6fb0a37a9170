"""The partition dispatcher: each event to the consumer of its partition."""

import pytest

from headgate import Child, DispatchError, OptionError, PartitionDispatcher, SubscriptionError, System, To
from tests.parity.bench import Bench
from tests.parity.registry import different
from tests.parity.stages import Forwarder, Log, Source, batches, refused, settle


def parity(event):
    return "even" if event % 2 == 0 else "odd"


def partitions(count=2, route=None, **consumers):
    """Return a bench; ``a=0``: consumer a has partition 0. By default an event's partition is its tens."""
    bench = Bench(PartitionDispatcher(count, hash=route or (lambda event: event // 10 % 10)))
    for name, partition in consumers.items():
        assert bench.subscribe(name, partition=partition) == 0
    return bench


@different(
    "G155",
    "events that come while nobody is subscribed wait in the stage's buffer until somebody asks",
)
def test_demand_of_who_has_left_is_remembered_for_any_partition():
    """G155: it is deducted from the next ask; events that come for nobody lower it from 10 to 6."""
    bench = partitions(a=0)
    assert bench.ask("a", 10) == 10
    assert bench.cancel("a") == 0
    assert bench.remembered() == 10
    assert bench.subscribe("b", partition=1) == 0
    assert bench.ask("b", 5) == 0
    assert bench.cancel("b") == 0
    assert bench.remembered() == 10
    assert bench.emit(1, 11, 2, 12) is None
    assert bench.side.requested == 6
    assert (bench.dispatcher.queued(), bench.side.queue.size) == ({}, 4)
    bench.subscribe("c", partition=0)
    bench.subscribe("d", partition=1)
    assert bench.ask("c", 5) == 0
    assert bench.ask("d", 5) == 0
    assert bench.received() == [("c", [1, 2]), ("d", [11, 12])]
    assert bench.side.queue.size == 0


def test_a_single_partition():
    """G156: asks add up, and what is beyond the demand comes back."""
    bench = partitions(1, lambda event: 0, a=0)
    assert bench.ask("a", 3) == 3
    assert bench.dispatch(1) == []
    assert bench.received() == [("a", [1])]
    assert bench.ask("a", 3) == 3
    assert bench.wanted() == 5
    assert bench.dispatch(2, 5, 6, 7, 8, 9, 11) == [9, 11]
    assert bench.received() == [("a", [2, 5, 6, 7, 8])]
    assert bench.wanted() == 0


def test_partitions_with_names_and_a_hash():
    """G157: it is the same with them."""
    bench = partitions(["odd", "even"], parity, a="odd")
    assert bench.ask("a", 3) == 3
    assert bench.dispatch(1) == []
    assert bench.received() == [("a", [1])]
    assert bench.ask("a", 3) == 3
    assert bench.dispatch(5, 7, 9, 11, 13, 15, 17) == [15, 17]
    assert bench.received() == [("a", [5, 7, 9, 11, 13])]


def test_an_event_without_a_partition_is_dropped_and_takes_no_demand():
    """G158: the first event beyond the demand comes back."""
    bench = partitions([0], lambda event: None if event % 2 == 0 else 0, a=0)
    assert bench.ask("a", 3) == 3
    assert bench.dispatch(1, 2, 3, 4, 5, 7) == [7]
    assert [event for _, batch in bench.received() for event in batch] == [1, 3, 5]
    assert bench.side.discarded == {"hash gave none": 2}


def test_what_a_hash_drops_is_asked_for_again():
    """In the original the producer is never asked again."""
    bench = partitions([0], lambda event: None, a=0)
    assert bench.ask("a", 10) == 10
    assert bench.emit(*range(10)) is None
    assert bench.received() == []
    assert bench._upstream() == 10


def test_events_of_a_partition_without_a_consumer_are_kept_for_it():
    """G159: it gets them when it asks; which event belongs where is up to the hash."""
    bench = partitions(b=1)
    assert bench.ask("b", 5) == 5
    assert bench.dispatch(1, 2, 5, 6, 7) == []
    assert bench.received() == []
    assert bench.dispatcher.queued() == {0: 5}
    assert bench.subscribe("a", partition=0) == 0
    bench.ask("a", 5)
    assert bench.received() == [("a", [1, 2, 5, 6, 7])]
    assert bench.dispatch(11, 12) == []
    assert bench.received() == [("b", [11, 12])]


def test_events_beyond_the_demand_of_their_partition_are_kept_for_it():
    """G160: although another has demand; the next ask gets them."""
    bench = partitions(a=0, b=1)
    assert bench.ask("a", 5) == 5
    assert bench.ask("b", 5) == 5
    assert bench.dispatch(1, 2) == []
    assert bench.dispatch(5, 6, 7, 1, 2, 5, 6, 7) == []
    assert [event for name, batch in bench.received() for event in batch if name == "a"] == [1, 2, 5, 6, 7]
    assert bench.dispatcher.queued() == {0: 5}
    bench.ask("a", 5)
    assert bench.received() == [("a", [1, 2, 5, 6, 7])]
    assert bench.dispatcher.queued() == {}


@different(
    "G161",
    "a partition's queue outlives its consumer: the successor gets it in order, so it is neither lost nor asked again",
)
def test_the_queue_of_a_partition_outlives_its_consumer():
    """G161: nothing is dropped, and the info behind it comes when the successor has got it."""
    bench = partitions(a=0, b=1)
    assert bench.ask("b", 5) == 5
    assert bench.dispatch(1, 2, 5, 6, 7) == []
    assert bench.side.info("hello")
    assert bench.idle() == 5  # partition 1 still wants its events
    assert bench.cancel("a") == 0
    assert bench.dispatcher.queued() == {0: 5}
    assert bench.infos() == []
    assert bench.subscribe("c", partition=0) == 0
    assert bench.ask("c", 5) == 0
    assert bench.received() == [("c", [1, 2, 5, 6, 7])]
    assert bench.infos() == ["hello"]


def test_an_info_comes_at_once_when_nothing_is_queued():
    """G162: whatever the demand."""
    bench = partitions(a=0, b=1)
    bench.ask("b", 3)
    assert not bench.side.info("hello")
    assert bench.pending() == {"a": 0, "b": 3}


def test_an_info_comes_at_once_when_there_are_no_consumers():
    """G163: none at all."""
    assert not partitions().side.info("hello")


def test_an_info_waits_for_every_partition_that_is_backed_up():
    """G164: until the last of them has passed it."""
    bench = partitions(3, a=0, b=1, c=2)
    bench.ask("c", 4)
    assert bench.dispatch(1, 2, 11, 12) == []
    assert bench.dispatcher.queued() == {0: 2, 1: 2}
    assert bench.side.info("hello")
    for name, count in (("a", 1), ("a", 1), ("b", 1)):
        bench.ask(name, count)
        assert bench.infos() == []
    bench.ask("b", 1)
    assert bench.infos() == ["hello"]
    assert bench.received() == [("a", [1]), ("a", [2]), ("b", [11]), ("b", [12])]


def check_lost(event, got):
    """A hash that answers something else: the event is counted, its error reported, everything else goes on."""
    bench = partitions(2, lambda event: event if event in (0, 1) else got, a=0)
    assert bench.ask("a", 3) == 3
    assert bench.dispatch(0, event, 0) == []
    [error] = bench.port.errors
    assert isinstance(error, DispatchError)
    assert (error.option, error.event) == ("hash", event)
    assert "expected option 'hash' to give one of the partitions 0, 1, or None" in str(error)
    assert bench.received() == [("a", [0, 0])]
    assert bench.side.discarded == {"no such partition": 1}
    assert bench.pending() == {"a": 1}


@different(
    "G165",
    "the event is reported as a DispatchError and counted; the original ends the producer and all its consumers",
)
def test_an_event_of_an_unknown_partition_is_reported():
    """G165: and costs nothing but itself."""
    check_lost(7, "oops")


@different("G166", "as for an unknown partition: the event is reported and counted, and the producer lives on")
@pytest.mark.parametrize("got", [("event", 0, "more"), [0], object(), {}])
def test_a_hash_that_answers_something_else_is_reported(got):
    """G166: and costs nothing but the event, whatever it answered."""
    if isinstance(got, (list, dict)):  # it cannot even be looked up
        bench = partitions(2, lambda event: got, a=0)
        bench.ask("a", 3)
        assert bench.dispatch(1) == []
        assert [type(error) for error in bench.port.errors] == [DispatchError]
        assert bench.side.discarded == {"hash raised": 1}
    else:
        check_lost(7, got)


async def test_a_hash_that_raises_does_not_end_the_producer():
    errors, log = Log(), Log()
    async with System(on_error=errors.append) as system:
        dispatcher = PartitionDispatcher(2, hash=lambda event: 0 if event else 1 // 0)
        source = await system.start(Child(Source, dispatcher=dispatcher))
        await system.start(Child(Forwarder, log, subscribe_to=[To(source, partition=0)]))
        source.cast([1, 0, 2])
        await settle()
        assert source.alive
        assert batches(log) == [[1, 2]]
        assert [type(error.__cause__) for error in errors] == [ZeroDivisionError]


def test_the_options_are_checked():
    """G167: partitions are required, and names need a hash."""
    with pytest.raises(TypeError, match="partitions"):
        PartitionDispatcher()  # type: ignore[call-arg]
    with refused(
        OptionError, "expected option 'hash' to be a function of an event, as the partitions have names of their own"
    ):
        PartitionDispatcher(["odd", "even"])
    for wrong in (0, -1, [], None, "ab", [1, 1], 2.0):
        with refused(OptionError, "partitions"):
            PartitionDispatcher(wrong)  # type: ignore[arg-type]


def test_a_subscription_needs_a_partition_that_is_free():
    """G168: without one, with one that is taken, and with one that is unknown it is refused. Nobody else is touched."""
    bench = partitions(a=0)
    bench.ask("a", 3)
    with refused(SubscriptionError, "expected option 'partition' to be one of 0, 1; it is missing"):
        bench.subscribe("b")
    with refused(SubscriptionError, "expected option 'partition' to be a free partition, 0 is taken"):
        bench.subscribe("b", partition=0)
    for unknown in (-1, 2, "oops"):
        with refused(SubscriptionError, f"expected option 'partition' to be one of 0, 1, got: {unknown!r}"):
            bench.subscribe("b", partition=unknown)
    assert bench.pending() == {"a": 3}
    assert bench.dispatch(1) == []
    assert bench.received() == [("a", [1])]


async def test_a_refused_subscription_stops_nobody():
    """In the original it kills the producer and everybody attached."""
    log = Log()
    async with System() as system:
        source = await system.start(Child(Source, dispatcher=PartitionDispatcher(2)))
        await system.start(Child(Forwarder, log, subscribe_to=[To(source, partition=0)]))
        second = await system.start(Child(Forwarder))
        for options in ({}, {"partition": 0}, {"partition": 2}):
            with pytest.raises(SubscriptionError):
                await second.subscribe(source, **options)
        await settle()
        assert len(system.stages()) == 3
        source.cast([2])
        await settle()
        assert batches(log) == [[2]]
