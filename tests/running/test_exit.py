"""`headgate.run` as a process: it ends in order, in time, and says by its exit status what happened."""

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

import headgate
from headgate import Child, OptionError, RunError, Supervisor, System, from_iterable
from tests.running import apps
from tests.running.helpers import Program, app, ended, poll

pytestmark = pytest.mark.slow
TERM, INT = signal.SIGTERM, signal.SIGINT
LIMIT = 6.0
"""Seconds in which a process that was told twice has to be gone."""


def test_a_finite_app_ends_by_itself_with_status_0():
    with app("finite") as program:
        assert program.end() == 0
        assert "'finite' starts" in program.err
        assert "done after" in program.err


def test_run_returns_and_leaves_the_signals_as_they_were():
    before = [signal.getsignal(each) for each in (TERM, INT, signal.SIGUSR1)]
    headgate.run(apps.finite, log_level=None)
    assert [signal.getsignal(each) for each in (TERM, INT, signal.SIGUSR1)] == before
    headgate.run(apps.finite, log_level=None)  # and can be used again


@pytest.mark.parametrize("number", [TERM, INT])
def test_a_first_signal_finishes_what_was_begun(number):
    with app("quick") as program:
        program.wait_for("began 3")
        program.send(number)
        assert program.end() == 0
        began, handled = (
            [line for line in program.out.splitlines() if line.startswith(word)] for word in ("began", "handled")
        )
        assert len(began) == len(handled)
        assert f"{number.name}: finishing what was begun" in program.err
        assert "drained: " in program.err


def test_a_first_signal_ends_an_app_that_is_still_being_started():
    with app("slow_start") as program:
        program.wait_for("starting")
        program.send(TERM)
        assert program.end() == 0


@pytest.mark.parametrize("name", ["late", "thread", "children", "executes", "inline", "spinner"])
def test_the_deadline_ends_what_does_not_finish_with_status_3(name):
    with app(name, "--shutdown", "0.3") as program:
        program.wait_for("began 0")
        since = time.monotonic()
        program.send(TERM)
        assert program.end() == 3
        assert time.monotonic() - since < LIMIT
        assert "events" in program.err.splitlines()[-1] + program.err


def test_the_deadline_says_who_was_killed_and_how_many_events_are_not_done():
    with app("late", "--shutdown", "0.2") as program:
        program.wait_for("began 0")
        program.send(TERM)
        assert program.end() == 3
        assert "0.2 s are over, and 'numbers' and 'eater' had to be killed" in program.err
        assert "0 events are handled, 2 go back to where they came from" in program.err
        assert "cleaned up" in program.out


@pytest.mark.parametrize("name", ["late", "thread", "children", "executes", "inline", "spinner"])
def test_a_second_signal_cancels_at_once(name):
    with app(name) as program:
        program.wait_for("began 0")
        program.send(TERM)
        if name not in ("inline", "spinner"):  # they block the loop, which has nothing to say then
            program.wait_for("finishing what was begun")
        else:
            time.sleep(0.05)  # two signals that come at the very same moment are one to the system
        since = time.monotonic()
        program.send(INT if name == "late" else TERM)
        assert program.end() == 128 + (INT if name == "late" else TERM)
        assert time.monotonic() - since < LIMIT
        assert "handled" not in program.out
        assert name != "late" or "cleaned up" in program.out


@pytest.mark.parametrize("name", ["inline", "spinner", "thread"])
def test_a_third_signal_exits_on_the_spot_even_from_a_blocked_loop(name):
    with app(name) as program:
        program.wait_for("began 0")
        for _ in range(3):
            if program.process.poll() is not None:
                break
            program.send(TERM)
            time.sleep(0.05)  # two signals that come at the very same moment are one to the system
        since = time.monotonic()
        assert program.end() == 128 + TERM
        assert time.monotonic() - since < LIMIT / 3


