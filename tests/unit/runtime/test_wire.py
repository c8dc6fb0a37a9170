"""What crosses to another process comes out as what it was."""

import functools
import pickle
import subprocess
import sys
import threading
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import CrossingError, HandlerError, StageCrashed
from headgate.runtime.wire import PLAIN, RICH, Codes, check, is_own


def codes():
    return Codes(lambda _: None, lambda name: name)


class Pair:
    """Two ends of a link, without the link."""

    def __init__(self):
        self.here = codes()
        self.there = codes()

    def cross(self, value, *, events=False, crude=False):
        if events:
            kind, data, buffers = self.here.encode_events(value)
        else:
            kind, data, buffers = self.here.encode(value, crude=crude)
        return self.there.decode(kind, data, [bytearray(each.raw()) for each in buffers])

    def size(self, value, *, events=True):
        _, data, buffers = self.here.encode_events(value) if events else self.here.encode(value)
        return len(data) + sum(each.raw().nbytes for each in buffers)


@pytest.fixture
def pair():
    return Pair()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(st.lists(plain), st.booleans())
def test_plain_values(values, events):
    assert Pair().cross(values, events=events) == values


def test_events_take_the_short_way_when_they_can(pair):
    assert pair.here.encode_events([1, "a", {"b": 2.0}])[0] == PLAIN
    assert pair.here.encode_events([lambda: 1])[0] == RICH


def test_lambdas_closures_and_local_classes_cross_by_value(pair):
    step = 3

    class Local:
        def __init__(self, x):
            self.x = x

        def more(self):
            return self.x + step

    function, thing = pair.cross([lambda x: x + step, Local(4)], events=True)
    assert function(1) == 4
    assert thing.more() == 7
    again = pair.cross([Local(5)], events=True)[0]
    assert type(again) is type(thing), "the class has crossed once"


def test_a_class_crosses_once_and_by_its_number_from_then_on(pair):
    class Local:
        pass

    first, second = pair.size([Local()]), pair.size([Local()])
    assert second < first / 3


def test_a_class_that_comes_back_is_the_one_that_went(pair):
    class Local:
        pass

    thing = Pair().cross([pair.cross([Local()])[0]])[0]
    assert type(thing) is Local


def test_what_could_not_cross_after_all_is_not_taken_as_known_there(pair):
    class Local:
        pass

    with pytest.raises(TypeError):
        pair.here.encode([Local(), threading.Lock()])
    assert type(pair.cross(Local())).__name__ == "Local"


def test_functions_that_call_each_other(pair):
    source = """
def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
"""
    space = {"__name__": "__main__"}
    exec(source, space)
    even = pair.cross(space["even"])
    assert [even(n) for n in range(4)] == [True, False, True, False]


def test_functions_with_a_cache(pair):
    source = """
import functools
@functools.cache
def fibonacci(n): return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
@functools.lru_cache(maxsize=3, typed=True)
def half(n): return n / 2
"""
    space = {"__name__": "__main__"}
    exec(source, space)
    fibonacci, half = pair.cross([space["fibonacci"], space["half"]])
    assert fibonacci(200) == 280571172992510140037611932413038677189525
    assert half.cache_parameters() == {"maxsize": 3, "typed": True}
    assert half.cache_info().currsize == 0, "what it remembers stays where it is"

    @functools.cache
    def inside(n):
        return half(n)

    assert pair.cross(inside)(3) == 1.5
    assert pair.cross(importable) is importable
    moment = functools.cache(datetime.fromisoformat)  # of a method that is not written in Python
    for events in (True, False):
        assert pair.cross([moment], events=events)[0]("2026-11-29") == datetime(2026, 11, 29)  # noqa: DTZ001


@functools.cache
def importable():
    """Known by its name over there."""


@pytest.mark.parametrize(
    ("value", "own"),
    [(len, False), (pickle.Pickler, False), (Pair, False), (lambda: 1, True), (type("Made", (), {}), True)],
)
def test_is_own(value, own):
    assert is_own(value) is own


