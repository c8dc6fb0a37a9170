"""Personal fields: none is ever stored in the clear, wrong keys write nothing, and what is destroyed is gone."""

import asyncio
import contextlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest
from pydantic.alias_generators import to_camel

from headgate import DamagedLogError, EventError, EventLogError, OptionError
from headgate.eventlog import ERASED, Event, EventLog, Policy, Projection, Types, fork
from headgate.eventlog.export import export_lines
from headgate.eventlog.store import Statement
from headgate.eventlog.vault import no_shred_since
from tests.eventlog.conftest import run
from tests.eventlog.server import server

KEY = bytes(range(32))


@dataclass
class Joined:
    person: str
    name: str


class Alias(pydantic.BaseModel):
    model_config = {"populate_by_name": True}
    full_name: str = pydantic.Field(alias="fullName")
    other: str = ""


class Camel(pydantic.BaseModel):
    model_config = {"alias_generator": to_camel, "populate_by_name": True}
    full_name: str
    other: str = ""


class TwoAliases(pydantic.BaseModel):
    full_name: str = pydantic.Field(serialization_alias="out", validation_alias="in")

    @pydantic.computed_field(alias="shortName")  # type: ignore[prop-decorator]
    @property
    def short_name(self) -> str:
        return self.full_name[:3]


class Choices(pydantic.BaseModel):
    name: str = pydantic.Field(validation_alias=pydantic.AliasChoices("called", pydantic.AliasPath("names", 0)))
    other: str = ""


class Renamed(msgspec.Struct, rename="camel"):
    full_name: str
    other: str = ""


class Sparse(msgspec.Struct, omit_defaults=True):
    full_name: str = ""


class InAList(msgspec.Struct, array_like=True):
    name: str


class Serialized(pydantic.BaseModel):
    name: str

    @pydantic.model_serializer
    def write(self) -> dict[str, Any]:
        return {"called": self.name}


class Listed(pydantic.RootModel[list[str]]):
    pass


async def stored(log):
    """The text of all events."""
    return [each.row[13] for each in await log.read().all()]


@pytest.mark.parametrize("personal", ["name", b"name", ["nmae"], ["name", "nmae"], [5], [""], 5])
@pytest.mark.parametrize("cls", [Joined, Renamed])
def test_what_is_no_list_of_fields_is_refused(cls, personal):
    with pytest.raises(OptionError, match="personal"):
        Types().add(cls, personal=personal)


def test_a_text_is_refused_for_a_type_without_a_class_too():
    with pytest.raises(OptionError, match="list of names"):
        Types().add("joined", personal="name")


@pytest.mark.parametrize("cls", [Joined, Renamed, Alias])
def test_a_subject_that_is_no_field_is_refused(cls):
    with pytest.raises(OptionError, match=r"'subject'.*of its fields"):
        Types().add(cls, subject="preson")


@pytest.mark.parametrize(
    ("data", "personal"),
    [
        (Joined("p", "Ada"), ["name"]),
        (Alias(fullName="Ada"), ["full_name"]),
        (Alias(fullName="Ada"), ["fullName"]),
        (Camel.model_validate({"full_name": "Ada"}), ["full_name"]),
        (TwoAliases.model_validate({"in": "Ada"}), ["full_name", "short_name"]),
        (Renamed("Ada"), ["full_name"]),
        (Renamed("Ada"), ["fullName"]),
        (Sparse("Ada"), ["full_name"]),
        (Event("Alias", {"full_name": "Ada"}), ["full_name", "other"]),
        (Event("TwoAliases", {"in": "Ada"}), ["full_name"]),
        (Event("Choices", {"called": "Ada", "other": "x"}), ["name", "other"]),
        (Event("Choices", {"names": "Ada", "other": "x"}), ["name", "other"]),
        (Event("Renamed", {"full_name": "Ada", "other": "x"}), ["full_name", "other"]),
    ],
)
def test_a_field_is_sealed_under_each_name_that_it_is_written_by(place, data, personal):
    cls = next(
        each
        for each in (Joined, Alias, Camel, TwoAliases, Choices, Renamed, Sparse)
        if each.__name__ in (type(data).__name__, getattr(data, "type", None))
    )
    types = Types()
    types.add(cls, personal=personal)

    @run
    async def _():
        async with place.log(types=types, master_key=KEY) as log:
            await log.append("p", [data])
            assert '"Ada"' not in (await stored(log))[0]  # with the quotes of JSON, as base64 may have those letters
            assert "Ada" in (await log.event(1)).plain.values()
            await log.shred("p")
            event = await log.event(1)
            assert "Ada" not in str(event.plain)
            assert ERASED in event.plain.values()


