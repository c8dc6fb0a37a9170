"""`headgate log` in the hands of somebody who does not know it: misspelt names, other forms of times, half a target."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from datetime import datetime
from pathlib import Path

import pytest

from headgate.cli.log_target import TargetError, parse_anchor, parse_at, who
from headgate.eventlog import Event, EventLog, Types, reverse
from tests.eventlog.conftest import run
from tests.eventlog.test_cli import command, documents, look

ROOT = Path(__file__).parents[2]
DAY = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
EXTENT = "the log goes from position 1, 2023-11-14 22:13:20Z, to 6, 2023-11-14 22:13:20Z"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "log.db"
    types = Types()
    types.inverse("added")(lambda event: Event("removed", event.data))

    @run
    async def _():
        async with EventLog(str(file), types=types, clock=lambda: DAY) as log:
            await log.append(
                "cart-1", [Event("added", {"item": "apple", "n": 1}), Event("added", {"n": 2})], actor="ada"
            )
            await log.append("cart-2", [Event("added", {"item": "pear"})])
            await log.append("cart-1", [Event("sent", {"to": "Kiel"}), Event("sent", {"n": 3})], reason="ticket 4711")
            await reverse(log, 2, actor="bob")

    return file


SHOP = """
from dataclasses import dataclass
from headgate.eventlog import EventLog, Projection, Types

types = Types()

@types.add
@dataclass
class Added:
    n: int

def apply(state, event):
    if isinstance(event.data, Added):
        state["n"] = state.get("n", 0) + event.data.n
        state[f"at {event.version}"] = event.data.n
    return state

