"""The batches of one batcher: why they close, what is in them, who is next."""

import math
from collections import Counter
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headgate.errors import OptionError, ProtocolError
from headgate.protocol.batches import Batches
from headgate.testing.simulation.models import SlowBatches
from headgate.types import Message


def plain(size, **options):
    return Batches(size, key_of=None, flush_of=None, **options)


def message(number, key=None, mode="bulk"):
    return Message(number).put_batch_key(key).put_batch_mode(mode)


def taken(batches, count=1000):
    return [(batch.trigger, [getattr(item, "data", item) for item in batch.items]) for batch in batches.take(count)]


def ends(batches):
    batches.flush()
    return taken(batches)


# -- why a batch closes -----------------------------------------------------------------------------------------------


def test_a_batch_closes_when_it_has_its_size():
    batches = plain(3)
    batches.add([1, 2], 0)
    assert (batches.open, batches.open_items, batches.ready) == (1, 2, 0)
    batches.add([3], 0)
    assert (batches.open, batches.open_items, batches.ready) == (0, 0, 1)
    batches.add(range(4, 12), 0)
    assert ends(batches) == [("size", [1, 2, 3]), ("size", [4, 5, 6]), ("size", [7, 8, 9]), ("end", [10, 11])]


def test_the_list_that_came_in_stays_the_callers():
    batches, items = plain(3), [1, 2, 3]
    batches.add(items, 0)
    batches.add(items, 0)
    [first, second] = batches.take(2)
    first.items.clear()
    assert (items, second.items) == ([1, 2, 3], [1, 2, 3])


def test_a_batch_knows_its_size_whatever_becomes_of_its_list():
    batches = plain(2)
    batches.add([1, 2], 7.5)
    [batch] = batches.take(1)
    batch.items.clear()
    assert (batch.size, batch.key, batch.opened_at, batch.trigger) == (2, None, 7.5, "size")
    assert repr(batch) == "<Batch of 2, key None, size>"


def test_nothing_opens_no_batch():
    batches = plain(3)
    batches.add([], 5)
    assert (batches.open, batches.due(), batches.flush()) == (0, None, 0)


def test_messages_of_one_key_share_a_batch():
    batches = Batches(10)
    batches.add([message(1, "a"), message(2, "b"), message(3, "a")], 0)
    batches.add([message(4, "b"), message(5)], 0)
    batches.flush()
    assert [(batch.key, [item.data for item in batch.items]) for batch in batches.take(9)] == [
        ("a", [1, 3]),
        ("b", [2, 4]),
        (None, [5]),
    ]


def test_the_time_runs_from_the_first_item():
    batches = plain(10, timeout=2.0)
    batches.add([1], 5.0)
    batches.add([2], 6.5)
    assert batches.due() == 7.0
    assert batches.expire(6.9) == 0
    assert batches.expire(7.0) == 1
    assert (batches.due(), taken(batches)) == (None, [("timeout", [1, 2])])


def test_batches_are_due_in_the_order_in_which_they_were_opened():
    batches = Batches(10, timeout=2.0)
    for number, key in enumerate("abc"):
        batches.add([message(number, key)], float(number))
    batches.add([message(9, "a")], 2.5)
    assert batches.expire(3.0) == 2
    assert batches.due() == 4.0
    assert [batch.key for batch in batches.take(9)] == ["a", "b"]


def test_what_was_closed_by_size_never_times_out():
    batches = plain(2, timeout=1.0)
    batches.add([1, 2], 0.0)
    assert (batches.due(), batches.expire(100.0)) == (None, 0)
    batches.add([3], 100.0)
    assert batches.due() == 101.0
    assert batches.expire(100.5) == 0


def test_time_does_not_go_back():
    batches = Batches(10, timeout=1.0)
    batches.add([message(1, "a")], 5.0)
    batches.add([message(2, "b")], 3.0)
    assert batches.due() == 6.0
    assert batches.expire(6.0) == 2


def test_a_flush_closes_the_batch_of_its_key_at_the_end_of_what_came_with_it():
    batches = Batches(10)
    batches.add([message(1, "b"), message(2, "a")], 0)
    batches.add([message(3, "a", "flush"), message(4, "b"), message(5, "a")], 0)
    assert taken(batches) == [("flush", [2, 3, 5])]
    assert ends(batches) == [("end", [1, 4])]