def test_a_supervisor_that_gives_up_is_status_1_with_one_line_and_the_traceback():
    with app("broken") as program:
        assert program.end() == 1
        assert program.err.splitlines()[-1].endswith("failed: supervisor 'endless' gave up on child 'eater'")
        assert "ValueError: cannot digest this" in program.err


def test_a_stage_that_cannot_be_started_is_status_1_with_its_cause():
    with app("unable") as program:
        assert program.end() == 1
        assert "failed: stage 'eater' crashed: OSError: no such server" in program.err
        assert 'raise OSError("no such server")' in program.err


@pytest.mark.parametrize(
    ("name", "code"),
    [("exits", 7), ("kills", 0), ("stops", 0), ("stops_loop", 0), ("interrupts", 130)],
)
def test_a_stop_from_inside_of_a_handler_ends_it(name, code):
    with app(name, "--shutdown", "3") as program:
        since = time.monotonic()
        assert program.end() == code
        assert time.monotonic() - since < 8, "the handler's own limit is 5 s"


def test_a_program_that_calls_run_goes_on_after_it():
    code = "import headgate; from tests.running.apps import finite; headgate.run(finite); print('after')"
    status, out, _ = ended("-c", code)
    assert status == 0
    assert out.endswith("after\n")


def test_logging_that_is_configured_is_left_alone():
    code = (
        "import logging, headgate; from tests.running.apps import finite; "
        "logging.basicConfig(format='mine %(message)s', level='INFO'); headgate.run(finite)"
    )
    _, _, err = ended("-c", code)
    assert all(line.startswith("mine ") for line in err.splitlines())
    assert "mine 'finite' starts" in err


def test_sigusr1_prints_a_diagnosis_with_stacks():
    with app("late") as program:
        program.wait_for("began 0")
        program.send(signal.SIGUSR1)
        program.wait_for("await asyncio.sleep(LONG)")
        assert "> eater" in program.err
        assert "runs handle_events with 1 event" in program.err
        program.send(TERM)
        program.wait_for("finishing")
        program.send(TERM)
        assert program.end() == 128 + TERM


def test_sigusr1_prints_a_diagnosis_while_the_loop_is_blocked():
    with app("inline") as program:
        program.wait_for("began 0")
        program.send(signal.SIGUSR1)
        program.wait_for("The event loop is blocked by handle_events of stage 'eater'")
        program.wait_for("> eater")
        assert "time.sleep(self.seconds)" in program.err


def test_it_names_the_handler_that_blocks_the_loop():
    with app("short") as program:
        program.wait_for("the event loop is blocked")
        assert "by handle_events of stage 'eater' (tests/running/apps.py:" in program.err
        assert "time.sleep(self.seconds)" in program.err


