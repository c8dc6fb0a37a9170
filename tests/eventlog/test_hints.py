"""What is written of a dataclass comes back as it was, or the class is refused."""

import collections
import dataclasses
import enum
import typing
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import InitVar, dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import TypeAliasType

from headgate import EventError, OptionError
from headgate.eventlog import Event, EventLog, Types
from headgate.eventlog.codecs import DataclassCodec, loads
from tests.eventlog.conftest import run

T = TypeVar("T")
When = NewType("When", datetime)
Price = TypeAliasType("Price", Decimal)


class Colour(enum.Enum):
    RED = "red"
    PAIR = (1, 2)
    DAY = date(2024, 1, 1)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Name(enum.StrEnum):
    ADA = "ada"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: Decimal


Plain = collections.namedtuple("Plain", "a b")  # noqa: PYI024 (there are such)


class Typed(TypedDict):
    when: date
    n: int


class Struct(msgspec.Struct, frozen=True):
    when: datetime
    price: Decimal


class Flat(msgspec.Struct, array_like=True, frozen=True):
    price: Decimal


class Model(pydantic.BaseModel):
    model_config = {"frozen": True}
    price: Decimal = pydantic.Field(alias="cost")


@dataclass(frozen=True)
class Inner:
    when: date
    next: "Inner | None" = None


@dataclass(frozen=True, slots=True)
class Derived:
    price: Decimal
    double: Decimal = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "double", self.price * 2)


texts = st.text(st.characters(exclude_categories=["Cs"]))
decimals = st.decimals(allow_nan=False, allow_infinity=False)
zones = st.none() | st.integers(-1400, 1400).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(timezones=zones).map(lambda moment: moment.replace(fold=0))  # which ISO 8601 does not have
inner = st.builds(Inner, st.dates(), st.none() | st.builds(Inner, st.dates()))

LEAVES: list[tuple[Any, Any, str]] = [  # a type, its values, and the form that they have in JSON
    (str, texts, "text"),
    (int, st.integers(), "integer"),
    (float, st.floats(allow_nan=False, allow_infinity=False), "number"),
    (bool, st.booleans(), "boolean"),
    (None, st.none(), "null"),
    (Decimal, decimals, "text"),
    (uuid.UUID, st.uuids(), "text"),
    (date, st.dates() | times, "text"),
    (date | datetime, st.dates() | times, "text"),
    (datetime, times, "text"),
    (time, st.times().map(lambda clock: clock.replace(fold=0)), "text"),
    (timedelta, st.timedeltas(), "number or text"),
    (bytes, st.binary(), "text"),
    (bytearray, st.binary().map(bytearray), "text"),
    (Colour, st.sampled_from(Colour), "anything"),
    (Level, st.sampled_from(Level), "integer"),
    (Name, st.sampled_from(Name), "text"),
    (Right, st.sampled_from([Right(0), Right.READ, Right.READ | Right.WRITE]), "integer"),
    (Literal["a", "b"], st.sampled_from(["a", "b"]), "text"),
    (Literal[Level.LOW, "a", True], st.sampled_from([Level.LOW, "a", True]), "anything"),
    (When, times, "text"),
    (Annotated[Decimal, "price"], decimals, "text"),
    (Price, decimals, "text"),
    (Point, st.builds(Point, st.integers(), decimals), "list"),
    (Plain, st.builds(Plain, st.integers(), texts), "list"),
    (Typed, st.fixed_dictionaries({"when": st.dates(), "n": st.integers()}), "object"),
    (Struct, st.builds(Struct, times.map(lambda moment: moment.replace(tzinfo=UTC)), decimals), "object"),
    (Flat, st.builds(Flat, decimals), "list"),
    (Model, decimals.map(lambda cost: Model(cost=cost)), "object"),
    (Inner, inner, "object"),
    (Derived, st.builds(Derived, st.decimals(-1000, 1000)), "object"),
    (Any, texts | st.integers() | st.lists(st.none() | st.booleans()), "anything"),
    (list, st.lists(st.integers()), "list"),
    (tuple, st.lists(st.integers()).map(tuple), "list"),
    (dict, st.dictionaries(texts, st.integers()), "object"),
    (collections.Counter[str], st.dictionaries(texts, st.integers()).map(collections.Counter), "object"),
]
KEYS = [(str, texts), (int, st.integers()), (bool, st.booleans()), (Name, st.sampled_from(Name)), (Any, texts)]
KEYS += [(Level, st.sampled_from(Level)), (float, st.floats(allow_nan=False, allow_infinity=False))]


