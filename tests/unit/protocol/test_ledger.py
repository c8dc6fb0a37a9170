"""What is in flight stays the producer's: totals, partial acknowledgements, returns."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headgate.protocol.ledger import Origin
from tests.unit.protocol.fakes import Token, subscriber


def sent(*batches, token=None):
    record = subscriber()
    for batch in batches:
        record.ledger.append((batch, len(batch), token))
        record.sent += len(batch)
    record.asked = record.sent
    return record


def flat(pieces):
    assert all(size == len(batch) for batch, size, _ in pieces)
    return [event for batch, _, _ in pieces for event in batch]


def test_what_is_pending_and_in_flight_are_differences_of_totals():
    record = sent([1, 2, 3])
    record.asked = 10
    assert (record.pending, record.in_flight) == (7, 3)
    record.ack(2)
    assert (record.pending, record.in_flight) == (7, 1)


def test_a_whole_batch_is_forgotten_once_acknowledged():
    record = sent([1, 2], [3])
    assert record.ack(2) == 2
    assert flat(record.unacked()) == [3]


def test_an_acknowledgement_may_end_in_the_middle_of_a_batch():
    record = sent([1, 2, 3], [4, 5])
    assert record.ack(1) == 1
    assert record.ack(4) == 3
    assert flat(record.unacked()) == [5]
    assert not record.ledger


def test_the_same_total_twice_counts_once():
    record = sent([1, 2, 3])
    assert [record.ack(2), record.ack(2), record.ack(1), record.ack(3)] == [2, 0, 0, 1]


def test_a_total_beyond_what_was_sent_acknowledges_what_was_sent():
    record = sent([1, 2])
    assert record.ack(100) == 2
    assert record.in_flight == 0
    assert record.ack(100) == 0


def test_a_negative_total_changes_nothing():
    record = sent([1, 2])
    assert record.ack(-5) == 0
    assert record.in_flight == 2


def test_what_was_not_acknowledged_comes_back_in_order():
    record = sent([1, 2], (3, 4), range(5, 7))
    assert flat(record.unacked()) == [1, 2, 3, 4, 5, 6]
    assert record.unacked() == []


def test_what_is_in_flight_can_be_looked_at():
    record = sent([1, 2, 3], [4, 5], [6])
    record.ack(1)
    record.settle([(3, 4)])
    assert record.flying() == [[2, 3], [5], [6]]
    assert record.in_flight == 4
    record.ack(4)
    assert record.flying() == [[5], [6]]
    assert flat(record.unacked()) == [5, 6]


def test_what_was_handled_and_not_acknowledged_stays():
    """A middle stage that leaves still answers for what it has handled."""
    record = sent([1, 2], [3, 4], [5])
    record.ack(1)
    assert flat(record.unacked(handled=3)) == [4, 5]
    assert record.ack(3) == 2
    assert not record.ledger


def test_a_handled_total_at_the_edge_of_a_batch():
    record = sent([1, 2], [3])
    assert flat(record.unacked(handled=2)) == [3]
    assert flat(record.unacked()) == [1, 2]


def test_the_rest_of_an_array_shares_its_memory():
    batch = np.arange(10)
    record = sent(batch)
    record.ack(4)
    [(rest, size, _)] = record.unacked()
    assert size == 6
    assert np.shares_memory(rest, batch)


def test_a_token_is_told_each_event_once():
    token = Token()
    record = sent([1, 2, 3], [4], token=token)
    for total in (1, 1, 2, 4):
        record.ack(total)
    assert token.settled == 4


class Owner:
    def __init__(self):
        self.settled = []

    def origin_settled(self, window):
        self.settled.append(window)


def test_an_input_is_settled_when_the_handler_and_the_last_output_are_done():
    owner = Owner()
    origin = Origin(2, owner, "window")
    origin.left += 3  # three outputs
    origin.left -= 1  # the handler returned
    origin.settle(2)
    assert not owner.settled
    origin.settle(1)
    assert owner.settled == ["window"]


def test_a_part_of_an_origin_is_the_origin():
    origin = Origin(2, Owner(), "window")
    assert origin.part(1, 2) is origin


@given(st.lists(st.integers(1, 6), max_size=8), st.lists(st.integers(-3, 60), max_size=12), st.integers(0, 60))
def test_acknowledged_and_returned_events_are_all_events(sizes, totals, handled):
    """Whatever totals come: each event is either settled or comes back, in order, never both."""
    number, batches = 0, []
    for size in sizes:
        batches.append(list(range(number, number + size)))
        number += size
    token = Token()
    record = sent(*batches, token=token)
    for total in totals:
        record.ack(total)
    acked = record.acked
    assert acked == token.settled == max(0, min(number, max([0, *totals])))
    assert record.in_flight == number - acked
    back = flat(record.unacked(handled))
    start = max(acked, min(handled, number))
    assert back == list(range(start, number))
    record.sent = start
    record.ack(start)
    assert token.settled == start
