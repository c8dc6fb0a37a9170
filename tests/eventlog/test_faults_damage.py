"""Damage: every flipped bit of an event is found and its place named, or it changes nothing that can be read."""

import gzip
import json
import os
import sqlite3
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from headgate import DamagedLogError, EventError, EventLogError, ReversalError
from headgate.eventlog import Event, EventLog, archive, fork, reverse, verify
from headgate.eventlog.archive import read_file
from headgate.eventlog.record import COLUMNS
from headgate.eventlog.store import Query
from tests.eventlog.conftest import run


async def fill(log):
    """Three rows: the second has everything, the others have as little as there can be."""
    await log.append("s", [Event("t", {"n": 1})])
    whole = Event(
        "t",
        {"n": 2},
        effective_at=datetime(2020, 1, 1, tzinfo=UTC),
        correlation_id="co",
        causation_id="ca",
        reverses=uuid.UUID(int=7),
        actor="ada",
        subject="su",
        meta={"m": 1},
    )
    await log.append("s", [whole])
    await log.append("s", [Event("t", {"n": 3})])
    await log.append("u", [Event("t", {"n": 4})])


def by_hand(path):
    """A connection as somebody has it who knows SQL and not us."""
    db = sqlite3.connect(path, isolation_level=None)
    for trigger in ("update", "delete"):
        db.execute(f"DROP TRIGGER IF EXISTS headgate_events_no_{trigger}")
    return db


