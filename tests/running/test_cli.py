"""The command line: what is wrong with a command is said in one line, with status 2."""

import subprocess
import sys

import pytest

import headgate
from examples import work_queue
from headgate.cli.load import LoadError, load
from headgate.observe.graph import Graph
from tests.running import apps
from tests.running.helpers import ROOT, app, ended, environment

pytestmark = pytest.mark.slow


def headgate_command(*args, **options):
    return ended("-m", "headgate", *args, **options)


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("tests.running.apps", "expected MODULE:APP, e.g. tests.running.apps:app; got: 'tests.running.apps'"),
        ("tests/running/apps.py:finite", "expected a module, not a file: tests.running.apps:finite"),
        ("nowhere:app", "there is no module 'nowhere'; looked in "),
        ("tests.nowhere:app", "there is no module 'tests.nowhere'; looked in "),
        ("tests.running.apps:finit", "module 'tests.running.apps' has no 'finit'; did you mean 'finite'?"),
        ("tests.running.apps:number", "tests.running.apps:number is no app, but of type int; expected a Supervisor"),
        ("tests.running.apps:nothing", "tests.running.apps:nothing is no app, but None; expected"),
        ("tests.running.apps:empty", "tests.running.apps:empty is no app, but an empty list; expected"),
        ("tests.running.apps:asyncio", "tests.running.apps:asyncio is no app, but a module; expected"),
        ("tests.running.apps:Numbers", "tests.running.apps:Numbers is a class; give an instance"),
        ("tests.running.apps:needs", "tests.running.apps:needs needs arguments (host, user)"),
        ("tests.running.apps:coroutine", "tests.running.apps:coroutine is an async function"),
        (
            "tests.running.apps:twins",
            "tests.running.apps:twins is no app: Supervisor('app'): expected option 'children'",
        ),
    ],
)
def test_what_is_no_app_is_explained_in_one_line(target, line):
    with pytest.raises(LoadError) as error:
        load(target)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)
    assert error.value.details(full=True) is None


@pytest.mark.parametrize("command", ["run", "graph"])
def test_a_wrong_command_says_one_line_and_has_status_2(command):
    code, out, err = headgate_command(command, "tests.running.apps:finit")
    assert (code, out) == (2, "")
    assert err == "headgate: module 'tests.running.apps' has no 'finit'; did you mean 'finite'?\n"


def test_an_error_in_the_users_module_is_shown_with_the_users_frames_alone(tmp_path):
    (tmp_path / "broken.py").write_text("def inner():\n    raise ValueError('no table')\n\n\ninner()\n")
    code, _, err = headgate_command("run", "broken:app", cwd=tmp_path)
    assert code == 2
    lines = err.splitlines()
    assert lines[-1] == "headgate: module 'broken' cannot be imported: ValueError: no table"
    assert lines[0] == "Traceback (most recent call last):"
    assert "importlib" not in err
    assert "headgate/cli" not in err
    assert err.count('File "') == 2
    _, _, err = headgate_command("run", "broken:app", "--traceback", cwd=tmp_path)
    assert "importlib" in err


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("mine_needs", "import nowhere_to_be_found", "needs 'nowhere_to_be_found', which is not installed"),
        ("mine_leaves", "import sys\nsys.exit(0)", "ends the program when it is imported (sys.exit)"),
        ("mine_typo", "1 +", "cannot be imported: SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_cannot_be_imported_says_why_and_where(name, text, line, tmp_path, monkeypatch):
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LoadError) as error:
        load(f"{name}:app")
    assert line in str(error.value)
    assert f"{name}.py" in (error.value.details(full=False) or "")
    assert "importlib" not in (error.value.details(full=False) or "")


def test_a_function_that_fails_shows_where():
    with pytest.raises(LoadError, match=r"apps:fails\(\) has raised KeyError: 'DSN'") as error:
        load("tests.running.apps:fails")
    assert 'raise KeyError("DSN")' in (error.value.details(full=False) or "")


@pytest.mark.parametrize("name", ["finite", "made", "single", "several"])
def test_an_app_may_be_a_supervisor_a_child_a_list_or_a_function(name):
    assert isinstance(load(f"tests.running.apps:{name}"), headgate.Supervisor)


def test_the_current_directory_can_be_imported_from(tmp_path):
    (tmp_path / "mine.py").write_text("import headgate\napp = headgate.Supervisor([], auto_shutdown=True)\n")
    code, out, _ = headgate_command("graph", "mine:app", cwd=tmp_path)
    assert code == 0
    assert out.startswith("supervisor  (supervisor: one_for_one")


def test_options_reach_the_run():
    with app("short", "--watch-blocked", "0", "--log-level", "error", "--shutdown", "5") as program:
        program.wait_for("handled 1")
        program.process.terminate()
        assert program.end() == 0
        assert program.err == ""


@pytest.mark.parametrize("options", [("--shutdown", "-1"), ("--log-level", "loud")])
def test_a_wrong_option_is_status_2(options):
    code, _, err = headgate_command("run", "tests.running.apps:finite", *options)
    assert code == 2
    assert "Traceback" not in err


