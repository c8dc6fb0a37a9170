"""The word count as a program, next to a plain loop; and what it says of itself."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from examples import word_count
from headgate.flow import placing
from tests.acceptance.programs import example

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs" / "guides"


def plain(paths):
    """Count in a plain loop."""
    counts: Counter[str] = Counter()
    for path in paths:
        counts.update(re.findall(r"[^\W\d_]+", Path(path).read_text(encoding="utf-8").lower()))
    return counts


@pytest.mark.slow
def test_it_counts_what_a_plain_loop_does():
    expected = plain(GUIDES.glob("*.md"))
    done = example("word_count", GUIDES, "--top", 5)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.findall(r"^(\w+) +([\d,]+)$", done.stdout, re.MULTILINE)
    assert [(word, int(times.replace(",", ""))) for word, times in found] == expected.most_common(5)
    assert f"\n{expected.total():,} words, {len(expected):,} different ones, in " in done.stdout
    assert "runs on the event loop, as " in done.stdout


@pytest.mark.slow
def test_the_workers_change_nothing():
    expected = plain(GUIDES.glob("*.md"))
    done = example("word_count", GUIDES, "--workers", 2, "--top", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "work-1: 2 workers at Process(), from source-1\n" in done.stdout
    assert f"\n{expected.total():,} words, {len(expected):,} different ones, in " in done.stdout


def test_text_is_found_in_order_and_up_to_a_size(tmp_path):
    for name, size in (("b.txt", 100), ("a.md", 50), ("c.bin", 70), ("inner.rst", 30)):
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    everything = [str(tmp_path / name) for name in ("a.md", "b.txt", "inner.rst")]
    assert word_count.gather([tmp_path], 1000) == (everything, 180)
    assert word_count.gather([tmp_path], 60) == (everything[:2], 150)
    binary = tmp_path / "c.bin"
    assert word_count.gather([binary, tmp_path, tmp_path], 1000) == ([str(binary), *everything], 250)


def test_python_brings_along_more_than_100_mb_of_text():
    paths, size = word_count.gather(word_count.everywhere(), 110 * word_count.MEGABYTE)
    assert size > 100 * word_count.MEGABYTE, len(paths)


def test_the_plan_of_the_docstring_is_that_of_the_program(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "SHARE", 1)
    monkeypatch.setattr(placing, "cores", lambda: 2)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("some words\n")
    paths, size = word_count.gather([tmp_path], 1000)
    plan = word_count.word_count(paths, 10, word_count.Totals()).explain().replace(f"{size}", "128,000,236")
    plan = plan.replace("max_demand 2", "max_demand 64").replace("as 0 MB", "as 128 MB")
    shown = ast.get_docstring(ast.parse(Path(word_count.__file__).read_text(encoding="utf-8"))) or ""
    assert "\n".join(f"    {line}".rstrip() for line in plan.splitlines()) in shown


def test_where_there_is_no_text(tmp_path):
    done = example("word_count", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"word_count: {tmp_path}: there is no text\n"


def test_a_wrong_option():
    assert "'0' is not a whole number of 1 or more" in example("word_count", "--workers", 0).stderr


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def count(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(word_count, "count", count)
    assert word_count.main([str(GUIDES)]) == 130
    assert capsys.readouterr().err.endswith("word_count: stopped\n")