@st.composite
def several(draw, hint, values):
    """Lists and dicts of a type."""
    key, keys = draw(st.sampled_from(KEYS))
    lists = st.lists(values, max_size=3)
    kinds: list[tuple[Any, Any, str]] = [
        *((kind[hint], lists, "list") for kind in (list, Sequence, Collection, Iterable)),
        (tuple.__class_getitem__((hint, ...)), lists.map(tuple), "list"),
        (tuple.__class_getitem__((int, hint)), st.tuples(st.integers(), values), "list"),
        *(
            (kind[key, hint], st.dictionaries(keys, values, max_size=3), "object")
            for kind in (dict, Mapping, MutableMapping)
        ),
    ]
    return draw(st.sampled_from(kinds))


@st.composite
def hashable(draw):
    leaves = [each for each in LEAVES if each[0] not in (bytearray, Typed, Any, list, dict) and each[2] != "object"]
    hint, values, _ = draw(st.sampled_from(leaves))
    kind = draw(st.sampled_from([set, frozenset, AbstractSet]))
    sets = st.sets(values, max_size=3)
    return kind[hint], sets.map(frozenset) if kind is frozenset else sets, "list"


@st.composite
def union(draw):
    """Of types whose forms differ."""
    one = draw(st.sampled_from([each for each in LEAVES if each[2] not in ("anything", "null")]))
    others = [each for each in LEAVES if each[2] != "anything" and each[2] not in one[2] and one[2] not in each[2]]
    two = draw(st.sampled_from(others))
    return typing.Union[one[0], two[0]], one[1] | two[1], "anything"  # noqa: UP007 (they are values)


@st.composite
def typed(draw, depth=2):
    """A type that is supported, and its values."""
    found = draw(st.sampled_from(LEAVES) | hashable() | union())
    for _ in range(draw(st.integers(0, depth))):
        found = draw(several(found[0], found[1]))
    return found


def shape(value):
    """A value with all of its types: 1, 1.0 and True are equal."""
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(map(shape, value))
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(shape, value))
    if isinstance(value, dict):
        return dict, tuple((shape(name), shape(each)) for name, each in value.items())
    if dataclasses.is_dataclass(value):
        return type(value), tuple(shape(getattr(value, each.name)) for each in dataclasses.fields(value))
    return type(value), repr(value)


@given(st.data())
def test_what_is_written_comes_back_as_it_was(data):
    fields = data.draw(st.lists(typed(), min_size=1, max_size=3))
    cls = make_dataclass("Made", [(f"f{index}", hint) for index, (hint, _, _) in enumerate(fields)])
    value = cls(*[data.draw(values) for _, values, _ in fields])
    Types().add(cls)
    codec = DataclassCodec(cls)
    back = codec.decode(loads(codec.encode(value)))
    assert back == value
    assert shape(back) == shape(value)


class Box(Generic[T]):
    pass


@dataclass
class Generics(Generic[T]):
    value: T


Json: Any = type("TypeAliasType", (), {})()  # as ``type Json = list[Json]`` of Python 3.12
Json.__value__ = list[Json]


@dataclass
class Two:
    n: int


