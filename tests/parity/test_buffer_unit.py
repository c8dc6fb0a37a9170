"""The buffer by itself, and the bound that the producing side keeps for it."""

import pytest

from headgate import DemandDispatcher
from headgate.protocol.buffer import Buffer
from tests.parity.bench import Bench
from tests.parity.stages import Log


def bounded(size, keep):
    """Return a producing side without consumers."""
    return Bench(DemandDispatcher(), buffer_size=size, buffer_keep=keep)


def left(bench):
    """Return the buffered events, by letting a consumer ask for all of them."""
    bench.subscribe("all")
    bench.ask("all", 10_000)
    return [event for _, batch in bench.received() for event in batch]


def put(buffer, *events):
    buffer.put(list(events), len(events), None)


def take(buffer, limit):
    """Take up to ``limit`` events, until an info comes: return the events, the infos, and how many are still wanted."""
    events, infos = Log(), Log()
    while limit and buffer.ready() and not infos:
        batch, size, _ = buffer.take(limit)
        assert len(batch) == size
        events += batch
        limit -= size
        infos = buffer.released()
    return events, infos, limit


@pytest.mark.parametrize("size", [10, None])
def test_infos_do_not_count(size):
    """G125: the size is the number of events."""
    bench = bounded(size, "first")
    bench.emit("temp1", "temp2")
    assert bench.side.info("perm3")
    assert bench.side.info("perm4")
    assert bench.side.queue.size == 2


def test_keep_first_drops_what_does_not_fit():
    bench = bounded(3, "first")
    bench.emit(*"abc")
    assert bench.side.dropped == 0
    bench.emit(*"def")
    assert bench.side.dropped == 3
    assert bench.side.queue.size == 3
    assert left(bench) == ["a", "b", "c"]


def test_without_a_bound_nothing_is_dropped():
    """G127: a thousand events are a thousand events."""
    bench = bounded(None, "first")
    bench.emit(*range(1000))
    assert (bench.side.dropped, bench.side.queue.size) == (0, 1000)
    assert left(bench) == list(range(1000))


def test_keep_last_drops_the_oldest():
    """G128: with room for three, three more push out the three before them."""
    bench = bounded(3, "last")
    bench.emit(*"abc")
    assert bench.side.dropped == 0
    bench.emit(*"def")
    assert bench.side.dropped == 3
    assert left(bench) == ["d", "e", "f"]


def test_keep_last_lets_infos_through_when_the_events_before_them_are_dropped():
    """G129: they are handed back, and are not lost."""
    bench = bounded(3, "last")
    bench.emit("temp1", "temp2")
    assert bench.side.info("perm3")
    assert bench.side.info("perm4")
    bench.emit("temp5", "temp6", "temp7")
    assert bench.side.dropped == 2
    bench.side.drain()
    assert bench.infos() == ["perm3", "perm4"]
    assert left(bench) == ["temp5", "temp6", "temp7"]


def test_an_info_for_an_empty_buffer_is_not_kept():
    """G130: the answer says so, and the caller delivers it at once."""
    buffer = Buffer()
    assert not buffer.hold("perm1")
    put(buffer, "temp1")
    assert buffer.hold("perm1")
    assert take(buffer, 1) == (["temp1"], ["perm1"], 0)
    assert not buffer.hold("perm2")


def test_an_empty_buffer_says_that_nothing_can_be_taken():
    """G131: also when it had something."""
    buffer = Buffer()
    assert buffer.ready() == 0
    put(buffer, "temp1")
    assert buffer.ready() == 1
    assert take(buffer, 5) == (["temp1"], [], 4)
    assert (buffer.ready(), buffer.size, buffer.released()) == (0, 0, [])


def test_taking_stops_at_an_info():
    """G132: of five wanted two are there before it, and three are still wanted."""
    buffer = Buffer()
    put(buffer, "temp1", "temp2")
    buffer.hold("perm3")
    put(buffer, "temp4")
    assert take(buffer, 5) == (["temp1", "temp2"], ["perm3"], 3)
    assert take(buffer, 3) == (["temp4"], [], 2)


def test_infos_at_one_place_keep_their_order():
    buffer = Buffer()
    put(buffer, "temp1", "temp2")
    for info in ("perm3", "perm4", "perm5"):
        buffer.hold(info)
    assert take(buffer, 1) == (["temp1"], [], 0)
    assert take(buffer, 5) == (["temp2"], ["perm3", "perm4", "perm5"], 4)


def test_events_and_infos_come_out_as_they_went_in():
    """G134: over several places and several takes."""
    buffer = Buffer()
    put(buffer, "temp1", "temp2")
    buffer.hold("perm3")
    buffer.hold("perm4")
    put(buffer, "temp5", "temp6", "temp7")
    buffer.hold("perm8")
    buffer.hold("perm9")
    put(buffer, "temp10")
    buffer.hold("perm11")
    assert buffer.size == 6
    assert take(buffer, 3) == (["temp1", "temp2"], ["perm3", "perm4"], 1)
    assert take(buffer, 4) == (["temp5", "temp6", "temp7"], ["perm8", "perm9"], 1)
    assert take(buffer, 2) == (["temp10"], ["perm11"], 1)
    assert buffer.size == 0