def test_a_flush_whose_batch_is_full_anyway_leaves_nothing_open():
    batches = Batches(2)
    batches.add([message(1, mode="flush"), message(2)], 0)
    assert (taken(batches), batches.open) == ([("size", [1, 2])], 0)


def test_a_mode_is_a_word_not_an_object():
    batches = Batches(5)
    batches.add([message(1, mode=str(b"bulk", "ascii"))], 0)
    assert batches.open == 1
    batches.add([message(2, mode=str(b"flush", "ascii"))], 0)
    assert batches.open == 0


def test_functions_of_ones_own_say_key_and_flush():
    batches = Batches(5, key_of=lambda number: number % 2, flush_of=lambda number: number > 9)
    batches.add([1, 2, 3, 12], 0)
    assert taken(batches) == [("flush", [2, 12])]
    assert ends(batches) == [("end", [1, 3])]


def test_one_more_than_may_be_open_closes_the_oldest():
    batches = Batches(10, max_open=2)
    batches.add([message(1, "a")], 0)
    batches.add([message(2, "b")], 1)
    batches.add([message(3, "a")], 2)  # nothing is opened
    assert batches.ready == 0
    batches.add([message(4, "c")], 3)
    assert taken(batches) == [("limit", [1, 3])]


# -- bytes ------------------------------------------------------------------------------------------------------------


def test_a_batch_has_no_more_bytes_than_it_may():
    batches = plain(10, max_bytes=10, sizer=int)
    batches.add([4, 4, 3], 0)
    assert taken(batches) == [("bytes", [4, 4])]
    batches.add([7], 0)
    assert taken(batches) == [("bytes", [3, 7])], "just full"
    assert batches.open == 0


def test_only_a_single_item_may_have_more():
    batches = plain(10, max_bytes=10, sizer=int)
    batches.add([1, 50, 1], 0)
    assert ends(batches) == [("bytes", [1]), ("bytes", [50]), ("end", [1])]


def test_size_and_bytes_hold_together():
    batches = plain(3, max_bytes=10, sizer=int)
    batches.add([1, 1, 1, 9, 2, 0, 0], 0)
    assert taken(batches) == [("size", [1, 1, 1]), ("bytes", [9]), ("size", [2, 0, 0])]


# -- a splitter of one's own ------------------------------------------------------------------------------------------


def alternate(item, state):
    left, following = state
    return (False, (left - 1, following)) if left > 1 else (True, (following, left))


def growing(item, state):
    left, size = state
    return (False, (left - 1, size)) if left > 1 else (True, (size + 1, size + 1))


def test_the_state_of_a_splitter_is_kept_between_batches():
    """Q3: Broadway discards it."""
    batches = plain(((1, 1), growing))
    batches.add(range(10), 0)
    assert [len(items) for _, items in taken(batches)] == [1, 2, 3, 4]


def test_each_key_has_a_state_of_its_own():
    batches = Batches(((1, 1), growing))
    batches.add([message(number, number % 2) for number in range(6)], 0)
    assert [[item.data for item in batch.items] for batch in batches.take(9)] == [[0], [2, 4], [1], [3, 5]]


def test_a_batch_that_closes_for_another_reason_leaves_the_state_as_it_began_with_it():
    batches = plain(((1, 1), growing), timeout=1.0)
    batches.add([1, 2], 0.0)
    batches.expire(1.0)
    batches.add([3, 4], 1.0)
    assert taken(batches) == [("size", [1]), ("timeout", [2]), ("size", [3, 4])]


@pytest.mark.slow
def test_states_that_are_as_in_the_beginning_are_forgotten_and_of_the_others_there_are_not_too_many():
    batches = Batches((2, lambda item, left: (False, left - 1) if left > 1 else (True, 2)), max_open=10)
    for number in range(20_000):
        batches.add([message(number, number), message(number, number)], 0)
        batches.done(batches.take(1)[0])
    assert not batches._states
    batches = Batches((0, lambda item, count: (True, count + 1)))
    for number in range(10_100):
        batches.add([message(number, number)], 0)
        batches.done(batches.take(1)[0])
    assert len(batches._states) == 10_000


# -- what users' functions do wrong -----------------------------------------------------------------------------------


def boom(item):
    if item == 13:
        raise ValueError(item)
    return 1


