"""`headgate log`: output for people and for programs, accesses, redaction, hostile data."""

import json
import sqlite3

import pytest
from click.testing import CliRunner

from headgate.cli.commands import headgate
from headgate.eventlog import Event, EventLog, Policy, Projection, Types, reverse
from tests.eventlog.conftest import run

CANARY = "canary-7f3a"


def look(*arguments, status=0):
    done = CliRunner().invoke(headgate, ["log", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done


def command(*arguments, status=0):
    done = look(*arguments, status=status)
    return done.stdout if status == 0 else done.output


def documents(*arguments):
    return [json.loads(line) for line in command(*arguments, "--json").splitlines()]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "log.db"
    types = Types()
    types.inverse("added")(lambda event: Event("removed", event.data))

    @run
    async def _():
        async with EventLog(str(file), types=types, clock=lambda: 1_700_000_000.0) as log:
            for number in range(5):
                await log.append("cart-1", [Event("added", {"item": f"i{number}"})], actor="ada", correlation_id="c")
            await log.append("cart-2", [Event("added", {"item": "\x1b[31mred\u009b\u2028[bold]"}, meta={"x": 1})])
            await reverse(log, 2, actor="bob", reason="a mistake")

    return file


def test_streams(path):
    assert "cart-1        6       6" in command("ls", path)
    assert [each["name"] for each in documents("ls", path)] == ["cart-1", "cart-2"]
    assert [each["name"] for each in documents("ls", path, "cart-2")] == ["cart-2"]


def test_events(path):
    assert [each["position"] for each in documents("show", path)] == [1, 2, 3, 4, 5, 6, 7]
    assert [each["position"] for each in documents("show", path, "cart-1", "--backwards", "--limit", 2)] == [7, 5]
    assert [each["position"] for each in documents("show", path, "--type", "removed")] == [7]
    assert [each["position"] for each in documents("show", path, "--correlation", "c", "--start", 3)] == [3, 4, 5]
    assert [each["position"] for each in documents("show", path, "--until", "2020-01-01")] == []
    (one,) = documents("show", path, "2")
    assert (one["undone_by"], one["actor"], one["data"]) == (7, "ada", {"item": "i1"})
    assert "undone by  position 7" in command("show", path, "2")
    assert [each["position"] for each in documents("tail", path, "-n", 2)] == [6, 7]
    assert [each["position"] for each in documents("grep", path, "i[34]")] == [4, 5]
    assert [each["position"] for each in documents("grep", path, "A MISTAKE", "-i")] == [7]
    assert "grep" not in command("grep", path, "nothing")


def test_what_comes_from_events_does_nothing_to_a_terminal(path):
    for arguments in (["show", path], ["show", path, "6"], ["why", path, "cart-2"], ["grep", path, "red"]):
        text = command(*arguments)
        assert not any(letter in text for letter in "\x1b\u009b\u2028")
        assert "[bold]" in text


def test_states(path):
    (now,) = documents("state", path, "cart-1")
    assert (now["state"]["(last event)"], now["position"], now["version"]) == ("removed", 7, 6)
    (then,) = documents("state", path, "cart-1", "--at", 3)
    assert then["state"]["item"] == "i2"
    assert documents("state", path, "nobody")[0]["state"] is None
    assert "nobody: nothing" in command("state", path, "nobody")
    steps = documents("why", path, "cart-1")
    assert [each["undone_by"] for each in steps] == [None, 7, None, None, None, None]
    assert steps[-1]["undoes"] == 2
    assert steps[1]["changes"] == [{"path": "item", "before": "i0", "after": "i1"}]
    assert "undone by 7" in command("why", path, "cart-1", "--field", "item")
    (fields,) = documents("diff", path, "cart-1", "--from", 1, "--to", 5)
    assert fields["fields"] == [{"path": "item", "before": "i0", "after": "i4"}]


def test_a_field_is_told_by_its_path(tmp_path):
    file = tmp_path / "log.db"

    @run
    async def _():
        async with EventLog(str(file)) as log:
            for address in ({"city": "Bern", "street": "A"}, {"city": "Bern", "street": "B"}, {"city": "Basel"}):
                await log.append("7", [Event("moved", {"address": address, "addresses": 1})])

    def changed(field):
        return [each["position"] for each in documents("why", file, "7", "--field", field)]

    assert changed("address") == [1, 2, 3]
    assert changed("address.city") == [1, 3]
    assert changed("addresses") == [1]
    assert changed("addr") == []
    assert [each["version"] for each in documents("show", file, "--stream", "7")] == [1, 2, 3]


def test_every_access_is_written_down_and_stays(path):
    command("show", path, "cart-1", "--actor", "eve", "--reason", "ticket 5")
    command("export", path, "--unredacted")
    command("verify", path)
    found = documents("access", path)
    assert [(each["command"], each["reason"]) for each in found][:4] == [
        ("access", None),
        ("verify", None),
        ("export", None),
        ("show", "ticket 5"),
    ]
    assert (found[3]["actor"], found[3]["details"]["what"]) == ("eve", "cart-1")
    db = sqlite3.connect(path)
    for sql in ("DELETE FROM headgate_accesses", "UPDATE headgate_accesses SET actor = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="stays written"):
            db.execute(sql)
    db.close()


def test_looking_changes_no_event_and_makes_no_log(path, tmp_path):
    before = documents("show", path)
    for arguments in (["ls"], ["tail"], ["verify"], ["why", "cart-1"], ["grep", "x"]):
        command(arguments[0], path, *arguments[1:])
    assert documents("show", path) == before
    assert "no file" in command("ls", tmp_path / "other.db", status=2)
    assert not (tmp_path / "other.db").exists()
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE x (y)")
    other.close()
    assert "no event log in it" in command("ls", tmp_path / "other.db", status=2)


def test_exports_and_forks_are_redacted(tmp_path, monkeypatch):
    module = tmp_path / "shop.py"
    module.write_text(
        "from headgate.eventlog import EventLog, Policy\n"
        "policy = Policy({'name': 'mask', '@actor': 'redact'})\n"
        "log = EventLog('log.db', policy=policy)\n"
    )
    monkeypatch.chdir(tmp_path)

    @run
    async def _():
        async with EventLog("log.db") as log:
            await log.append("a", [Event("joined", {"name": CANARY, "n": n}) for n in range(3)], actor=CANARY)

    assert CANARY not in command("export", "shop:log")
    command("export", "shop:log", "--out", "out.jsonl")
    assert CANARY not in (tmp_path / "out.jsonl").read_text()
    assert CANARY in command("export", "log.db", "--unredacted")
    assert CANARY not in command("export", "log.db", "--policy", "shop:policy")
    command("fork", "shop:log", "new.db")
    assert CANARY.encode() not in (tmp_path / "new.db").read_bytes()
    assert [each["data"]["n"] for each in documents("show", "new.db")] == [0, 1, 2]
    command("fork", "shop:log", "part.db", "--until", "2", "--unredacted", "--json")
    assert [each["data"]["name"] for each in documents("show", "part.db")] == [CANARY] * 2


def test_replays_are_compared_with_stored_states(tmp_path, monkeypatch):
    (tmp_path / "shapes.py").write_text(
        "from headgate.eventlog import EventLog, Projection\n"
        "def sum_(state, event): return {'n': state.get('n', 0) + event.plain['n']}\n"
        "def twice(state, event): return {'n': state.get('n', 0) + 2 * event.plain['n']}\n"
        "new = Projection('sums', twice, logic='2')\n"
        "log = EventLog('log.db', projections=[Projection('sums', sum_), Projection('other', sum_)])\n"
    )
    monkeypatch.chdir(tmp_path)

    def sums(state, event):
        return {"n": state.get("n", 0) + event.plain["n"]}

    @run
    async def _():
        async with EventLog("log.db") as log:
            await log.append_all([("a", [Event("x", {"n": 1})]), ("b", [Event("x", {"n": 0})])])
            await log.projector(Projection("sums", sums)).catch_up()

    (found,) = documents("diff", "shapes:log", "--projection", "shapes:new")
    assert (found["entity"], found["before"], found["after"]) == ("a", {"n": 1}, {"n": 2})
    assert "1 of 2 entities differ" in command("diff", "shapes:log", "--projection", "shapes:new")
    assert "several projections" in command("state", "shapes:log", "a", status=2)
    assert "no projection 'none'" in command("state", "shapes:log", "a", "--projection", "none", status=2)


def test_a_damaged_log_gives_status_one(path):
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER headgate_events_no_update")
    db.execute("UPDATE headgate_events SET actor = 'eve' WHERE position = 3")
    db.commit()
    db.close()
    assert "position 3" in command("verify", path, status=1)
    assert json.loads(command("verify", path, "--json", status=1))["damages"][0]["position"] == 3


def test_a_policy_needs_no_key_to_be_safe():
    assert Policy({"n": "mask"}).data("x", {"n": "abc"}) != Policy({"n": "mask"}).data("x", {"n": "abc"})