def namespaces():
    """Return the command that makes a process number 1, or None where that is not allowed."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None:
        return None
    done = subprocess.run([*command, "true"], capture_output=True, check=False)
    return command if done.returncode == 0 else None


def test_it_works_as_the_first_process_of_a_container():
    before = namespaces()
    if before is None:
        pytest.skip("no namespaces of its own here")
    with Program("-m", "headgate", "run", "tests.running.apps:quick", before=before) as program:
        program.wait_for("process 1\n")
        program.wait_for("began 3")
        (inner,) = children_of(program.process.pid)
        os.kill(inner, TERM)
        assert program.end() == 0
        assert "drained: " in program.err


def children_of(pid):
    def found():
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]

    return poll(found, what="a child")


def test_elsewhere_than_in_the_main_thread_it_says_so():
    assert str(apps.beside()).startswith("headgate.run: expected to be called in the main thread")


def test_where_a_loop_runs_it_says_what_to_write_instead():
    async def inside():
        headgate.run(apps.finite)

    with pytest.raises(RunError, match="await app"):
        asyncio.run(inside())


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (from_iterable([]), r"put it into one: Supervisor\(\[...\]\)"),
        ([from_iterable([])], "put them into one"),
        (System(), "no stages before it runs"),
        (apps.coroutine, "a coroutine is run by asyncio.run"),
        (5, "a Supervisor"),
    ],
)
def test_what_is_no_app_is_refused_with_a_hint(value, hint):
    with pytest.raises(OptionError, match=hint):
        headgate.run(value)


def test_a_coroutine_is_refused_and_leaves_no_warning():
    with pytest.raises(OptionError, match=r"asyncio\.run"):
        headgate.run(apps.coroutine())


@pytest.mark.parametrize(
    "options", [{"shutdown": -1}, {"watch_blocked": 0}, {"watch_blocked": "x"}, {"log_level": "loud"}]
)
def test_a_wrong_option_is_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        headgate.run(apps.finite, **options)


class Other:
    """An app that is no Supervisor: it is entered, waited for and left."""

    def __init__(self, fails=False):
        self.fails = fails
        self.left = False

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.left = True

    async def wait(self):
        if self.fails:
            raise LookupError("nothing there")


def test_another_app_can_be_run():
    other = Other()
    headgate.run(other, log_level=None)
    assert other.left


def test_another_app_that_fails_is_status_1():
    other = Other(fails=True)
    with pytest.raises(SystemExit) as exit_:
        headgate.run(other, log_level=None)
    assert exit_.value.code == 1
    assert other.left


def test_the_work_queue_goes_on_where_it_was_killed(tmp_path):
    file = tmp_path / "queue.sqlite"
    queue = {"WORK_QUEUE": str(file)}
    with app("app", module="examples.work_queue", **queue) as program:
        program.wait_for("50 of 200 jobs are done")
        program.process.kill()
        program.end()
    status, out, err = ended("-m", "examples.work_queue", **queue)
    assert (status, err) == (0, "")
    first, *_, last = out.splitlines()
    assert re.fullmatch(r"queue: 0 jobs put in, [1-9][0-9]? are leased to a run that goes on or has died", first)
    assert last == "199 of 200 jobs are done, 1 is a dead letter, 0 to go"
    with closing(sqlite3.connect(file)) as database:
        done = {job for (job,) in database.execute("SELECT job FROM results")}
    assert done == set(range(1, 201)) - {77}
    status, out, _ = ended("-m", "examples.work_queue", "dead", **queue)
    assert (status, out) == (0, "job 77: ValueError: 'seventy-seven' is no number, handed out 3 times\n")


def test_a_dead_letter_of_the_work_queue_is_sent_back(tmp_path):
    queue = {"WORK_QUEUE": str(tmp_path / "queue.sqlite")}
    command = ("-m", "examples.work_queue")
    status, out, err = ended(*command, **queue)
    assert (status, err) == (0, "")
    assert out.count("job 13: no connection; it is tried again in a moment") == 1
    assert [line for line in out.splitlines() if line.startswith("job 77")] == [
        "job 77: 'seventy-seven' is no number; delivery 1 of 3, it is handed out again",
        "job 77: 'seventy-seven' is no number; delivery 2 of 3, it is handed out again",
        "job 77: 'seventy-seven' is no number; delivery 3 of 3, it is a dead letter",
    ]
    assert ended(*command, "retry", **queue)[1] == "1 job(s) will be tried again by the next run\n"
    assert ended(*command, "dead", **queue)[1] == ""
    status, out, err = ended(*command, **queue)
    assert (status, err) == (0, "")
    first, *_, last = out.splitlines()
    assert first.startswith("queue: 0 jobs put in")
    assert out.count("job 77: ") == 3
    assert last == "199 of 200 jobs are done, 1 is a dead letter, 0 to go"


def test_an_empty_supervisor_waits_until_it_is_told_to_end():
    with Program("-c", "import headgate; headgate.run(headgate.Supervisor([]), log_level='info')") as program:
        program.wait_for("starts")
        program.send(TERM)
        assert program.end() == 0


def test_children_of_a_supervisor_are_named_in_errors():
    with pytest.raises(SystemExit):
        headgate.run(Supervisor([Child(apps.Unable, name="unable")]), log_level=None)