@pytest.mark.parametrize(
    "options",
    [
        {"key_of": boom, "flush_of": None},
        {"key_of": None, "flush_of": lambda item: boom(item) == 2},
        {"key_of": lambda item: [] if item == 13 else 1, "flush_of": None},
        {"key_of": None, "flush_of": None, "max_bytes": 100, "sizer": boom},
        {"key_of": None, "flush_of": None, "max_bytes": 100, "sizer": lambda item: -1 if item == 13 else 1},
        {"key_of": None, "flush_of": None, "max_bytes": 100, "sizer": lambda item: math.nan if item == 13 else 1},
        {"key_of": None, "flush_of": None, "max_bytes": 100, "sizer": lambda item: "x" if item == 13 else 1},
    ],
)
def test_an_item_for_which_a_function_fails_is_reported_and_nothing_else_is_affected(options):
    batches = Batches(3, **options)
    batches.add([1, 13, 2, 3], 0)
    assert [item for item, _ in batches.errors] == [13]
    assert isinstance(batches.errors[0][1], (ValueError, TypeError))
    assert taken(batches) == [("size", [1, 2, 3])]


@pytest.mark.parametrize("answer", [None, True, (1, 0), (True,), ("cont", 0), [True, 0]])
def test_a_splitter_whose_answer_is_none_is_reported(answer):
    batches = plain((0, lambda item, state: answer if item == 13 else (False, state)))
    batches.add([1, 13, 2], 0)
    assert [item for item, _ in batches.errors] == [13]
    assert ends(batches) == [("end", [1, 2])]


def test_a_batch_is_not_opened_for_an_item_that_fails():
    batches = plain(3, max_bytes=5, sizer=boom, timeout=1)
    batches.add([13], 0)
    assert (batches.open, batches.due()) == (0, None)


def test_items_that_are_no_messages_are_reported():
    batches = Batches(3)
    batches.add([1, message(2)], 0)
    assert [item for item, _ in batches.errors] == [1]
    assert ends(batches) == [("end", [2])]


# -- who is next ------------------------------------------------------------------------------------------------------


def test_batches_are_handed_out_in_the_order_in_which_they_closed():
    batches = plain(1)
    batches.add([1, 2, 3], 0)
    first, second = batches.take(2)
    assert (batches.waiting, batches.running, batches.ready) == (1, 2, 1)
    assert batches.take(5)[0].items == [3]
    batches.give_back(second)
    batches.give_back(first)
    assert taken(batches) == [("size", [1]), ("size", [2])]


def test_serial_batches_of_a_key_are_handed_out_one_at_a_time():
    batches = Batches(1, serial=True)
    batches.add([message(1, "a"), message(2, "a"), message(3, "b")], 0)
    batches.add([message(4, "a")], 0)
    first, other = batches.take(9)
    assert [batch.key for batch in (first, other)] == ["a", "b"]
    assert (batches.waiting, batches.ready) == (2, 0)
    batches.done(other)
    assert batches.ready == 0
    batches.give_back(first)
    assert batches.take(9) == [first]
    batches.done(first)
    assert taken(batches) == [("size", [2])]
    assert batches.waiting == 1


def test_keys_without_batches_are_forgotten():
    batches = Batches(1, serial=True, max_open=3)
    for number in range(1000):
        batches.add([message(number, number)], 0)
        batches.done(batches.take(1)[0])
    assert not batches._lines
    assert not batches._open


def test_full_says_when_nothing_more_should_be_put_in_and_nothing_is_lost():
    batches = plain(1, max_waiting=2)
    batches.add([1], 0)
    assert not batches.full
    batches.add([2, 3], 0)
    assert batches.full
    batches.take(1)
    assert batches.full
    batches.take(1)
    assert not batches.full


@pytest.mark.parametrize("call", ["done", "give_back"])
def test_a_batch_that_is_not_out_cannot_come_back(call):
    batches = plain(1)
    batches.add([1], 0)
    [batch] = batches.take(1)
    getattr(batches, call)(batch)
    with pytest.raises(ProtocolError, match="handed out"):
        batches.done(batch)
    assert batches.running == 0


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("size", {"size": 0}),
        ("size", {"size": True}),
        ("size", {"size": "100"}),
        ("size", {"size": (1, 2)}),
        ("size", {"size": None}),
        ("max_bytes", {"max_bytes": 0, "sizer": len}),
        ("max_bytes", {"max_bytes": math.nan, "sizer": len}),
        ("sizer", {"max_bytes": 10}),
        ("sizer", {"sizer": 3}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": "1"}),
        ("max_open", {"max_open": 0}),
        ("max_waiting", {"max_waiting": None}),
        ("key_of", {"key_of": "key"}),
        ("flush_of", {"flush_of": True}),
    ],
)
def test_wrong_options_are_refused(option, options):
    with pytest.raises(OptionError) as caught:
        Batches(**{"size": 1, **options}, where="Orders.batchers['x']")
    assert (caught.value.where, caught.value.option) == ("Orders.batchers['x']", option)


