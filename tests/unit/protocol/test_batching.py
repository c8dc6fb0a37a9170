"""A batch is any sequence, and is cut, joined and picked from without touching its elements."""

import array
from collections import deque

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.protocol.batching import cut, is_batch, join, pick
from tests.ids import shown


class Sliceable:
    """The least that a batch needs: a length and slices."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return Sliceable(self.items[index]) if isinstance(index, slice) else self.items[index]

    def __iter__(self):
        return iter(self.items)


class Opaque:
    """An event that must not be looked at, copied or compared."""

    def __eq__(self, other):
        raise AssertionError("compared")

    def __hash__(self):
        raise AssertionError("hashed")

    def __copy__(self):
        raise AssertionError("copied")

    __deepcopy__ = __copy__


def table(*numbers):
    return pa.record_batch({"n": list(numbers), "text": [str(each) for each in numbers]})


KINDS = {
    "list": lambda n: list(range(n)),
    "tuple": lambda n: tuple(range(n)),
    "range": range,
    "numpy": np.arange,
    "numpy 2d": lambda n: np.arange(n * 3).reshape(n, 3),
    "arrow": lambda n: table(*range(n)),
    "arrow array": lambda n: pa.array(range(n)),
    "array": lambda n: array.array("q", range(n)),
    "own": lambda n: Sliceable(list(range(n))),
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


@kinds
def test_every_sequence_of_events_is_a_batch(make):
    assert is_batch(make(5))
    assert is_batch(make(0))


@pytest.mark.parametrize(
    "value",
    [
        "text",
        "",
        b"bytes",
        bytearray(b"x"),
        memoryview(b"x"),
        {"a": 1},
        {},
        {1, 2},
        frozenset({1}),
        (each for each in [1, 2]),
        iter([1]),
        map(str, [1]),
        zip([1], [2], strict=True),
        5,
        1.5,
        True,
        None,
        object(),
        print,
        list,
        np.int64(5),
        np.array(5),
        np.float64("nan"),
        Ellipsis,
        Exception("x"),
    ],
    ids=shown,
)
def test_what_is_nearly_always_a_mistake_is_no_batch(value):
    assert not is_batch(value)


def test_an_iterator_is_not_consumed_by_looking():
    iterator = iter([1, 2])
    assert not is_batch(iterator)
    assert list(iterator) == [1, 2]


@kinds
def test_a_cut_keeps_the_kind_and_the_order(make):
    batch = make(10)
    part = cut(batch, 3, 7)
    assert type(part) is type(batch)
    assert len(part) == 4
    assert len(cut(batch, 0, 10)) == 10
    assert len(cut(batch, 4, 4)) == 0
    assert len(cut(batch, 8, 99)) == 2


def test_a_cut_of_a_plain_batch_holds_the_events_between():
    assert cut([0, 1, 2, 3], 1, 3) == [1, 2]
    assert cut((0, 1, 2, 3), 1, 3) == (1, 2)
    assert cut(range(100), 10, 20) == range(10, 20)


def test_a_cut_of_a_numpy_array_shares_its_memory():
    batch = np.arange(1000)
    part = cut(batch, 100, 200)
    assert np.shares_memory(batch, part)
    assert part.tolist() == list(range(100, 200))


def test_a_cut_of_an_arrow_batch_takes_rows_and_shares_their_buffers():
    batch = table(*range(10))
    part = cut(batch, 3, 7)
    assert part.num_rows == 4
    assert part.column("n").to_pylist() == [3, 4, 5, 6]
    assert part.column("n").buffers()[1].address == batch.column("n").buffers()[1].address


def test_events_are_neither_copied_nor_compared():
    events = [Opaque() for _ in range(4)]
    assert all(a is b for a, b in zip(cut(events, 1, 3), events[1:3], strict=True))
    joined = join([events[:2], events[2:]])
    assert len(joined) == 1
    assert all(a is b for a, b in zip(joined[0], events, strict=True))
    assert pick(events, [3])[0] is events[3]


def test_neighbouring_lists_are_joined():
    assert join([[1], [2, 3], [4]]) == [[1, 2, 3, 4]]


def test_a_join_changes_no_list_that_somebody_else_holds():
    first, second = [1], [2]
    join([first, second, [3]])
    assert (first, second) == ([1], [2])


def test_other_kinds_stay_what_they_are_in_their_place():
    assert join([[1], [2], (3,), [4], [5], range(6, 8)]) == [[1, 2], (3,), [4, 5], range(6, 8)]


def test_a_single_batch_is_not_touched():
    batch = [1, 2]
    assert join([batch])[0] is batch


@given(st.lists(st.one_of(st.lists(st.integers()), st.lists(st.integers()).map(tuple)), min_size=1))
def test_a_join_keeps_every_event_in_order(batches):
    flat = [event for batch in batches for event in batch]
    assert [event for batch in join(list(batches)) for event in batch] == flat


@kinds
def test_picked_events_come_in_the_order_of_their_indices(make):
    batch = make(6)
    picked = pick(batch, [5, 0, 3])
    assert len(picked) == 3
    if hasattr(batch, "num_rows"):
        assert picked.column("n").to_pylist() == [5, 0, 3]
        assert picked.column("text").to_pylist() == ["5", "0", "3"]
    elif isinstance(batch, np.ndarray) and batch.ndim == 2:
        assert picked.tolist() == [batch[5].tolist(), batch[0].tolist(), batch[3].tolist()]
    elif isinstance(batch, pa.Array):
        assert picked.to_pylist() == [5, 0, 3]
    else:
        assert list(picked) == [5, 0, 3]


def test_a_deque_has_no_slices_and_is_said_so_before_it_is_cut():
    """It has a length and an index; taking it for a batch would fail later, in the middle of a dispatch."""
    assert not is_batch(deque([1, 2]))