def test_a_subject_is_found_by_the_name_it_is_encoded_by():
    types = Types()
    types.add(Renamed, personal=["other"], subject="full_name")

    @run
    async def _():
        async with EventLog(":memory:", types=types, master_key=KEY) as log:
            await log.append("s", [Renamed("p1", "Ada")])
            assert (await log.event(1)).subject == "p1"


def test_what_is_not_encoded_as_an_object_is_refused():
    with pytest.raises(OptionError, match="as an object"):
        Types().add(InAList)
    with pytest.raises(OptionError, match="it has none"):
        Types().add(Listed, personal=["root"])

    @run
    async def _():
        async with EventLog(":memory:", types=[Listed]) as log:
            with pytest.raises(EventError, match="as an object"):
                await log.append("s", [Listed(["Ada"])])


def test_a_model_that_names_its_fields_itself_has_no_personal_ones():
    with pytest.raises(OptionError, match="model_serializer"):
        Types().add(Serialized, personal=["name"])
    Types().add(Serialized)


def test_a_model_whose_aliases_are_not_known_yet_has_no_personal_fields():
    class Early(pydantic.BaseModel):
        name: "Later"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(OptionError, match="not defined yet"):
        Types().add(Early, personal=["name"])


def test_an_event_of_a_class_without_any_of_its_personal_fields_is_refused():
    types = Types()
    types.add(Joined, personal=["name"])
    types.add("loose", personal=["name"])
    types.add(Sparse, personal=["full_name"])

    @run
    async def _():
        async with EventLog(":memory:", types=types, master_key=KEY) as log:
            with pytest.raises(EventError, match=r"Joined: .*personal fields \(name\)"):
                await log.append("s", [Event("Joined", {"person": "p", "nmae": "Ada"})])
            await log.append("s", [Event("loose", {"n": 1}), Sparse()])
            assert await stored(log) == ['{"n":1}', "{}"]


def test_only_fields_of_a_dataclass_are_written():
    """As many attributes as fields, but others: they are not taken for its fields."""

    @dataclass
    class Late:
        name: str

        def __post_init__(self):
            self.nickname = self.__dict__.pop("name")

        def __getattr__(self, name):
            return "from elsewhere"

    types = Types()
    types.add(Late, personal=["name"])

    @run
    async def _():
        async with EventLog(":memory:", types=types, master_key=KEY) as log:
            await log.append("s", [Late("Ada"), Late("Ada")])
            assert not any("Ada" in each for each in await stored(log))


# -- the master key ----------------------------------------------------------------------------------------------------


def joined(subject="person"):
    types = Types()
    types.add(Joined, personal=["name"], subject=subject)
    return types


def test_another_master_key_writes_nothing(shared):
    @run
    async def _():
        async with (
            shared.log(types=joined(), master_key=KEY) as log,
            shared.log(types=joined(), master_key=b"x" * 32) as wrong,
        ):
            await log.append("s", [Joined("p1", "Ada")])
            for doing in (
                wrong.append("s", [Joined("p1", "Eve")]),
                wrong.append("s", [Joined("p2", "Eve")]),
                wrong.event(1),
                wrong.shred("p1"),
            ):
                with pytest.raises(OptionError, match=r"'master_key'.*not shown") as caught:
                    await doing
                assert "x" * 8 not in f"{caught.value!r} {caught.value.__context__!r}"
            await log.append("s", [Joined("p2", "Bob")])
            assert [each.data.name for each in await log.read().all()] == ["Ada", "Bob"]