def flips(value):
    """All values that differ from this one by one bit; for none, what a record that is damaged may hold there."""
    if value is None:
        yield from ("''", "x''", "0", "1", "'a'", "x'00'", "1.5")
    elif isinstance(value, int):
        yield from (str(value ^ 1 << bit) for bit in range(63))
        yield from (f"'{value}x'", "NULL", "x'00'", f"{value}.5")
    else:
        raw = value if isinstance(value, bytes) else value.encode()
        for bit in range(8 * len(raw)):
            changed = bytearray(raw)
            changed[bit // 8] ^= 1 << bit % 8
            literal = f"x'{changed.hex()}'"
            yield literal if isinstance(value, bytes) else f"CAST({literal} AS TEXT)"
        yield from ("NULL", "''", "x''", "0", f"x'{raw.hex()}00'")
        yield f"CAST(x'{raw.hex()}' AS {'TEXT' if isinstance(value, bytes) else 'BLOB'})"


@pytest.mark.slow
@pytest.mark.parametrize("position", [2, 3])
@pytest.mark.parametrize("column", COLUMNS)
def test_every_bit_of_every_column(tmp_path, position, column):
    path = str(tmp_path / "log.db")

    @run
    async def _():
        async with EventLog(path) as log:
            await fill(log)
            before = [each.row for each in await log.read().all()]
            db = by_hand(path)
            value = before[position - 1][COLUMNS.index(column)]
            tried = 0
            for changed in flips(value):
                db.execute("BEGIN")
                try:
                    db.execute(f"UPDATE headgate_events SET {column} = {changed} WHERE position = {position}")
                except sqlite3.IntegrityError:
                    db.execute("ROLLBACK")
                    continue
                db.execute("COMMIT")
                ((there,),) = db.execute("SELECT max(position) FROM headgate_events")
                try:
                    after = [each.row for each in await log.read().all()]
                except DamagedLogError:
                    after = None
                if after != before or [list(map(type, row)) for row in after] != [
                    list(map(type, row)) for row in before
                ]:
                    found = await verify(log)
                    named = {each.position for each in found.damages}
                    assert named & {position, position + 1, there}, (changed, found)
                    tried += 1
                where = f"position = {position}"
                if column == "position":  # then it is to be found by the rest
                    where = f"event_id = x'{before[position - 1][5].hex()}'"
                db.execute(f"UPDATE headgate_events SET {column} = ? WHERE {where}", (value,))
            assert tried >= 7
            assert (await verify(log)).ok
            db.close()


@pytest.mark.slow
def test_every_bit_of_a_record_in_the_file(tmp_path):
    """Its header too, and the pointers around it."""
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"

    async def make():
        async with EventLog(str(path)) as log:
            for number in range(4):
                await log.append("s", [Event("t", {"number": f"<{number}>"})], actor="ada")
            return [each.row for each in await log.read().all()]

    async def look():
        try:
            async with EventLog(str(copy)) as log:
                found = await verify(log)
                if found.ok:
                    return [each.row for each in await log.read().all()]
                return found
        except (DamagedLogError, EventLogError) as error:
            return error

    rows = run(make)
    sound = path.read_bytes()
    end = sound.index(rows[1][15]) + 16
    begin = sound.index(rows[2][15]) + 16  # the record before it in the page is the one that was written after it
    assert 60 < end - begin < 300
    counts = {"named": 0, "found": 0, "harmless": 0}
    # Each bit of a byte comes up, and each field; all together (HYPOTHESIS_PROFILE=deep) take a minute.
    step = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 3
    for bit in range(8 * begin, 8 * end, step):
        broken = bytearray(sound)
        broken[bit // 8] ^= 1 << bit % 8
        for each in tmp_path.glob("copy.db*"):
            each.unlink()
        copy.write_bytes(broken)
        result = run(look)
        if isinstance(result, list):
            assert result == rows, f"bit {bit - 8 * begin}"
            assert [list(map(type, row)) for row in result] == [list(map(type, row)) for row in rows]
            counts["harmless"] += 1
        elif isinstance(result, Exception):
            counts["found"] += 1
        else:
            # By the position that stands there now; where that is what was damaged, SQLite's indexes tell the old one.
            named = {each.position for each in result.damages} - {None}
            assert named & {2, 3} or "row 2 missing from index" in str(result), (bit - 8 * begin, result)
            counts["named"] += 1
    assert counts["named"] > 0.9 * 8 * (end - begin) / step, counts


DOUBLED = (
    "INSERT INTO {{t}} SELECT {}, stream, 77, type, schema_version, {{blob}}, recorded_at, effective_at, "
    "correlation_id, causation_id, NULL, actor, subject, data, meta, digest FROM {{t}} WHERE position = 2"
)


@pytest.mark.parametrize(
    ("statements", "positions"),
    [
        (["DELETE FROM {t} WHERE position = 3"], {4}),
        (["DELETE FROM {t} WHERE position IN (2, 3)"], {4}),
        (["UPDATE {t} SET position = 99 WHERE position = 2"], {3, 99}),
        (
            [
                "UPDATE {t} SET position = 99 WHERE position = 2",
                "UPDATE {t} SET position = 2 WHERE position = 3",
                "UPDATE {t} SET position = 3 WHERE position = 99",
            ],
            {2, 3, 4},
        ),
        (
            [
                "UPDATE {t} SET data = '{{\"n\":0}}' WHERE position = 2",
                "UPDATE {t} SET data = '{{\"n\":2}}' WHERE position = 3",
                "UPDATE {t} SET data = '{{\"n\":3}}' WHERE position = 2",
            ],
            {2, 3},
        ),
        (
            [DOUBLED.format(99)],
            {99},
        ),
        (
            [
                "UPDATE {t} SET position = 6 WHERE position = 4",
                "UPDATE {t} SET position = 5 WHERE position = 3",
                DOUBLED.format(3),
            ],
            {3, 5, 6},
        ),
    ],
)
def test_rows_that_were_removed_swapped_or_doubled(shared, statements, positions):
    @run
    async def _():
        async with shared.log() as log:
            await fill(log)
            table = "headgate_events" if shared.kind == "file" else "headgate.events"
            blob = "x'00112233445566778899aabbccddeeff'" if shared.kind == "file" else "'\\x00112233445566778899aabb'"
            if shared.kind == "file":
                by_hand(shared.url).close()
            else:
                await log.store.run(lambda db: db.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            for each in statements:
                sql = each.format(t=table, blob=blob)
                await log.store.run(lambda db, sql=sql: db.execute(sql))
            found = await verify(log)
            assert {each.position for each in found.damages if each.position} <= positions, found
            assert found.damages
            assert found.damages[0].position == min(positions), found


# -- archives ----------------------------------------------------------------------------------------------------------


async def archived(folder, name="log.db", until=2):
    async with EventLog(str(folder / name)) as log:
        await fill(log)
        (made,) = await archive(log, folder / "old", until)
    return Path(made.file)


@pytest.mark.slow
def test_every_bit_and_every_length_of_an_archive(tmp_path):
    file = run(lambda: archived(tmp_path))
    sound, rows = file.read_bytes(), read_file(file)
    found = harmless = 0
    for bit in range(8 * len(sound)):
        broken = bytearray(sound)
        broken[bit // 8] ^= 1 << bit % 8
        file.write_bytes(broken)
        try:
            assert read_file(file) == rows, f"bit {bit}"
            harmless += 1
        except DamagedLogError:
            found += 1
    assert harmless <= 8 * 10, "only those of gzip's own head"
    assert found + harmless == 8 * len(sound)
    for length in range(len(sound)):
        file.write_bytes(sound[:length])
        with pytest.raises(DamagedLogError):
            read_file(file)
    file.write_bytes(sound + b"x")
    with pytest.raises(DamagedLogError):
        read_file(file)


def lines_of(file):
    with gzip.open(file, "rb") as stream:
        return stream.read().splitlines(keepends=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [],
        lambda lines: lines[:1],
        lambda lines: lines[1:],
        lambda lines: lines[:-1],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [lines[0], lines[1], lines[1], *lines[3:]],
        lambda lines: [lines[0], *lines[2:]],
        lambda lines: [lines[0], b"5\n", *lines[2:]],
        lambda lines: [lines[0], b"[]\n", *lines[2:]],
        lambda lines: [lines[0], b"null\n", *lines[2:]],
        lambda lines: [lines[0], b'"text"\n', *lines[2:]],
        lambda lines: [lines[0], b"[" * 100_000 + b"\n", *lines[2:]],
        lambda lines: [lines[0], json.dumps([5] * 16).encode() + b"\n", *lines[2:]],
        lambda lines: [b"[]\n", *lines[1:]],
        lambda lines: [b"\xff\n", *lines[1:]],
        lambda lines: [b"{}\n", *lines[1:]],
        lambda lines: [*lines[:-1], b'{"events": 2}\n'],
        lambda lines: [*lines[:-1], b"[]\n"],
    ],
)
def test_what_is_no_archive_is_told_as_damage(tmp_path, change):
    @run
    async def _():
        file = await archived(tmp_path)
        file.write_bytes(gzip.compress(b"".join(change(lines_of(file)))))
        with pytest.raises(DamagedLogError):
            read_file(file)
        async with EventLog(str(tmp_path / "log.db")) as log:
            found = await verify(log)
            assert [each.position for each in found.damages] == [1]
            assert file.name in str(found.damages[0])
            assert found.events == 2, "what comes after it is looked at"


def test_an_archive_that_was_written_anew_with_a_right_sum_is_found_by_the_chain(tmp_path):
    @run
    async def _():
        file = await archived(tmp_path)
        rows = [list(row) for row in read_file(file)]
        rows[1][11] = "eve"
        from headgate.eventlog.archive import _write  # noqa: PLC0415

        file.unlink()
        _write(file, [tuple(row) for row in rows])
        async with EventLog(str(tmp_path / "log.db")) as log:
            assert [each.position for each in (await verify(log)).damages] == [2]


def test_damage_behind_a_damaged_archive_is_found_too(tmp_path):
    @run
    async def _():
        path = str(tmp_path / "log.db")
        async with EventLog(path) as log:
            for number in range(3000):
                await log.append("s", [Event("t", {"n": number})])
            archives = [(await archive(log, tmp_path, until))[0] for until in (500, 1500, 2000)]
            os.truncate(archives[1].file, 0)
            by_hand(path).execute("UPDATE headgate_events SET actor = 'eve' WHERE position = 2500")
            found = await verify(log)
            assert [each.position for each in found.damages] == [501, 2500], found.damages
            assert found.events == 2000


def test_damage_of_an_archive_that_was_read_before_is_found(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await fill(log)
            (made,) = await archive(log, tmp_path, 2)
            assert len(await log.read().all()) == 4
            os.truncate(made.file, 0)
            assert not (await verify(log)).ok


def test_two_logs_with_one_folder_do_not_overwrite_each_other(tmp_path):
    @run
    async def _():
        await archived(tmp_path, "one.db")
        async with EventLog(str(tmp_path / "one.db")) as one, EventLog(str(tmp_path / "two.db")) as two:
            everything = await one.read().all()
            await fill(two)
            with pytest.raises(EventLogError, match="other contents"):
                await archive(two, tmp_path / "old", 2)
            assert len(await two.store.read(Query(), None, 10)) == 4
            assert await one.read().all() == everything
            await archive(two, tmp_path / "other", 2)
            assert (await verify(one)).ok
            assert (await verify(two)).ok


def test_an_attempt_to_archive_that_went_no_further_than_the_file_is_repeated(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await fill(log)
            transact = log.store.transact

            async def fail(statements):
                raise EventLogError("log", "the process has ended")

            setattr(log.store, "transact", fail)  # noqa: B010
            with pytest.raises(EventLogError):
                await archive(log, tmp_path, 2)
            setattr(log.store, "transact", transact)  # noqa: B010
            assert len(await log.read().all()) == 4
            await archive(log, tmp_path, 2)
            assert len(await log.read().all()) == 4


def test_what_was_undone_and_archived_is_not_undone_again(place, tmp_path):
    @run
    async def _():
        async with place.log() as log:
            for number in range(2):
                await log.append("s", [Event("t", {"n": number})], correlation_id="c")

            def inverse(event):
                return Event("undo", event.plain)

            await reverse(log, 1, inverse=inverse)
            await log.append("s", [Event("t", {"n": 3})], correlation_id="c")
            await archive(log, tmp_path, 3)
            with pytest.raises(ReversalError, match="archived"):
                await reverse(log, 1, inverse=inverse)
            with pytest.raises(ReversalError, match="archived"):
                await reverse(log, 2, inverse=inverse)
            await reverse(log, 4, inverse=inverse)
            assert await log.version("s") == 5


def test_an_event_that_is_appended_again_after_it_was_archived_is_recognised(place, tmp_path):
    def repeated():
        return [Event("t", {}, event_id=uuid.UUID(int=number)) for number in (1, 2)]

    @run
    async def _():
        async with place.log() as log:
            first = await log.append("s", repeated())
            await log.append("s", Event("t", {}))
            await archive(log, tmp_path / "old", 1)  # by halves
            assert await log.append("s", repeated()) == first._replace(duplicates=2)
            await archive(log, tmp_path / "old", 2)
            assert await log.append("s", repeated()) == first._replace(duplicates=2)
            with pytest.raises(EventError, match="in stream 's' at position 1 already"):
                await log.append("other", repeated()[:1])
            mixed = await log.append("s", [*repeated(), Event("t", {})])
            assert (mixed.version, mixed.duplicates) == (4, 2)
            assert [each.version for each in await log.read("s").all()] == [1, 2, 3, 4]
            assert (await verify(log)).ok


def test_a_fork_of_a_log_with_archives_knows_the_ids_too(shared, tmp_path):
    @run
    async def _():
        async with shared.log() as log, shared.log(shared.fresh()) as copy:
            await log.append("s", [Event("t", {}, event_id=uuid.UUID(int=1)), Event("t", {})])
            await archive(log, tmp_path / "old", 1)
            await fork(log, copy)
            assert (await copy.append("s", Event("t", {}, event_id=uuid.UUID(int=1)))).duplicates == 1


@pytest.mark.parametrize("version", [1, 2])
def test_tables_of_an_older_version_are_brought_up(shared, tmp_path, version):
    """Version 1 kept no ids of archived events, version 2 not which streams an archive has."""

    @run
    async def _():
        prefix = "headgate_" if shared.kind == "file" else "headgate."
        before = [f"DROP TABLE {prefix}{each}" for each in ("parked", "archived_in")]
        before += [f"DROP INDEX {prefix}archived_reverses"]
        before.append(f"ALTER TABLE {prefix}archived_ids DROP COLUMN reverses")
        before.append(f"ALTER TABLE {prefix}archives DROP COLUMN discarded_at")
        if version == 1:
            before.append(f"DROP TABLE {prefix}archived_ids")
        before.append(f"UPDATE {prefix}meta SET value = '{version}' WHERE name = 'schema'")
        async with shared.log() as log:
            for number in range(1, 6):
                await log.append(f"s{number % 3}", [Event("t", {}, event_id=uuid.UUID(int=number))])
                if number % 2 == 0:
                    await archive(log, tmp_path / "old", number - 1)
            for sql in before:
                await log.store.run(lambda db, sql=sql: db.execute(sql))
        async with shared.log() as log:
            for stream, positions in {"s0": [3], "s1": [1, 4], "s2": [2, 5]}.items():
                assert [each.position for each in await log.read(stream).all()] == positions
            if version == 2:
                assert [(each.name, each.events, each.version) for each in await log.streams()] == [
                    ("s0", 1, 1),
                    ("s1", 2, 2),
                    ("s2", 2, 2),
                ]
            await archive(log, tmp_path / "old", 4)
            assert (await log.append("s1", Event("t", {}, event_id=uuid.UUID(int=4)))).duplicates == 1
            assert (await verify(log)).ok
