# mypy: disable-error-code="var-annotated,no-untyped-call,arg-type"
"""Whatever is wrong with a call or a file: a typed error that names it, and nothing was put."""

import math
import os
import sqlite3

import pytest

from headgate.connectors.sqlite import SQLiteQueue
from headgate.errors import OptionError, StoreError

PARTS = [
    ("queue", ""),
    ("queue", None),
    ("queue", 5),
    ("queue", "x" * 1001),
    ("queue", "\ud800"),
    ("lease", 0),
    ("lease", -1),
    ("lease", "30"),
    ("lease", math.nan),
    ("lease", True),
    ("max_deliveries", 0),
    ("max_deliveries", 1.5),
    ("ordered", 1),
    ("per_key", 0),
    ("per_key", 2),
    ("fair", None),
    ("poll", 0),
    ("poll", None),
    ("durability", "full"),
    ("durability", None),
    ("keep_done", "yes"),
    ("stop_when_empty", 0),
    ("create", None),
    ("patience", -1),
    ("patience", None),
    ("name", None),
    ("clock", 5),
    ("clock", None),
    ("sleep", "x"),
    ("chance", 1),
    ("encode", 5),
    ("decode", "json"),
]


@pytest.mark.parametrize(("option", "value"), PARTS)
def test_options_of_a_queue(tmp_path, option, value):
    with pytest.raises(OptionError) as error:
        SQLiteQueue(tmp_path / "queue.db", **{option: value})
    assert error.value.option == option
    assert "queue.db" in str(error.value)
    assert not (tmp_path / "queue.db").exists()


@pytest.mark.parametrize("path", [None, 5, "", ":memory:", b"queue.db", os.fspath])
def test_paths(path):
    with pytest.raises(OptionError) as error:
        SQLiteQueue(path)
    assert error.value.option == "path"


def test_a_codec_is_both_or_none(tmp_path):
    with pytest.raises(OptionError, match="'decode'"):
        SQLiteQueue(tmp_path / "queue.db", encode=str)
    with pytest.raises(OptionError, match="'encode'"):
        SQLiteQueue(tmp_path / "queue.db", decode=str)


@pytest.fixture
def queue(tmp_path):
    made = SQLiteQueue(tmp_path / "queue.db")
    made.open()
    yield made
    assert made.counts().left == 0, "nothing was put"
    made.close()


circle = []
circle.append(circle)
deep = []
for _ in range(100_000):
    deep = [deep]


@pytest.mark.parametrize(
    "payload",
    [object(), {1, 2}, math.nan, math.inf, {"a": object()}, {(1, 2): 3}, circle, deep, lambda: 0, 1j],
    ids=lambda payload: type(payload).__name__,
)
def test_payloads_that_json_cannot_say(queue, payload):
    for put in (lambda: queue.put(payload), lambda: queue.put_many([1, payload, 2])):
        with pytest.raises(OptionError) as error:
            put()
        assert error.value.option == "data"
        assert error.value.__cause__ is not None
        assert "\n" not in str(error.value)


MESSAGES = [
    ("key", 1.5),
    ("key", b"k"),
    ("key", True),
    ("key", ("a", 1)),
    ("key", 2**63),
    ("key", -(2**63)),
    ("key", "x" * 1001),
    ("key", "\ud800"),
    ("user", 1.5),
    ("user", []),
    ("user", 2**64),
    ("priority", 1.5),
    ("priority", None),
    ("priority", True),
    ("priority", 2**63),
    ("delay", -1),
    ("delay", "5"),
    ("delay", math.nan),
    ("deadline", "tomorrow"),
    ("deadline", -1),
    ("metadata", [1]),
    ("metadata", {"a": object()}),
    ("metadata", "text"),
]


@pytest.mark.parametrize(("option", "value"), MESSAGES)
def test_options_of_a_message(queue, option, value):
    for put in (lambda: queue.put(1, **{option: value}), lambda: queue.put_many([1, 2], **{option: value})):
        with pytest.raises(OptionError) as error:
            put()
        assert error.value.option == option


@pytest.mark.parametrize("value", [5, b"x", "x" * 1001, "\ud800", object()])
def test_dedupe_keys(queue, value):
    with pytest.raises(OptionError, match="'dedupe'"):
        queue.put(1, dedupe=value)
    with pytest.raises(OptionError, match="'dedupe'"):
        queue.put_many([1], dedupe=lambda _: value)
    if not callable(value):
        with pytest.raises(OptionError, match="'dedupe'"):
            queue.put_many([1], dedupe=value)


