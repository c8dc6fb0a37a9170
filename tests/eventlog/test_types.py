"""Types of events: dataclasses, msgspec structs, pydantic models, dicts; old versions; personal fields."""

import enum
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import EventError, OptionError
from headgate.eventlog import ERASED, SEALED, Event, EventLog, Projection, Types
from headgate.eventlog.codecs import DataclassCodec, dumps, loads
from tests.eventlog.conftest import run


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Inner:
    when: datetime
    colour: Colour = Colour.RED


@dataclass
class Rich:
    text: str
    number: int
    ratio: float
    price: Decimal
    identity: uuid.UUID
    day: date
    clock: time
    took: timedelta
    raw: bytes
    inner: Inner
    several: list[Inner]
    pair: tuple[int, Decimal]
    any_length: tuple[date, ...]
    names: set[str]
    prices: dict[str, Decimal]
    by_number: dict[int, str]
    maybe: datetime | None = None
    either: Decimal | int = 0
    plain: dict[str, object] = field(default_factory=dict)


class Struct(msgspec.Struct):
    when: datetime
    price: Decimal
    n: int = 0


class Model(pydantic.BaseModel):
    when: datetime
    price: Decimal
    other: str = pydantic.Field(default="", alias="else")


def rich():
    then = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
    inner = Inner(then)
    return Rich(
        "ä\x00\u2028",
        2**70,
        1.5,
        Decimal("1.10"),
        uuid.UUID(int=7),
        then.date(),
        then.time(),
        timedelta(seconds=90.5),
        b"\x00\xff",
        inner,
        [inner, Inner(then)],
        (1, Decimal("2.50")),
        (then.date(),),
        {"b", "a"},
        {"x": Decimal(3)},
        {5: "five"},
        then,
        Decimal(4),
        {"deep": [1, {"er": None}]},
    )


@pytest.mark.parametrize(
    "data",
    [
        rich(),
        Struct(datetime(2024, 1, 1, tzinfo=UTC), Decimal("1.10"), 5),
        Model.model_validate({"when": datetime(2024, 1, 1, tzinfo=UTC), "price": "1.10", "else": "x"}),
    ],
    ids=lambda data: type(data).__name__,
)
def test_an_object_comes_back_as_it_was(place, data):
    @run
    async def _():
        async with place.log(types=[type(data)]) as log:
            await log.append("a", [data])
            event = await log.event(1)
            assert event.type == type(data).__name__
            assert type(event.data) is type(data)
            assert event.data == data
            assert event.data is event.data
            assert isinstance(event.plain, dict)
        async with place.log() as log:
            if place.kind != "memory":
                assert isinstance((await log.event(1)).data, dict), "who does not know the type gets a dict"


texts = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts


def nested(inner):
    return st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)


@given(st.recursive(scalars, nested, max_leaves=15))
def test_a_dict_comes_back_as_it_was(value):
    @run
    async def _():
        async with EventLog(":memory:") as log:
            await log.append("a", [Event("x", {"value": value})])
            assert (await log.event(1)).data == {"value": value}


def test_old_versions_are_brought_up(place):
    @dataclass
    class Named:
        first: str
        last: str

    @run
    async def _():
        async with place.log() as log:
            await log.append("a", [Event("Named", {"name": "Ada Lovelace"})])
            old = Types()
            old.add("Named", version=2)
            log.types = old
            log._drafter._types = old
            await log.append("a", [Event("Named", {"full": "Grace Hopper"})])
            types = Types()
            types.add(Named, version=3)
            types.upcast(Named, 1)(lambda data: {"full": data["name"]})
            log.types = types
            with pytest.raises(EventError, match=r"event 1 \(Named\).*brought to 3.*got: 2"):
                _ = (await log.event(1)).data
            types.upcast("Named", 2)(lambda data: dict(zip(("first", "last"), data["full"].split(), strict=True)))
            assert [each.data for each in await log.read().all()] == [
                Named("Ada", "Lovelace"),
                Named("Grace", "Hopper"),
            ]
            assert [each.schema_version for each in await log.read().all()] == [1, 2]
            assert (await log.event(1)).plain == {"name": "Ada Lovelace"}


def test_data_that_does_not_fit_its_class_names_the_event():
    @run
    async def _():
        async with EventLog(":memory:", types=[Struct]) as log:
            await log.append("a", [Event("Struct", {"when": "never"})])
            with pytest.raises(EventError, match=r"event 1 \(Struct\).*fit for Struct"):
                _ = (await log.event(1)).data
            assert (await log.event(1)).plain == {"when": "never"}


