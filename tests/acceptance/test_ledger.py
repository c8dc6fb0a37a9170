"""The guide to `headgate log` is run as it stands: each command, in order, has to print what the page says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "event-log-cli.md"
DEADLINE = 60


def commands():
    """Each command of the page, and what it is to print."""
    found: list[tuple[str, list[str]]] = []
    inside = False
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```console"
        elif inside and line.startswith("$ "):
            found.append((line[2:], []))
        elif inside:
            found[-1][1].append(line)
    return found


def run(command, folder):
    tools = Path(sys.executable).parent
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "HEADGATE_ACTOR": "ada",
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    return [line.rstrip() for line in (done.stdout + done.stderr).rstrip().splitlines()], done.returncode


def pattern(lines):
    """``...`` stands for anything, also for several lines."""
    return re.compile(re.escape("\n".join(lines)).replace(re.escape("..."), ".*"), re.DOTALL)


@pytest.mark.slow
def test_every_command_of_the_page_prints_what_it_says(tmp_path):
    for command, expected in commands():
        printed, _ = run(command, tmp_path)
        assert pattern(expected).fullmatch("\n".join(printed)), f"$ {command}\n" + "\n".join(printed)


def test_the_page_shows_every_command():
    text = "\n".join(command for command, _ in commands())
    for name in ["ls", "show", "tail", "grep", "state", "why", "diff", "export", "verify", "fork", "access"]:
        assert f"headgate log {name} " in text


@pytest.mark.slow
def test_exit_statuses(tmp_path):
    run("python -m examples.ledger", tmp_path)
    log = "examples.ledger.book:log"
    for command, status in {
        f"verify {log}": 0,
        f"verify {log} --anchor 5:{'0' * 32}": 1,
        f"verify {log} --anchor 5:00": 2,
        f"verify {log} --anchor x": 2,
        "ls missing.db": 2,
        f"show {log} 99999": 2,
        f"state {log} account-0001 --projection none": 2,
        f"state {log} account-0001 --at noon": 2,
        f"grep {log} '('": 2,
        f"fork {log} ledger.db": 2,
        f"export {log} --policy examples.ledger.book:log": 2,
        "export ledger.db": 2,
        f"diff {log} account-0001 --against examples.ledger.balances:buggy": 2,
        "ls examples.ledger.book:nothing": 2,
        "ls nothing.at.all:log": 2,
    }.items():
        printed, code = run(f"headgate log {command}", tmp_path)
        assert code == status, (command, printed)
        if status == 2:
            assert "Traceback" not in "\n".join(printed)
            assert printed[-1].startswith(("headgate: ", "Error: ")), printed