def test_an_error_in_a_function_of_the_payload_passes(queue):
    with pytest.raises(KeyError):
        queue.put_many([{}], key=lambda payload: payload["missing"])
    with pytest.raises(OptionError, match="'key'"):
        queue.put_many([1, 2], key=lambda payload: [payload])


def test_what_encode_returns_is_checked(tmp_path):
    queue = SQLiteQueue(tmp_path / "queue.db", encode=lambda data: data, decode=lambda body: body)
    with pytest.raises(OptionError, match="returns a string or bytes"):
        queue.put(5)
    queue.close()


@pytest.mark.parametrize("options", [{"no_such": 1}, {"delay": 1}])
def test_options_of_an_acknowledgement(queue, options):
    with pytest.raises(TypeError):
        queue.configure(None, options)


def test_arguments_of_the_inspection(queue):
    for call in (
        lambda: queue.peek(0),
        lambda: queue.dead_letters(-1),
        lambda: queue.retry_dead(["1"]),
        lambda: queue.retry_dead(delay=-1),
        lambda: queue.delete_dead([True]),
        lambda: queue.purge("leased"),
        lambda: queue.purge("all"),
        lambda: queue.extend(["x"], -1),
        lambda: queue.nack(["x"], math.nan),
    ):
        with pytest.raises(OptionError):
            call()


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "queue.db").write_bytes(b"this is no database, but a text of more than a hundred bytes " * 100)
    with pytest.raises(StoreError, match=r"queue\.db: cannot open: file is not a database; give the path"):
        SQLiteQueue(tmp_path / "queue.db").put(1)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match=r"cannot open: unable to open database file; see that its folder exists"):
        SQLiteQueue(tmp_path / "nowhere" / "queue.db").put(1)


def test_a_file_that_is_not_there_and_must_be(tmp_path):
    queue = SQLiteQueue(tmp_path / "queue.db", create=False)
    for call in (queue.counts, lambda: queue.put(1), queue.open, queue.queues):
        with pytest.raises(StoreError, match="there is no such file"):
            call()
    assert not (tmp_path / "queue.db").exists()


def test_a_queue_that_is_not_there_and_must_be(tmp_path):
    with sqlite3.connect(tmp_path / "queue.db") as db:
        db.execute("CREATE TABLE mine (id)")
    with pytest.raises(StoreError, match="there is no queue in it"):
        SQLiteQueue(tmp_path / "queue.db", create=False).counts()
    assert [name for (name,) in db.execute("SELECT name FROM sqlite_master")] == ["mine"]
    db.close()
    here = SQLiteQueue(tmp_path / "queue.db", queue="here")
    here.setup()
    with pytest.raises(StoreError, match="no queue 'there' in it; these are there: 'here'"):
        SQLiteQueue(tmp_path / "queue.db", queue="there", create=False).counts()
    here.close()


def test_a_damaged_file(tmp_path):
    queue = SQLiteQueue(tmp_path / "queue.db")
    queue.put_many(["x" * 1000] * 100)
    queue.close()
    body = bytearray((tmp_path / "queue.db").read_bytes())
    body[4096:] = b"\xff" * (len(body) - 4096)
    (tmp_path / "queue.db").write_bytes(body)
    queue = SQLiteQueue(tmp_path / "queue.db")
    with pytest.raises(StoreError, match=r"queue\.db: cannot .*malformed; restore it"):
        queue.fetch(5)
    queue.close()


def test_a_full_disk_loses_nothing_that_was_put(tmp_path):
    queue = SQLiteQueue(tmp_path / "queue.db")
    queue.put("first")
    pages = queue._database.connection.execute("PRAGMA page_count").fetchone()[0]
    queue._database.connection.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(StoreError, match="disk is full; make room"):
        for _ in range(1000):
            queue.put_many(["x" * 1000] * 10)
    before = queue.counts().waiting
    with pytest.raises(StoreError, match="disk is full"):
        queue.put("x" * 100_000)
    assert queue.counts().waiting == before
    queue._database.connection.execute("PRAGMA max_page_count = 100000")
    assert queue.put("last") is not None
    assert len(queue.fetch(10_000)) == before + 1
    queue.close()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_may_not_be_written(tmp_path):
    SQLiteQueue(tmp_path / "queue.db").setup()
    (tmp_path / "queue.db").chmod(0o400)
    with pytest.raises(StoreError, match="may be written to"):
        SQLiteQueue(tmp_path / "queue.db").put(1)
