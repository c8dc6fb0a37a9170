# mypy: disable-error-code="var-annotated,no-untyped-call"
"""``headgate queue``."""

import json

import pytest
from click.testing import CliRunner

from headgate.cli.commands import headgate
from headgate.connectors.sqlite import SQLiteQueue
from tests.running.helpers import ended


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "queue.db")


@pytest.fixture
def command(file):
    def run(*args, status=0, **options):
        result = CliRunner().invoke(headgate, ["queue", args[0], file, *map(str, args[1:])], **options)
        assert result.exit_code == status, result.output
        if status:
            assert result.stderr.startswith(("headgate: ", "Usage: "))
        return result.stdout if not status else result.stderr

    return run


@pytest.fixture
def queue(file):
    made = SQLiteQueue(file, keep_done=True)
    made.open()
    yield made
    made.close()


def failed(message, text="boom"):
    try:
        raise RuntimeError(text)
    except RuntimeError as error:
        return message.fail(error)


def test_put_and_show_and_ls(command, queue):
    assert command("put", '{"a": 1}', "[2]", "--key", "k", "--user", "u", "--priority", "3") == "1\n2\n"
    assert command("put", "as it stands", "--text", "--delay", "60") == "3\n"
    assert command("put", input='"from"\n\n"stdin"\n') == "4\n5\n"
    assert command("put", "1", "--dedupe", "d") == "6\n"
    assert command("put", "1", "--dedupe", "d") == "-\n"
    lines = command("show", "-n", "3").splitlines()
    assert lines[0].split() == ["id", "priority", "deliveries", "key", "user", "put", "data"]
    assert lines[1].split()[:5] == ["1", "3", "0", "k", "u"]
    assert [json.loads(line)["data"] for line in command("show", "--json").splitlines()] == [
        {"a": 1},
        [2],
        "from",
        "stdin",
        1,
    ]
    assert 'data:      "as it stands"' in command("show", 3)
    assert [line.split() for line in command("ls").splitlines()] == [
        ["queue", "waiting", "delayed", "leased", "expired", "dead", "done"],
        ["default", "5", "1", "0", "0", "0", "0"],
    ]
    assert json.loads(command("ls", "--json"))["waiting"] == 5
    assert queue.fetch(1)[0].metadata == {"user": "u"}


def test_dead_letters_show_their_traceback_and_go_back(command, queue):
    queue.put_many(range(3), key="k")
    assert command("dead") == "no dead letters\n"
    queue.dead_letter([failed(message) for message in queue.fetch(2)])
    out = command("dead")
    assert out.count("Traceback (most recent call last):") == 2
    assert "message 1: dead, handed out 1 time(s), put " in out
    assert "reason:    RuntimeError: boom" in out
    assert len(command("dead", "--short").splitlines()) == 3
    letters = [json.loads(line) for line in command("dead", "--json", "--after", "1").splitlines()]
    assert [(letter["id"], letter["data"], letter["reason"]) for letter in letters] == [(2, 1, "RuntimeError: boom")]
    assert "raise RuntimeError" in letters[0]["traceback"]
    assert command("retry", "1") == "1 sent back\n"
    assert "1 are no dead letters" in command("retry", "2", "99", status=1)
    assert command("retry", "--all") == "0 sent back\n"
    assert sorted(message.data for message in queue.fetch(9)) == [0, 1, 2]


def test_what_a_terminal_would_obey_is_shown(command, queue):
    queue.put("\x1b[31mred\n\u2028", key="\x1b]0;title\x07")
    queue.dead_letter([failed(queue.fetch(1)[0], "\x1b[2J\nsecond")])
    for out in (command("dead"), command("dead", "--short"), command("show", 1), command("dead", "--json")):
        assert "\x1b" not in out
        assert "\u2028" not in out
    assert "\\x1b[2J" in command("dead")


def test_bytes(command, queue):
    queue.put(b"\x00\xff")
    assert json.loads(command("show", "--json"))["data"] == {"base64": "AP8="}
    assert r"b'\x00\xff'" in command("show")


def test_purge(command, queue):
    queue.put_many(range(4))
    queue.put(9, delay=60)
    queue.ack(queue.fetch(1))
    queue.dead_letter([failed(message) for message in queue.fetch(1)])
    assert command("purge") == "1 deleted\n"
    assert command("purge", "--dead", "--older-than", "3600", "--yes") == "0 deleted\n"
    assert "Aborted" in CliRunner().invoke(headgate, ["queue", "purge", queue.path, "--waiting"], input="n\n").output
    assert command("purge", "--dead", "--waiting", "--delayed", input="y\n").endswith("4 deleted\n")
    assert queue.counts().left == 0


def test_what_is_wrong_is_said_in_one_line(command, queue, file, tmp_path):
    assert "message 1 is no JSON" in command("put", "{", status=2)
    assert "--dedupe is for one message" in command("put", "1", "2", "--dedupe", "d", status=2)
    assert "give the ids of dead letters, or --all" in command("retry", status=2)
    assert "queue 'default' has no message 7" in command("show", "7", status=1)
    assert "there is no queue 'x' in it; these are there: 'default'" in command("dead", "-q", "x", status=1)
    missing = CliRunner().invoke(headgate, ["queue", "ls", str(tmp_path / "none.db")])
    assert missing.exit_code == 1
    assert (
        missing.stderr
        == f"headgate: {tmp_path / 'none.db'}: cannot open: there is no such file; see that the path is right\n"
    )
    assert not (tmp_path / "none.db").exists()
    assert CliRunner().invoke(headgate, ["queue", "put", str(tmp_path / "none.db"), "1", "--create"]).stdout == "1\n"


@pytest.mark.slow
def test_as_a_program(tmp_path):
    file = str(tmp_path / "queue.db")
    code, out, err = ended("-m", "headgate", "queue", "put", file, "1", "--create")
    assert (code, out, err) == (0, "1\n", "")
