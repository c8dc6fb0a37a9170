# mypy: disable-error-code="comparison-overlap,var-annotated"
"""The queue of a producing stage: order, what comes back goes in front, infos keep their place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headgate.protocol.buffer import Buffer
from tests.unit.protocol.fakes import Token


def drain(buffer, limit=1000):
    """Take everything, with the infos in their place as ("info", message)."""
    log = []
    while True:
        log += [("info", each) for each in buffer.released()]
        if not buffer.ready():
            return log
        log += list(buffer.take(limit)[0])


def filled(*batches):
    buffer = Buffer()
    for batch in batches:
        buffer.put(batch, len(batch), None)
    return buffer


def test_events_leave_in_the_order_in_which_they_came():
    buffer = filled([1, 2], (3,), range(4, 6))
    assert (buffer.size, buffer.ready()) == (5, 5)
    assert drain(buffer) == [1, 2, 3, 4, 5]
    assert buffer.size == 0


def test_a_take_gives_at_most_what_was_asked_and_keeps_the_rest_in_place():
    buffer = filled([1, 2, 3], [4])
    assert buffer.take(2) == ([1, 2], 2, None)
    assert buffer.size == 2
    assert buffer.take(5) == ([3], 1, None)
    assert buffer.take(5) == ([4], 1, None)


def test_a_batch_that_is_taken_whole_is_not_touched():
    batch = np.arange(5)
    assert filled(batch).take(5)[0] is batch


def test_a_batch_that_is_cut_shares_its_memory():
    batch = np.arange(5)
    buffer = filled(batch)
    assert np.shares_memory(buffer.take(2)[0], batch)
    assert np.shares_memory(buffer.take(9)[0], batch)


def test_an_empty_batch_leaves_no_trace():
    buffer = filled([], [1])
    assert buffer.take(9)[0] == [1]


def test_what_comes_back_goes_in_front_in_its_order():
    buffer = filled([5, 6])
    buffer.put_front([([1, 2], 2, None), ([3, 4], 2, None)])
    assert buffer.size == 6
    assert drain(buffer) == [1, 2, 3, 4, 5, 6]


def test_shedding_takes_the_oldest():
    buffer = filled([1, 2, 3], [4, 5])
    assert [piece[0] for piece in buffer.shed(4)] == [[1, 2, 3], [4]]
    assert drain(buffer) == [5]


def test_an_info_with_nothing_to_wait_for_is_not_kept():
    assert not Buffer().hold("info")
    assert Buffer().released() == []


def test_an_info_leaves_right_after_the_event_that_was_last_when_it_came():
    buffer = filled([1, 2])
    assert buffer.hold("after 2")
    buffer.put([3], 1, None)
    assert buffer.released() == []
    buffer.take(1)
    assert buffer.released() == []
    buffer.take(1)
    assert buffer.released() == ["after 2"]
    assert buffer.released() == []
    assert drain(buffer) == [3]


def test_infos_of_one_place_leave_in_order_and_do_not_count():
    buffer = filled([1])
    buffer.hold("a")
    buffer.hold("b")
    assert buffer.size == buffer.ready() == 1
    assert drain(buffer) == [1, ("info", "a"), ("info", "b")]


def test_infos_stay_between_batches_that_are_drained_together():
    buffer = filled([1])
    buffer.hold("a")
    buffer.put([2], 1, None)
    buffer.hold("b")
    buffer.put([3], 1, None)
    assert drain(buffer) == [1, ("info", "a"), 2, ("info", "b"), 3]


def test_an_info_is_not_dropped_with_the_events_before_it():
    buffer = filled([1, 2])
    buffer.hold("after 2")
    buffer.put([3], 1, None)
    buffer.shed(2)
    assert buffer.released() == ["after 2"]
    assert drain(buffer) == [3]


def test_what_comes_back_goes_ahead_of_a_waiting_info():
    buffer = filled([2])
    buffer.hold("after 2")
    buffer.put_front([([1], 1, None)])
    assert drain(buffer) == [1, 2, ("info", "after 2")]


def test_a_token_goes_with_both_halves_of_a_cut():
    class Cut(Token):
        def part(self, start, stop):
            return ("part", start, stop)

    buffer = Buffer()
    buffer.put([1, 2, 3], 3, Cut())
    assert buffer.take(2) == ([1, 2], 2, ("part", 0, 2))
    assert buffer.take(2) == ([3], 1, ("part", 2, 3))


@given(st.lists(st.one_of(st.integers(1, 5), st.just("info"), st.just("take"), st.just("shed"), st.just("back"))))
def test_order_and_count_hold_whatever_happens(steps):
    """Events leave in ascending order, none is lost, and each info comes right after the event before it."""
    buffer, number, out, infos = Buffer(), 0, [], []
    last_taken = None

    def collect():
        out.extend(("info", each) for each in buffer.released())

    for step in steps:
        if step == "info":
            if not buffer.hold(number):
                out.append(("info", number))
            infos.append(number)
        elif step == "take" and buffer.ready():
            last_taken = buffer.take(2)
            out.extend(last_taken[0])
        elif step == "shed" and buffer.ready():
            out.extend(event for piece in buffer.shed(1) for event in piece[0])
            last_taken = None
        elif step == "back" and last_taken and out[-last_taken[1] :] == last_taken[0] and not buffer._free:
            del out[-last_taken[1] :]
            buffer.put_front([last_taken])
            last_taken = None
        elif isinstance(step, int):
            buffer.put(list(range(number + 1, number + step + 1)), step, None)
            number += step
        collect()
    out += drain(buffer)
    assert [each for each in out if isinstance(each, int)] == list(range(1, number + 1))
    assert [each[1] for each in out if isinstance(each, tuple)] == infos
    for index, each in enumerate(out):
        if isinstance(each, tuple):
            before = [event for event in out[:index] if isinstance(event, int)]
            assert before == list(range(1, each[1] + 1))