def test_fields_that_a_class_no_longer_has_are_left_out():
    codec = DataclassCodec(Inner)
    assert codec.decode({"when": "2024-01-01T00:00:00+00:00", "gone": 1}) == Inner(datetime(2024, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("cls", [int, "", "a\nb", 5, lambda: None])
def test_what_is_no_type_of_events_is_refused(cls):
    with pytest.raises((OptionError, EventError)):
        Types().add(cls)


@dataclass
class Lines:
    items: list[str]

    def __iter__(self):
        return iter(self.items)


class Paired(msgspec.Struct):
    key: str

    def __iter__(self):
        return iter([self])


class Mapped(pydantic.BaseModel):
    items: list[str]

    def __iter__(self):
        return iter(self.items)

    def keys(self):
        return self.items


@pytest.mark.parametrize("data", [Lines([]), Lines(["a"]), Paired("a"), Mapped(items=["a", "b"])])
def test_one_event_that_can_be_iterated_over_is_one_event(place, data):
    @run
    async def _():
        async with place.log(types=[Lines, Paired, Mapped]) as log:
            assert (await log.append("s", data)).last == 1
            assert (await log.append("s", iter([data, data]))).last == 3
            assert [each.data for each in await log.read().all()] == [data] * 3


def test_two_classes_cannot_have_one_name():
    types = Types(Inner)
    with pytest.raises(OptionError, match="'Inner' is"):
        types.add(Struct, name="Inner")
    assert types.add(Inner) is Inner
    with pytest.raises(OptionError, match="version"):
        types.add(Struct, version=0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, object()}])
def test_what_has_no_form_in_json_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        dumps({"value": value})


class Measured(msgspec.Struct):
    x: float
    other: Any = None


class ModelMeasured(pydantic.BaseModel):
    x: float
    by_number: dict[int, float] = {}
    several: set[float] = set()
    other: Any = None


class Constants(pydantic.BaseModel):
    model_config = {"ser_json_inf_nan": "constants"}
    x: float


class Texts(pydantic.BaseModel):
    model_config = {"ser_json_inf_nan": "strings"}
    x: float
    other: str | None = None


@dataclass
class Holds:
    x: Any


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "make",
    [
        Measured,
        lambda number: Measured(1.5, {"deep": [None, (number,)]}),
        lambda number: Measured(1.5, [msgspec.Raw(b"null"), number]),
        lambda number: ModelMeasured(x=number),
        lambda number: ModelMeasured(x=1, by_number={1: number}),
        lambda number: ModelMeasured(x=1, several={number}),
        lambda number: ModelMeasured(x=1, other=[None, Holds(number)]),
        lambda number: Constants(x=number),
        lambda number: Holds(Measured(number)),
        lambda number: Holds(ModelMeasured(x=number)),
        lambda number: Event("x", {"x": [ModelMeasured(x=number)]}),
        lambda number: Event("x", {"x": Measured(number)}),
    ],
)
def test_what_is_no_number_is_refused_in_every_kind_of_object(make, number):
    @run
    async def _():
        async with EventLog(":memory:", types=[Measured, ModelMeasured, Constants, Holds]) as log:
            with pytest.raises(EventError, match="such that JSON can hold it"):
                await log.append("s", [make(number)])
            assert await log.head() == 0


def test_nothing_where_there_may_be_nothing_is_no_lost_number():
    @run
    async def _():
        async with EventLog(":memory:", types=[Measured, ModelMeasured, Texts]) as log:
            raw = Measured(1.5, [msgspec.Raw(b'{"a":null}'), None, "null", {1: None}])
            data = [
                raw,
                ModelMeasured(x=1, other=["NaN", None, {1: None}]),
                Texts(x=float("inf")),
                Texts(x=1, other="null"),
            ]
            await log.append("s", data)
            assert [each.data for each in (await log.read().all())[2:]] == data[2:]
            assert [each.plain["other"] for each in (await log.read().all())[:2]] == [
                [{"a": None}, None, "null", {"1": None}],
                ["NaN", None, {"1": None}],
            ]


# -- personal fields ---------------------------------------------------------------------------------------------------

KEY = bytes(range(32))


def people():
    types = Types()

    @types.add(personal=["name", "email"], subject="person")
    @dataclass
    class Joined:
        person: str
        name: str
        email: str | None
        plan: str

    return types, Joined