def test_the_first_master_key_counts_when_two_begin_at_once(shared):
    @run
    async def _():
        async with (
            shared.log(types=joined(), master_key=KEY) as one,
            shared.log(types=joined(), master_key=b"x" * 32) as two,
        ):
            both = [log.append(f"s{n}", [Joined("p1", "Ada")]) for n, log in enumerate((one, two))]
            done = await asyncio.gather(*both, return_exceptions=True)
            assert sorted(type(each).__name__ for each in done) == ["Appended", "OptionError"]
            first = two if isinstance(done[0], OptionError) else one
            assert [each.data.name for each in await first.read().all()] == ["Ada"]


def test_a_log_that_is_older_than_the_proof_of_its_key(shared):
    @run
    async def _():
        async with shared.log(types=joined(), master_key=KEY) as log:
            await log.append("s", [Joined("p1", "Ada")])
            await log.store.transact([Statement("DELETE FROM ~meta WHERE name = 'master_key'")])
        async with shared.log(types=joined(), master_key=b"x" * 32) as wrong:
            with pytest.raises(OptionError, match="'master_key'"):
                await wrong.append("s", [Joined("p2", "Eve")])
        for _ in range(2):
            async with shared.log(types=joined(), master_key=KEY) as log:
                assert (await log.event(1)).data.name == "Ada"
                await log.append("s", [Joined("p2", "Bob")])


@pytest.mark.parametrize("damage", [b"", b"short", b"as long as a nonce and more"])
def test_a_damaged_key_is_told_by_the_events_that_it_sealed(place, damage):
    @run
    async def _():
        async with place.log(types=joined(), master_key=KEY) as log:
            await log.append("s", [Joined(f"p{n}", "Ada") for n in range(3)])
            await log.store.transact([Statement("UPDATE ~data_keys SET sealed = ? WHERE subject = 'p1'", (damage,))])
            one, two, three = await log.read().all()
            assert (one.data.name, three.data.name) == ("Ada", "Ada")
            with pytest.raises(DamagedLogError, match="subject 'p1'") as caught:
                _ = two.data
            assert caught.value.position == 2
            with pytest.raises(DamagedLogError, match="subject 'p1'"):
                await log.append("s", [Joined("p1", "Ada")])
            await log.append("s", [Joined("p2", "Ada")])


@pytest.mark.parametrize("box", ['{"box":"AAAA"}', '{"box":5}', "{}", "5", '{"box":"****"}'])
def test_damaged_sealed_fields_name_their_position(box):
    @run
    async def _():
        async with EventLog(":memory:", types=joined(), master_key=KEY) as log:
            await log.append("s", [Joined("p", "Ada")])
            page = await log.page([(*row[:13], f'{{"$sealed":{box}}}', *row[14:]) for row in (await stored_rows(log))])
            with pytest.raises(DamagedLogError, match="sealed fields") as caught:
                _ = page[0].data
            assert caught.value.position == 1


async def stored_rows(log):
    return [each.row for each in await log.read().all()]


# -- what is destroyed is gone -----------------------------------------------------------------------------------------


NAMES = Projection("names", lambda state, event: {**state, event.data.person: event.data.name})


def test_no_snapshot_is_kept_of_what_was_read_before_a_key_was_destroyed(place):
    """The key is destroyed between the first page of a fold and its end."""

    @run
    async def _():
        async with place.log(types=joined(), master_key=KEY) as log:
            await log.append("s", [Joined("p1", "Ada"), *[Joined("p2", "Bob")] * 1000])
            rows = log.rows
            shredded: list[bool] = []

            async def slow(query, cursor, limit):
                if cursor is not None and not shredded:
                    shredded.append(await log.shred("p1"))
                return await rows(query, cursor, limit)

            log.rows = slow
            during = await log.fold(NAMES, "s", snapshots=1)
            assert (shredded, during.state["p1"]) == ([True], "Ada"), "it had read it"
            kept = await log.store.transact([Statement("SELECT data FROM ~snapshots")])
            assert kept == [[]]
            assert (await log.fold(NAMES, "s", snapshots=1)).state == {"p1": ERASED, "p2": "Bob"}
            ((again,),) = await log.store.transact([Statement("SELECT data FROM ~snapshots")])
            assert "Ada" not in again[0], "and snapshots are kept again"