sums = Projection("sums", apply)
log = EventLog("log.db", types=types, projections=[sums])
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A module of its own name for each test, since Python keeps modules."""
    name = f"shop_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    @run
    async def _():
        async with EventLog("log.db") as log:
            await log.append("a", [Event("Added", {"n": n}) for n in (1, 2, 3)])
            await log.append("b", [Event("Added", {"n": 5})])

    return name


# -- nothing was found ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["show", "card-1"], "there is no stream 'card-1'; like it: cart-1\n"),
        (["tail", "card-1"], "there is no stream 'card-1'; like it: cart-1\n"),
        (["why", "card-1"], "there is no stream 'card-1'; like it: cart-1\n"),
        (["export", "--stream", "card-1", "--unredacted"], "there is no stream 'card-1'; like it: cart-1\n"),
        (["show", "x"], "there is no stream 'x'\n"),
        (["ls", "basket"], "no stream begins with 'basket'"),
        (["show", "basket*"], "no stream begins with 'basket'"),
        (["show", "cart-1", "--start", "2030-01-01"], f"no such events; {EXTENT}"),
        (["show", "--type", "moved"], f"no such events; {EXTENT}"),
        (["grep", "nothing"], f"no such events; {EXTENT}"),
        (["why", "cart-2", "--at", "2"], "the first event of 'cart-2' is at position 3, 2023-11-14 22:13:20Z"),
    ],
)
def test_a_look_that_finds_nothing_says_why_and_shows_nothing(path, arguments, said):
    for more in ([], ["--json"]):
        done = look(arguments[0], path, *arguments[1:], *more)
        assert done.stdout == ""
        assert said in done.stderr
        assert done.stderr.startswith("headgate: ")


def test_what_is_found_is_shown_without_a_remark(path):
    for arguments in (["show", "cart-1"], ["ls"], ["ls", "cart-*"], ["tail"], ["grep", "apple"], ["access"]):
        done = look(arguments[0], path, *arguments[1:])
        assert done.stdout
        assert done.stderr == ""
    assert [each["name"] for each in documents("ls", path, "cart-*")] == ["cart-1", "cart-2"]


def test_an_empty_log_says_that_it_is(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "log.db")):
            pass

    assert look("ls", tmp_path / "log.db").stderr == "headgate: the log is empty\n"


def test_an_event_that_is_not_there_and_a_state_that_is_not(path):
    assert f"there is no event at position 7; {EXTENT}" in command("show", path, "7", status=2)
    done = look("state", path, "cart-2", "--at", "2")
    assert done.stdout == "cart-2: nothing\n"
    assert "the first event of 'cart-2' is at position 3" in done.stderr
    assert "there is no stream 'nobody'" in look("diff", path, "nobody").stderr


def test_a_type_that_the_program_does_not_know_is_named(shop):
    assert "no type 'added' is known; like it: Added" in look("show", f"{shop}:log", "--type", "added").stderr


# -- how much is shown ------------------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "many.db")) as log:
            await log.append("s", [Event("x", {"n": n}) for n in range(101)])

    return tmp_path / "many.db"


@pytest.mark.parametrize("arguments", [["show"], ["show", "s"], ["grep", "n"]])
def test_that_there_is_more_is_said_unless_so_many_were_asked_for(many, arguments):
    for more in ([], ["--json"]):
        done = look(arguments[0], many, *arguments[1:], *more)
        assert len(done.stdout.splitlines()) == 100
        assert done.stderr == "headgate: there is more than these 100; see --limit\n"
        for limit in (100, 101, 500):
            done = look(arguments[0], many, *arguments[1:], *more, "--limit", limit)
            assert len(done.stdout.splitlines()) == min(limit, 101)
            assert done.stderr == ""


# -- what undoes what -------------------------------------------------------------------------------------------------


def test_a_line_says_what_an_event_undoes_and_what_has_undone_it(path):
    lines = command("show", path, "cart-1").splitlines()
    assert [line.split("  ")[-1] for line in lines if "undo" in line] == ["undone by 6", "undoes 2"]
    assert "undoes 2" in command("tail", path, "-n", 1), "also when that event is not in sight"
    (one,) = documents("show", path, "6")
    assert one["undoes"] == 2
    assert "undoes  position 2" in command("show", path, "6")


def test_what_was_left_out_of_a_fork_is_another(path, tmp_path):
    command("fork", path, tmp_path / "part.db", "--start", 3, "--unredacted")
    assert "undoes another" in command("show", tmp_path / "part.db", "cart-1")
    assert "undoes" not in documents("show", tmp_path / "part.db", "6")[0]


# -- why, state and diff ----------------------------------------------------------------------------------------------


def test_why_of_a_field_says_how_many_of_how_many_and_ends_with_the_state_of_all(path):
    text = command("why", path, "cart-1", "--field", "to")
    assert text.startswith("cart-1: 1 of 5 events\n")
    assert '"n": 2' in text.partition("cart-1 = ")[2], "the state that it is in, not that after the last event shown"
    assert command("why", path, "cart-1").startswith("cart-1: 5 events\n")


def test_what_was_not_there_is_marked_for_people_and_left_out_for_programs(path):
    assert '+ item: "apple"' in command("diff", path, "cart-1")
    assert "  n: 1 -> 2" in command("why", path, "cart-1")
    (change, *_), *_ = [each["changes"] for each in documents("why", path, "cart-1")]
    assert change == {"path": "(last event)", "after": "added"}
    (found,) = documents("diff", path, "cart-1")
    assert {"path": "item", "after": "apple"} in found["fields"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a", "--against", "SHOP:sums"], "leave ENTITY out"),
        (["a", "--start", "2"], "leave ENTITY out"),
        (["--from", "2"], "--from is for one ENTITY"),
        (["--start", "2"], "--start and --to need --against"),
        (["--to", "2"], "--start and --to need --against"),
        ([], "no states of the projection 'sums' are stored"),
    ],
)
def test_options_of_diff_that_would_be_passed_over_are_refused(shop, arguments, said):
    given = [each.replace("SHOP", shop) for each in arguments]
    assert said in command("diff", f"{shop}:log", *given, status=2)


def test_a_file_alone_says_what_it_does_not_know(shop):
    assert "no projection is known here" in look("state", "log.db", "a").stderr
    done = look("state", "log.db", "a", "--projection", f"{shop}:sums")
    assert done.stdout == "a = {}\n", "no event is what the projection takes it for"
    assert "the types of this log are not known here" in done.stderr
    done = look("state", f"{shop}:log", "a")
    assert '"n": 6' in done.stdout
    assert done.stderr == ""


def test_nothing_leaves_a_file_of_which_nothing_is_known(shop):
    for arguments in (["export", "log.db"], ["export", "log.db", "--out", "out"], ["fork", "log.db", "new.db"]):
        assert "nothing says what of log.db may be seen" in command(*arguments, status=2)
    assert not Path("new.db").exists()
    assert not Path("out").exists()
    assert len(documents("export", "log.db", "--unredacted")) == 4
    assert len(documents("export", f"{shop}:log")) == 4, "its types say that nothing is personal"


# -- grep -------------------------------------------------------------------------------------------------------------


def test_grep_looks_into_each_field_and_finds_no_pieces_of_ids(path):
    def found(*arguments):
        return [each["position"] for each in documents("grep", path, *arguments)]

    assert found("^sent$") == [4, 5]
    assert found("^ada") == [1, 2]
    assert found("4711") == [4, 5]
    assert found("cart-2") == [3]
    assert found('"n": 3') == [5]
    identity = documents("show", path, "2")[0]["event_id"]
    assert found(identity) == [2, 6], "itself, and what undoes it"
    assert found(identity[:8]) == [each["position"] for each in documents("show", path) if _has(each, identity[:8])]
    assert found(identity[9:]) == []
    assert found(identity[:7]) == []


def _has(event, beginning):
    return any(event.get(name, "").startswith(beginning) for name in ("event_id", "reverses", "causation_id"))


# -- places, targets and names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("7", 7, 7),
        ("20231114", 20231114, 20231114),
        ("2023-11-14", "2023-11-14T00:00:00+00:00", "2023-11-14T23:59:59.999999+00:00"),
        ("2023-11-14T12:00", "2023-11-14T12:00:00+00:00", "2023-11-14T12:00:00+00:00"),
        ("2023-11-14 12:00Z", "2023-11-14T12:00:00+00:00", "2023-11-14T12:00:00+00:00"),
        ("2023-11-14T12:00+02:00", "2023-11-14T12:00:00+02:00", "2023-11-14T12:00:00+02:00"),
        ("9999-12-31", "9998-12-31T00:00:00+00:00", "9998-12-31T23:59:59.999999+00:00"),
        ("0001-01-01", "0002-01-01T00:00:00+00:00", "0002-01-01T23:59:59.999999+00:00"),
    ],
)
def test_a_day_counts_from_its_beginning_or_to_its_end(text, start, end):
    for found, expected in ((parse_at(text), start), (parse_at(text, end=True), end)):
        assert (found.isoformat() if isinstance(found, datetime) else found) == expected


@pytest.mark.parametrize("text", ["noon", "09:00", "14.11.2023", "2023-1-5", "-5", "", "²", "9" * 19])
def test_what_is_no_place_is_refused_with_examples(path, text):
    with pytest.raises(TargetError, match=r"a position, or a time such as .*, or a day such as"):
        parse_at(text)
    assert "expected a position" in command("show", path, "--start", text, status=2)


def test_a_day_is_all_of_it(path):
    for start, until, count in (("14", "14", 6), ("13", "13", 0), ("15", "15", 0), ("13", "14", 6), ("14", "15", 6)):
        part = ["--start", f"2023-11-{start}", "--until", f"2023-11-{until}"]
        assert len(documents("show", path, *part)) == count
    assert documents("state", path, "cart-2", "--at", "2023-11-14")[0]["state"]["item"] == "pear"
    assert documents("diff", path, "cart-2", "--from", "2023-11-14", "--to", "2023-11-14")[0]["fields"]
    for far in ("0001-01-01", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"):
        look("show", path, "--start", far, "--until", far)


def test_an_anchor_is_as_it_was_printed_or_no_anchor(path):
    printed = command("verify", path).splitlines()[-1]
    assert printed.startswith("anchor: 6:")
    command("verify", path, "--anchor", printed)
    command("verify", path, "--anchor", printed.removeprefix("anchor: "))
    command("verify", path, "--anchor", f"6:{'0' * 32}", status=1)
    for wrong in ("6:00", printed[8:-1], printed[8:] + "0", f"-6:{'0' * 32}", "0" * 32, "6"):
        with pytest.raises(TargetError, match="as it was printed"):
            parse_anchor(wrong)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("SHOP", "there is no file 'SHOP'; LOG is a file, postgresql://..., or MODULE:NAME"),
        ("SHOP.py", "expected a log, not a program"),
        ("SHOP.py:log", "expected a module, not a file: SHOP:log"),
        ("SHOP:logs", "module 'SHOP' has no 'logs'; did you mean 'log'?"),
        ("SHOP:books", "module 'SHOP' has no 'books'; it has 'log'"),
        ("SHOP:sums", "SHOP:sums is no EventLog, but Projection"),
        ("SHOP_:log", "there is no module 'SHOP_'"),
    ],
)
def test_a_target_that_leads_nowhere_says_where_it_might(shop, target, said):
    if target == "SHOP.py:log":
        Path(f"{shop}.py:log").unlink(missing_ok=True)
    text = command("ls", target.replace("SHOP", shop), status=2)
    assert said.replace("SHOP", shop) in text
    assert "Traceback" not in text


def test_what_a_module_has_raised_is_shown(tmp_path, monkeypatch):
    (tmp_path / "shop_broken.py").write_text("import os\nurl = os.environ['NO_SUCH_VARIABLE']\n")
    monkeypatch.chdir(tmp_path)
    text = command("ls", "shop_broken:log", status=2)
    assert "url = os.environ['NO_SUCH_VARIABLE']" in text
    assert text.splitlines()[-1] == "headgate: module 'shop_broken' cannot be imported: KeyError: 'NO_SUCH_VARIABLE'"


def test_who_looks_has_a_name_without_an_environment(monkeypatch):
    import pwd  # noqa: PLC0415 (not on Windows)

    for name in ("HEADGATE_ACTOR", "SUDO_USER", "LOGNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    assert who() == pwd.getpwuid(os.getuid()).pw_name


# -- terminals and pipes ----------------------------------------------------------------------------------------------


def started(*arguments, **options):
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.Popen(
        [sys.executable, "-m", "headgate", "log", *map(str, arguments)],
        env={**environment, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm-256color"},
        **options,
    )


def terminal(columns, *arguments):
    """What a command writes to a terminal of so many columns, its codes for colours included."""
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    with started(*arguments, stdin=subprocess.DEVNULL, stdout=its, stderr=its) as process:
        os.close(its)
        written = b""
        try:
            while some := os.read(ours, 65536):
                written += some
        except OSError:  # so a terminal ends whose last writer has gone
            pass
        assert process.wait(60) == 0, written
    os.close(ours)
    return written.decode().replace("\r\n", "\n")


def bare(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def wide(tmp_path):
    @run
    async def _():
        async with EventLog(str(tmp_path / "wide.db"), clock=lambda: DAY) as log:
            await log.append("account-1", [Event("opened", {"owner": "Ada", "city": "Kiel", "street": "Holtenauer 1"})])
            await log.append("account-1", [Event("moved", {"word": "x" * 150})], actor="the branch office")
            await log.append("account-" + "9" * 100, [Event("opened", {"\u6771\u4eac": "\u6771\u4eac" * 20})])

    return tmp_path / "wide.db"


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_in_a_terminal_nothing_is_cut_and_what_does_not_fit_goes_on_below(wide, columns):
    def squeezed(text):
        return re.sub(r"\s", "", bare(text))

    for arguments in (["show", wide], ["ls", wide], ["why", wide, "account-1"], ["show", wide, "2"]):
        shown = terminal(columns, *arguments)
        done = started(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = (each.decode() for each in done.communicate(timeout=60))
        assert squeezed(shown) == squeezed(err + out)
        assert "\x1b" not in out
    lines = bare(terminal(columns, "show", wide)).splitlines()
    assert max(map(len, lines)) <= columns
    heads = [line for line in lines if re.match(r" {5}\d  2023", line)]
    assert len(heads) == 3
    assert all(line.startswith(" " * 8) for line in lines if line not in heads)
    assert sum("by the branch office" in line for line in lines) == 1, "it stays together"


@pytest.mark.slow
def test_colours_end_where_they_should(wide):
    """What is dim, bold or red in a line does not make the rest of it so."""
    shown = terminal(200, "show", wide)
    assert re.search(r"\x1b\[1mopened\x1b\[0m +{\"owner\"", shown), "data are as bright as can be"
    assert "\x1b[2m  by the branch office\x1b[0m" in shown
    assert re.search(r"\x1b\[1;32msound\x1b\[0m: 3 events", terminal(200, "verify", wide))
    assert re.search(r"\+ owner: \x1b\[32m\"Ada\"\x1b\[0m", terminal(200, "why", wide, "account-1"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["show"], ["export", "--unredacted"]])
def test_an_output_that_cannot_be_written_is_one_line_and_status_two(many, arguments):
    with Path("/dev/full").open("wb") as full:
        process = started(arguments[0], many, *arguments[1:], stdout=full, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.decode().count("\n") == 1
    assert b"No space left" in err