# -- beside the model -------------------------------------------------------------------------------------------------


def weigh(item):
    if item.data[1] < 0:
        raise ValueError(item)
    return item.data[1]


items = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-1, 5), st.sampled_from(["bulk"] * 9 + ["flush"])), min_size=1, max_size=8
)


class Beside(RuleBasedStateMachine):
    """Whatever is done, the machine shows what the model shows, and every item comes out once."""

    options: ClassVar[dict[str, Any]] = {}
    size: Any = 3

    def __init__(self):
        super().__init__()
        split = isinstance(self.size, tuple)
        options: dict[str, Any] = {"max_bytes": None, "timeout": 2.0, "max_open": 3, "serial": False, **self.options}
        self.machine = Batches(self.size, sizer=weigh, max_waiting=2, **options)
        self.model = SlowBatches(
            None if split else self.size, weigh=weigh, splitter=self.size if split else None, **options
        )
        self.now, self.number = 0.0, 0
        self.running: list[Any] = []
        self.handled: Counter[int] = Counter()

    @rule(drawn=items)
    def add(self, drawn):
        made = []
        for key, weight, mode in drawn:
            self.number += 1
            made.append(message((self.number, weight), key, mode))
        self.machine.add(made, self.now)
        self.model.add(made, self.now)

    @rule(seconds=st.sampled_from([0, 0.5, 1, 2]))
    def expire(self, seconds):
        self.now += seconds
        self.machine.expire(self.now)
        self.model.expire(self.now)

    @rule(count=st.integers(1, 3))
    def take(self, count):
        got, expected = self.machine.take(count), self.model.take(count)
        assert [(batch.key, batch.opened_at, batch.items, batch.trigger) for batch in got] == [
            batch.shown() for batch in expected
        ]
        self.running += zip(got, expected, strict=True)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), back=st.booleans())
    def comes_back(self, data, back):
        batch, model = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        (self.machine.give_back if back else self.machine.done)(batch)
        (self.model.give_back if back else self.model.done)(model)
        if not back:
            self.handled.update(item.data[0] for item in batch.items)

    @invariant()
    def shows_the_same(self):
        machine, model = self.machine, self.model
        assert machine.due() == model.due()
        assert (machine.open, machine.open_items) == (len(model.open), sum(len(each.items) for each in model.open))
        assert (machine.waiting, machine.running) == (model.count("waiting"), model.count("running"))
        assert machine.ready == len(model.ready)
        assert [item for item, _ in machine.errors] == model.errors

    def teardown(self):
        self.machine.flush()
        for batch, _ in self.running:
            self.machine.give_back(batch)
        while got := self.machine.take(100):
            for batch in got:
                self.handled.update(item.data[0] for item in batch.items)
                self.machine.done(batch)
        failed = {item.data[0] for item, _ in self.machine.errors}
        assert self.handled == {number: 1 for number in range(1, self.number + 1) if number not in failed}
        assert not self.machine._lines


def beside(size, **options):
    case: Any = type(Beside.__name__, (Beside,), {"size": size, "options": options}).TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
    return pytest.mark.slow(case)


TestBeside = beside(3)
TestBesideInBytes = beside(3, max_bytes=8, serial=True)
TestBesideSplit = beside(((2, 3), alternate), max_bytes=9, max_open=2)
TestBesideOneOpen = beside(2, max_open=1, timeout=None, serial=True)


@given(
    st.integers(1, 7),
    st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=12),
    st.sampled_from([None, 5, 20]),
)
def test_no_batch_is_larger_than_it_may_be_and_the_order_is_kept(size, lists, max_bytes):
    batches = plain(size, max_bytes=max_bytes, sizer=int)
    for each in lists:
        batches.add(each, 0)
    batches.flush()
    made = batches.take(1000)
    assert [item for batch in made for item in batch.items] == [item for each in lists for item in each]
    for batch in made:
        assert 1 <= batch.size <= size
        assert max_bytes is None or sum(batch.items) <= max_bytes or batch.size == 1
        assert batch.trigger != "size" or batch.size == size
        assert batch.trigger != "end" or batch is made[-1]