REFUSED = {
    "str | bytes": str | bytes,
    "str | date": str | date,
    "str | Decimal": str | Decimal,
    "within": dict[str, list[str | date]],
    "two dates": datetime | time,
    "Any | date": Any | date,
    "two lists": list[Decimal] | list[int],
    "a list and a tuple": list[int] | tuple[int, ...],
    "two classes": Inner | Two,
    "float | timedelta": float | timedelta,
    "an enumeration and text": Colour | str,
    "keys": dict[date, int],
    "keys of both kinds": dict[int | str, int],
    "keys of enumerations": dict[Colour, int],
    "a path": Path,
    "a function": Callable[[], None],
    "deque": collections.deque[int],
    "complex": complex,
    "a class of somebody": Box[int],
    "a generic dataclass": Generics[Decimal],
    "a type of itself": Json,
}


@pytest.mark.parametrize("hint", REFUSED.values(), ids=REFUSED)
def test_a_field_that_would_not_come_back_is_named(hint):
    cls = make_dataclass("Wrong", [("good", int), ("bad", hint)])
    with pytest.raises(OptionError, match="dataclass Wrong: expected option 'bad' to be"):
        Types().add(cls)
    outer = make_dataclass("Outer", [("wrong", list[cls])])  # type: ignore[valid-type]
    with pytest.raises(OptionError, match=r"dataclass Outer: expected option 'wrong\.bad'"):
        Types().add(outer)


def test_a_class_that_cannot_be_made_of_its_fields_is_refused():
    @dataclass
    class Init:
        given: InitVar[int]
        n: int = 0

    @dataclass
    class Default:
        given: InitVar[int] = 5
        n: int = 0

    @dataclass(init=False)
    class Own:
        n: int

        def __init__(self, number: int) -> None:
            self.n = number

    @dataclass(init=False)
    class Fewer:
        n: int

        def __init__(self) -> None:
            self.n = 1

    for cls, name in ((Init, "given"), (Default, "given"), (Own, "number"), (Fewer, "n")):
        with pytest.raises(OptionError, match=f"dataclass {cls.__name__}: expected option '{name}'"):
            Types().add(cls)


def test_types_that_are_defined_later_are_looked_up_later():
    types = Types()
    types.add(Early)
    types.add(Never)

    @run
    async def _():
        async with EventLog(":memory:", types=types) as log:
            await log.append("s", [Early(Later(Decimal(1)))])
            assert (await log.event(1)).data == Early(Later(Decimal(1)))
            with pytest.raises(OptionError, match="'Nowhere' is not defined"):
                await log.append("s", [Never(1)])
            await log.append("s", Event("Never", {"n": 1}))
            with pytest.raises(EventError, match="'Nowhere' is not defined"):
                _ = (await log.event(2)).data


@dataclass
class Early:
    later: "Later"


@dataclass
class Never:
    n: "Nowhere"  # type: ignore[name-defined]  # noqa: F821


@dataclass
class Later:
    price: Decimal


def test_what_was_written_as_seconds_is_read():
    cls = make_dataclass("Took", [("took", timedelta), ("maybe", timedelta | None)])
    codec = DataclassCodec(cls)
    assert codec.decode({"took": 90, "maybe": 1.5}) == cls(timedelta(seconds=90), timedelta(seconds=1.5))
    assert codec.encode(cls(timedelta(seconds=90.5), None)) == '{"took":90.5,"maybe":null}'


def test_what_an_upcaster_has_made_is_left():
    then = datetime(2024, 1, 1, tzinfo=UTC)
    hints: dict[str, Any] = {"when": datetime | None, "point": Point, "colour": Colour, "inner": Inner, "model": Model}
    cls = make_dataclass("Made", hints.items())
    values = {"when": then, "point": Point(1, Decimal(2)), "colour": Colour.RED, "inner": Inner(then), "model": Model(cost=Decimal(1))}  # fmt: skip  # noqa: E501
    assert DataclassCodec(cls).decode(values) == cls(**values)


def test_what_does_not_fit_is_no_instance():
    for hint, value in (
        (date | None, "never"),
        (Inner, 5),
        (tuple[int, int], [1]),
        (Colour, "green"),
        (bool | bytes, "ä"),
    ):
        cls = make_dataclass("Made", [("f", hint)])
        with pytest.raises((ValueError, TypeError)):
            DataclassCodec(cls).decode({"f": value})