@pytest.mark.slow
def test_a_snapshot_that_is_being_kept_goes_with_the_key():
    """On PostgreSQL transactions overlap: whoever destroys a key waits for the snapshot, and deletes it."""
    url = server().database()

    @run
    async def _():
        async with EventLog(url, types=joined(), master_key=KEY) as log:
            await log.append("s", [Joined("p1", "Ada")])
            await log.fold(NAMES, "s", snapshots=0)
            assert await log.store.transact([Statement("SELECT entity FROM ~snapshots")]) == [[("s",)]]
            await log.store.transact([Statement("DELETE FROM ~snapshots")])
            begun, go_on = asyncio.Event(), asyncio.Event()

            async def keep(db):
                for each in (no_shred_since("", ValueError()), _SNAPSHOT):
                    await log.store._execute(db, each)  # type: ignore[attr-defined]
                begun.set()
                await go_on.wait()

            keeping = asyncio.create_task(log.store.run(keep))
            await begun.wait()
            shredding = asyncio.create_task(log.shred("p1"))
            waiting = Statement("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%meta%'")
            while await log.store.transact([waiting]) == [[]]:
                assert not shredding.done()
            go_on.set()
            await keeping
            assert await shredding
            assert await log.store.transact([Statement("SELECT entity FROM ~snapshots")]) == [[]]


_SNAPSHOT = Statement("INSERT INTO ~snapshots (name, logic, entity, position, data) VALUES ('n', '1', 's', 1, '{}')")


def sealed_key(path):
    with contextlib.closing(sqlite3.connect(path)) as db:
        return db.execute("SELECT sealed FROM headgate_data_keys").fetchone()[0]


def files_with(path, what):
    return [each.name for each in path.parent.iterdir() if what in each.read_bytes()]


def test_a_destroyed_key_is_in_no_file_of_an_open_log(tmp_path):
    path = tmp_path / "log.db"

    @run
    async def _():
        async with EventLog(str(path), types=joined(), master_key=KEY, busy_timeout=0.01) as log:
            await log.append("s", [Joined("p1", "Ada")])
            key = sealed_key(path)
            assert files_with(path, key)
            assert await log.shred("p1") is True
            assert files_with(path, key) == []


def test_one_who_reads_meanwhile_is_named_and_shredding_again_does_the_rest(tmp_path):
    path = tmp_path / "log.db"

    @run
    async def _():
        async with EventLog(str(path), types=joined(), master_key=KEY, busy_timeout=0.01) as log:
            await log.append("s", [Joined("p1", "Ada")])
            key = sealed_key(path)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN")
                other.execute("SELECT count(*) FROM headgate_events").fetchone()
                with pytest.raises(EventLogError, match="-wal file: do it again"):
                    await log.shred("p1")
                assert files_with(path, key)
                assert (await log.event(1)).data.name == ERASED
            assert await log.shred("p1") is False
            assert files_with(path, key) == []


@pytest.mark.slow
def test_appends_with_the_same_new_subjects_do_not_wait_in_a_circle():
    """One has inserted the first of them; the other waits for it, and has inserted none that the first wants next."""
    url = server().database()
    people = [f"p{number:02}" for number in range(50)]
    insert = "INSERT INTO headgate.data_keys (subject, sealed, created_at) VALUES ($1, '', 0)"

    @run
    async def _():
        async with (
            EventLog(url, types=joined(), master_key=KEY) as log,
            EventLog(url, types=joined(), master_key=KEY) as other,
        ):
            await log.append("s", [Joined("p", "x")])

            async def first(db):
                await db.execute(insert, people[0])
                appending.append(asyncio.create_task(log.append("s", [Joined(each, "x") for each in people])))
                while not await db.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                    assert not appending[0].done()
                await db.executemany(insert, [(each,) for each in people[1:]])
                await db.execute("DELETE FROM headgate.data_keys WHERE sealed = ''")

            appending: list[asyncio.Task[Any]] = []
            await other.store.run(first)
            assert (await appending[0]).version == 51