def test_the_version():
    code, out, _ = headgate_command("--version")
    assert code == 0
    assert out.startswith(f"headgate {headgate.__version__} ")


def test_the_console_script_and_the_module_are_the_same():
    code = "import sys; from headgate.cli import main; sys.argv = ['headgate', '--version']; main()"
    assert ended("-c", code) == headgate_command("--version")


def test_help_lists_the_exit_statuses_each_on_a_line():
    _, out, _ = headgate_command("run", "--help")
    assert "\n    3    the deadline has passed, and something was killed\n" in out


def test_without_the_extra_one_line_says_what_to_install():
    code = (
        "import sys, importlib.util as util; find = util.find_spec; "
        "util.find_spec = lambda name, *rest: None if name == 'click' else find(name, *rest); "
        "from headgate.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "headgate: the command line needs an extra; install it by: pip install 'headgate[cli]'\n"


# -- graph ------------------------------------------------------------------------------------------------------------

TEXT = """\
shop  (supervisor: rest_for_one, at most 3 restarts in 5 s)
├─ orders       producer  Numbers, broadcast dispatcher, inline
├─ work         supervisor: one_for_all, any number of restarts
│  ├─ check x4  middle    Check, task
│  └─ eat       consumer  Sleeper, thread
├─ mail         consumer  one sleep_long for each event, in a thread
└─ lonely       producer  Numbers, inline

events
  orders
  ├─▶ check x4  each asks for 100, again at 50
  │   └─▶ eat  asks for 10, again at 5, transient
  ├─▶ eat  asks for 1,000, again at 500
  └─▶ mail  asks for 50, again at 25
  lonely  (nobody subscribes to it)
  elsewhere  (not in this app)
  └─▶ eat  asks by hand"""

MERMAID = """\
flowchart LR
    subgraph box0["shop · rest_for_one"]
        stage0(["orders<br/>Numbers · broadcast dispatcher · inline"])
        subgraph box1["work · one_for_all"]
            stage1["check x4<br/>Check · task"]
            stage2[["eat<br/>Sleeper · thread"]]
        end
        stage3[["mail<br/>one sleep_long for each event, in a thread"]]
        stage4(["lonely<br/>Numbers · inline"])
    end
    stage5["elsewhere<br/>not in this app"]
    style stage5 stroke-dasharray: 4 4
    stage0 -->|"100 / 50"| stage1
    stage0 -->|"1000 / 500"| stage2
    stage0 -->|"50 / 25"| stage3
    stage1 -->|"10 / 5, transient"| stage2
    stage5 -->|"1000 / 500, manual"| stage2"""


class Check(headgate.ProducerConsumer):
    async def handle_events(self, events, source):
        return events


def shop():
    to = headgate.To
    eat: list[headgate.To | str] = [
        "orders",
        to("check", max_demand=10, cancel="transient"),
        to("elsewhere", mode="manual"),
    ]
    check = headgate.Child(Check, name="check", count=4, subscribe_to=[to("orders", max_demand=100)])
    work = headgate.Supervisor(
        [check, headgate.Child(apps.Sleeper, name="eat", place="thread", subscribe_to=eat)],
        name="work",
        strategy="one_for_all",
        max_restarts=None,
    )
    mail = headgate.ConsumerSupervisor(apps.sleep_long, name="mail", subscribe_to=[to("orders", max_demand=50)])
    return headgate.Supervisor(
        [
            headgate.Child(apps.Numbers, name="orders", dispatcher="broadcast"),
            work,
            mail,
            headgate.Child(apps.Numbers, name="lonely"),
        ],
        name="shop",
        strategy="rest_for_one",
    )


def test_the_topology_as_text():
    assert Graph(shop()).text() == TEXT


def test_the_topology_for_a_terminal_without_unicode():
    text = Graph(shop()).text(ascii_only=True)
    assert text.isascii()
    assert "|  |- check x4  middle" in text
    code, out, _ = headgate_command("graph", "tests.running.test_cli:shop", PYTHONIOENCODING="ascii")
    assert (code, out.rstrip()) == (0, text)


def test_the_topology_as_mermaid():
    assert Graph(shop()).mermaid() == MERMAID
    code, out, _ = headgate_command("graph", "tests.running.test_cli:shop", "--format", "mermaid")
    assert (code, out.rstrip()) == (0, MERMAID)


def test_names_cannot_break_a_mermaid_drawing():
    drawing = Graph(headgate.Supervisor([headgate.Child(apps.Numbers, name='a"]<b>&')])).mermaid()
    assert "a&quot;]&lt;b&gt;&amp;<br/>" in drawing


def test_stages_that_ask_each_other_in_a_circle_are_drawn_once():
    circle = headgate.Supervisor(
        [
            headgate.Child(Check, name="one", subscribe_to=["two"]),
            headgate.Child(Check, name="two", subscribe_to=["one"]),
        ]
    )
    assert Graph(circle).text().count("asks for") == 2


def test_the_guide_shows_the_work_queue_as_it_is():
    guide = (ROOT / "docs/guides/running.md").read_text(encoding="utf-8")
    assert Graph(work_queue.app).text() in guide