class Awkward(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")
        self.both = (one, two)


def fail():
    try:
        raise KeyError("cause")
    except KeyError as error:
        wrong = Awkward(1, 2)
        wrong.add_note("a note")
        raise wrong from error


def test_exceptions_keep_traceback_cause_notes_and_attributes(pair):
    with pytest.raises(Awkward) as caught:
        fail()
    error = pair.cross(StageCrashed("stage", caught.value)).__cause__
    assert type(error) is Awkward
    assert error.both == (1, 2)
    assert str(error) == "1 and 2"
    assert error.__notes__ == ["a note"]
    assert isinstance(error.__cause__, KeyError)
    names = []
    step = error.__traceback__
    while step is not None:
        names.append(step.tb_frame.f_code.co_name)
        step = step.tb_next
    assert names[-1] == "fail"


def test_what_an_exception_holds_and_cannot_cross_comes_as_its_text(pair):
    error = HandlerError("stage", "handle_events", "a list", threading.Lock())
    with pytest.raises(TypeError):
        pair.cross(error)
    rough = pair.cross(error, crude=True)
    assert (type(rough), rough.stage, rough.expected) == (HandlerError, "stage", "a list")
    assert "lock" in rough.got
    crash = pair.cross(StageCrashed("stage", error), crude=True)
    assert type(crash) is StageCrashed
    assert type(crash.__cause__) is HandlerError


def test_arrays_go_beside_the_pickle_and_stay_writable(pair):
    array = np.arange(100_000)
    kind, data, buffers = pair.here.encode_events([array])
    assert (kind, len(buffers)) == (PLAIN, 1)
    assert len(data) < 1000
    (there,) = pair.there.decode(kind, data, [bytearray(each.raw()) for each in buffers])
    assert (there == array).all()
    there[0] = 5


BATCH = pa.RecordBatch.from_pydict({"a": np.arange(100_000), "s": [str(n) for n in range(100_000)]})


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize(
    "value",
    [
        BATCH,
        BATCH.slice(100, 50),
        pa.Table.from_batches([BATCH]).slice(7, 30),
        BATCH.column(1).slice(3, 9),
        [BATCH.slice(1, 2), {"b": BATCH.slice(4, 4)}],
        pa.chunked_array([BATCH.column(0).slice(1, 3), BATCH.column(0).slice(9, 2)]),
        pa.RecordBatch.from_pydict({"n": [None, 1, None], "l": [[1], [], None]}).slice(1, 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_arrow_data_crosses_as_the_rows_that_it_shows(pair, value, events):
    assert pair.cross(value, events=events) == value
    if value is not BATCH:
        assert pair.size(value, events=events) < 20_000


def test_check_names_what_cannot_cross(pair, tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(CrossingError, match=r"Child\(X\): argument 2 .*file"):
        check("Child(X)", {"argument 1": 1, "argument 2": file}, pair.here)


def test_what_is_of_main_crosses_by_value_from_a_program():
    program = """
import sys
from headgate.runtime.wire import Codes
class Event:
    def __init__(self, x): self.x = x
def twice(event): return 2 * event.x
codes = Codes(lambda _: None, lambda name: name)
kind, data, buffers = codes.encode_events([Event(4), twice])
sys.stdout.buffer.write(bytes([kind]) + data)
"""
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout
    event, twice = codes().decode(out[0], out[1:])
    assert twice(event) == 8


@pytest.mark.parametrize("make", [lambda: (x for x in range(3)), threading.Lock])
def test_what_belongs_to_a_process_is_refused(pair, make):
    with pytest.raises(TypeError):
        pair.here.encode_events([make()])


@pytest.mark.parametrize("mode", ["r", "rb", "w", "r+b"])
def test_an_open_file_is_refused_and_not_copied(pair, mode, tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    with path.open(mode) as file, pytest.raises(TypeError, match="open file"):
        pair.here.encode(file)
