"""`headgate log` with what it cannot take: one line on standard error, status 2, and never a traceback."""

import errno
import os
import subprocess
import sys
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from headgate.cli import main
from headgate.cli.commands import headgate
from headgate.eventlog import Event, EventLog
from tests.eventlog.conftest import run

HUGE = "9" * 20
ENDLESS = "9" * 5000  # Python refuses to read so many digits
BYTES = os.fsdecode(b"\xff")  # an argument that is not UTF-8 comes as this
SUM = "0" * 32


@pytest.fixture
def path(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")) as log:
            await log.append("s", [Event("e", {"n": number}) for number in range(20)])

    return str(tmp_path / "log.db")


REFUSED = [
    *(["show", "LOG", each] for each in (HUGE, ENDLESS, BYTES)),
    *(["show", "LOG", "--start", each] for each in (HUGE, ENDLESS, "²", "0000-00-00")),
    *(["show", "LOG", "--until", each] for each in (HUGE, ENDLESS, "²", "0000-00-00")),
    *(["show", "LOG", option, BYTES] for option in ("--correlation", "--type", "--stream", "--actor", "--reason")),
    *([command, "LOG", BYTES] for command in ("ls", "show", "state", "why", "tail")),
    *(["ls", "LOG", "--limit", each] for each in (HUGE, ENDLESS, "0")),
    *(["access", "LOG", "--limit", each] for each in (HUGE, ENDLESS)),
    *(["tail", "LOG", "-n", each] for each in (HUGE, ENDLESS, "-1")),
    *(["verify", "LOG", "--anchor", each] for each in (f"{ENDLESS}:{SUM}", f"²:{SUM}", "5:zz")),
    *(["state", "LOG", "s", "--at", each] for each in (HUGE, "yesterday")),
    *(["fork", "LOG", each, "--unredacted"] for each in ("sqlite://new.db", "mysql://h/db", "postgresql://h:abc/db")),
    ["ls", "postgresql://ada:secret@h:abc/db"],
    ["ls", BYTES],
]


@pytest.mark.parametrize("arguments", REFUSED, ids=lambda each: " ".join(each)[:40].encode("unicode_escape").decode())
def test_what_cannot_be_taken_is_said_in_one_line(path, arguments):
    found = CliRunner().invoke(headgate, ["log", *(path if each == "LOG" else each for each in arguments)])
    assert isinstance(found.exception, SystemExit), found.exception
    assert (found.exit_code, found.stdout) == (2, "")
    lines = [each for each in found.stderr.splitlines() if "no projection is known here" not in each]
    assert len(lines) == (4 if lines[0].startswith("Usage: ") else 1)  # click's has the usage above it
    assert lines[-1].startswith(("headgate: ", "Error: "))
    assert "secret" not in found.stderr


@pytest.mark.parametrize("at", ["0001-01-01", "0001-01-01T00:00+14:00", "9999-12-31", "9999-12-31T23:59:59-14:00"])
def test_the_first_and_the_last_time_of_all_are_times(path, at):
    for option in ("--start", "--until"):
        found = CliRunner().invoke(headgate, ["log", "show", path, option, at, "--json"], catch_exceptions=False)
        within = (option == "--start") is at.startswith("0001")
        assert len(found.stdout.splitlines()) == (20 if within else 0)


def shell(command, **environment):
    """Run a command as a shell does; `$headgate` is ours."""
    given = {**os.environ, "headgate": f"{sys.executable} -m headgate", **environment}
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False, env=given)


COMMANDS = ["ls", "show", "show --json", "export --unredacted", "verify"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("where", [pytest.param("> /dev/full", id="full"), pytest.param(">&-", id="closed")])
def test_an_output_that_takes_nothing_is_named(path, command, where):
    name, _, options = command.partition(" ")
    found = shell(f"$headgate log {name} '{path}' {options} {where}")
    assert (found.returncode, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    assert line.startswith("headgate: ")
    assert "space left" in line or "standard output" in line


@pytest.mark.parametrize("arguments", ["--help", "--version", "run --help", "log --help", "log show --help"])
def test_help_that_cannot_be_written_is_one_line_and_status_two(arguments):
    found = shell(f"$headgate {arguments} > /dev/full")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert found.stderr.startswith("headgate: ")
    assert "space left" in found.stderr


def test_an_error_of_what_a_command_runs_is_not_taken_for_that(monkeypatch):
    monkeypatch.setattr("headgate.cli.commands.headgate", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        main()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_gone_is_no_error_to_tell_of(path, command):
    """The pipe has no reader from the beginning, so that every write of it fails."""
    name, _, options = command.partition(" ")
    reader, writer = os.pipe()
    os.close(reader)
    arguments = [sys.executable, "-m", "headgate", "log", name, path, *options.split()]
    found = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writer)
    assert (found.returncode, found.stderr) == (1, b"")


@pytest.mark.parametrize("columns", ["0", "1", "x"])
def test_a_terminal_of_any_width_shows_something(path, columns):
    found = shell(f"$headgate log show '{path}'", COLUMNS=columns)
    assert len(found.stdout.splitlines()) == 20