# -- old versions, and copies ------------------------------------------------------------------------------------------


@dataclass
class Moved:
    street: str
    city: str
    person: str


def moved(bring_up):
    """The first version had an address; a log that has events of it, and the types of today."""
    old, new = Types(), Types()
    old.add("Moved", personal=["address"], subject="person")
    new.add(Moved, version=2, personal=["street", "city"], subject="person")
    new.upcast(Moved, 1)(bring_up)
    return old, new


def split(data):
    person = data.pop("person")
    street, city = data.pop("address").split(", ")
    return {"street": street, "city": city, "person": person}


async def with_old_ones(log, new):
    for number in (1, 2):
        await log.append("s", [Event("Moved", {"address": f"High Street {number}, York", "person": f"p{number}"})])
    log.types = new


def test_what_is_erased_is_not_brought_up_by_force(place):
    old, new = moved(split)

    @run
    async def _():
        async with place.log(types=old, master_key=KEY) as log:
            await with_old_ones(log, new)
            assert (await log.event(1)).data == Moved("High Street 1", "York", "p1")
            await log.shred("p1")
            assert [each.data for each in await log.read().all()] == [
                {"address": ERASED, "person": "p1"},
                Moved("High Street 2", "York", "p2"),
            ]


@pytest.mark.parametrize(
    ("bring_up", "message"),
    [
        (lambda data: data["name"], r"event 1 \(Moved\).*brings up version 1 \(KeyError: 'name'\)"),
        (lambda data: None, r"event 1 \(Moved\).*a dict after the function that brings up version 1.*None"),
        (lambda data: [data], r"event 1 \(Moved\).*a dict after"),
    ],
)
def test_an_upcaster_that_fails_names_the_event(bring_up, message):
    old, new = moved(bring_up)

    @run
    async def _():
        async with EventLog(":memory:", types=old, master_key=KEY) as log:
            await with_old_ones(log, new)
            with pytest.raises(EventError, match=message):
                _ = (await log.event(1)).data


class Born(msgspec.Struct):
    person: str
    name: str
    year: int


@pytest.mark.parametrize(
    ("rules", "subject"),
    [({}, None), ({"@subject": "keep"}, "p1"), ({"@subject": "drop"}, ERASED), ({"name": "redact", "year": abs}, None)],
)
def test_what_is_erased_stays_so_in_a_masked_copy(rules, subject):
    types = Types()
    types.add(Born, personal=["name", "year"], subject="person")

    @run
    async def _():
        async with (
            EventLog(":memory:", types=types, master_key=KEY) as log,
            EventLog(":memory:", types=types) as copy,
        ):
            await log.append("s", [Born("p1", "Ada", 1815), Born("p2", "Bob", 1990)])
            await log.shred("p1")
            await fork(log, copy, policy=Policy(rules, key=KEY))
            one, two = await copy.read().all()
            assert one.data == {"person": "p1", "name": ERASED, "year": ERASED}
            assert one.subject == (Policy(key=KEY).mask("p1") if subject is None else subject)
            assert isinstance(two.data, Born)
            assert two.data.name != "Bob"
            assert two.subject is None
            (line, _) = [each async for each in export_lines(log, log.read(), Policy(rules))]
            assert json.loads(line)["data"] == one.plain


def test_what_was_sealed_in_an_old_version_is_masked_too():
    old, new = moved(split)

    @run
    async def _():
        async with EventLog(":memory:", types=old, master_key=KEY) as log, EventLog(":memory:") as copy:
            await with_old_ones(log, new)
            await fork(log, copy, policy=Policy())
            lines = [each async for each in export_lines(log, log.read(), Policy())]
            assert "High Street" not in str([each.plain for each in await copy.read().all()])
            assert "High Street" not in "".join(lines)