def test_personal_fields_are_sealed_and_unreadable_once_the_key_is_destroyed(place):
    types, joined = people()

    @run
    async def _():
        async with place.log(types=types, master_key=KEY) as log:
            await log.append("p", [joined(str(n), f"Name{n}", f"{n}@x.org", "free") for n in range(3)])
            await log.append("q", [Event("Joined", {"person": "1", "name": "N", "plan": "paid"}, subject="2")])
            events = await log.read().all()
            assert [each.data.name for each in events[:3]] == ["Name0", "Name1", "Name2"]
            assert [each.subject for each in events] == ["0", "1", "2", "2"]
            assert not any("Name" in each.row[13] or "@x.org" in each.row[13] for each in events)
            assert await log.shred("1") is True
            assert await log.shred("1") is False
            assert await log.shred("nobody") is False
            one, two, *_ = await log.read().all()
            assert (one.data.name, one.data.email) == ("Name0", "0@x.org")
            assert (two.data.name, two.data.email, two.data.plan) == (ERASED, ERASED, "free")
            with pytest.raises(EventError, match="key was not destroyed"):
                await log.append("p", [joined("1", "Again", None, "free")])
        if place.kind != "memory":
            async with place.log(types=types) as log:
                assert (await log.event(1)).data.name == SEALED
                with pytest.raises(OptionError, match="master_key"):
                    await log.append("p", [joined("5", "x", None, "free")])
                with pytest.raises(OptionError, match="master_key"):
                    await log.shred("0")


def test_what_was_read_before_goes_with_the_key(place):
    """A snapshot held the personal fields in the clear."""
    types, joined = people()
    names = Projection("names", lambda state, event: {**state, event.data.person: event.data.name})

    @run
    async def _():
        async with place.log(types=types, master_key=KEY) as log:
            await log.append("p", [joined(str(n), f"Name{n}", None, "free") for n in range(3)])
            before = await log.fold(names, "p", snapshots=1)
            assert before.state == {"0": "Name0", "1": "Name1", "2": "Name2"}
            await log.shred("1")
            after = await log.fold(names, "p", snapshots=1)
            assert after.state == {"0": "Name0", "1": ERASED, "2": "Name2"}


def test_a_destroyed_key_leaves_nothing_in_the_file(tmp_path):
    types, joined = people()
    path = tmp_path / "log.db"

    @run
    async def _():
        async with EventLog(str(path), types=types, master_key=KEY) as log:
            await log.append("p", [joined("1", "Name", "x@x.org", "free")])
            ((sealed,),) = await log.store.run(
                lambda db: db.execute("SELECT sealed FROM headgate_data_keys").fetchall()
            )
            await log.shred("1")
        assert sealed not in path.read_bytes()


def test_a_field_that_cannot_be_text_is_none_when_it_is_erased():
    types = Types()

    @types.add(personal=["born"])
    @dataclass
    class Born:
        born: date | None
        strict: int

    @types.add(personal=["n"])
    class Counted(pydantic.BaseModel):
        n: int

    @run
    async def _():
        async with EventLog(":memory:", types=types, master_key=KEY) as log:
            await log.append("a", [Born(date(2000, 1, 1), 5), Counted(n=7)])
            assert [each.data for each in await log.read().all()] == [Born(date(2000, 1, 1), 5), Counted(n=7)]
            await log.shred("a")
            one, two = [each.data for each in await log.read().all()]
            assert (one.strict, two) == (5, {"n": ERASED})


@dataclass
class Simple:
    text: str
    n: int
    names: list[str]
    inner: dict[str, list[int]]
    maybe: str | None = None


@given(st.builds(Simple, texts, st.integers(), st.lists(texts, max_size=3), st.dictionaries(texts, st.lists(st.integers()), max_size=2), st.none() | texts))  # fmt: skip  # noqa: E501
def test_the_quick_encoder_writes_the_same_text(value):
    codec = DataclassCodec(Simple)
    text = codec.encode(value)
    assert codec._quick is not None
    assert text == dumps(vars(value))
    assert codec.decode(loads(text)) == value


def test_the_quick_encoder_refuses_what_json_has_no_form_for():
    wrong = Simple("x", float("nan"), [], {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="JSON"):
        DataclassCodec(Simple).encode(wrong)


def test_the_field_that_stands_for_sealed_ones_is_nobody_elses():
    """A plain dict with it would be opened as if it were sealed."""

    @run
    async def _():
        types = Types()
        types.add("joined", personal=["name"])
        async with EventLog(":memory:", types=types, master_key=KEY) as log:
            for event in (Event("joined", {"name": "a", "$sealed": {}}), Event("other", {"$sealed": 1}, subject="a")):
                with pytest.raises(EventError, match="sealed"):
                    await log.append("a", [event])
            await log.append("a", [Event("other", {"$sealed": 1}), Event("other", {"n": "$sealed"}, subject="a")])
            assert [each.data for each in await log.read().all()] == [{"$sealed": 1}, {"n": "$sealed"}]
