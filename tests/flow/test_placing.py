"""Where a flow runs if nobody says so; the share of a worker process is made small for these tests."""

import os
import threading
from collections import Counter

import pytest

from headgate import CrossingError, Flow, Process
from headgate.errors import HandlerError
from headgate.flow import placing, watermarks, windows

LINES = [f"{n % 7} {n % 11}" for n in range(2000)]
BYTES = sum(len(line) + 1 for line in LINES)


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file of two shares, on two cores."""
    monkeypatch.setattr(placing, "SHARE", BYTES // 2)
    monkeypatch.setattr(placing, "cores", lambda: 2)
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


def runs(flow):
    """The last line of the plan, which says where it runs and why."""
    return flow.explain().splitlines()[-1]


def lines(path, **options):
    return Flow.from_lines(path, split=1000, **options)


@pytest.mark.slow
def test_large_files_that_are_counted_up_are_read_by_worker_processes(path):
    flow = lines(path).flat_map(str.split).count_by()
    assert "work-1: 2 workers at Process" in flow.explain()
    assert runs(flow).startswith("runs in 2 worker processes, as ")
    seen: list[tuple[int, int]] = []
    Flow.from_csv(path, split=1000, fields=["a"]).count_by(lambda _: os.getpid()).into(seen.extend).run()
    assert seen, "a function that results go to is called here"
    assert os.getpid() not in dict(seen)
    assert sum(dict(seen).values()) == len(LINES)
    assert dict(flow.to_list()) == Counter(" ".join(LINES).split())


@pytest.mark.parametrize(
    ("flow", "why"),
    [
        (lambda path: lines(path).map(str.split), "each event of work-1 would cross"),
        (lambda path: lines(path).reduce(int, lambda total, _: total + 1), "each event of work-1 would cross"),
        (lambda path: lines(path).partition().count(), "each event of work-1 would cross"),
        (lambda path: lines(path).join(lines(path), len).count(), "each event of work-1 would cross"),
        (lambda path: lines(path).group_by(0), "group_by(0) at test_placing.py"),
        (lambda path: lines(path).sort(), "sort() at test_placing.py"),
        (lambda path: lines(path).window(windows.fixed(5, by=len)).group_by(0), "group_by(0) at test_placing.py"),
        (lambda path: lines(path).window(windows.fixed(5, by=len)).sort(), "sort() at test_placing.py"),
        (lambda path: lines(path).tap(print).count(), "tap(print) at test_placing.py"),
        (lambda path: Flow.from_lines(path, split=None).count(), "its one file cannot be read in parts"),
        (lambda path: Flow.merge(lines(path), Flow.from_iterable(["a"])).count(), "not all of its sources are files"),
        (lambda path: Flow.from_iterable(LINES).count(), "not all of its sources are files"),
    ],
)
def test_other_flows_stay_on_the_event_loop(path, flow, why):
    assert runs(flow(path)).startswith("runs on the event loop, as ")
    assert why in runs(flow(path))
    assert "Process" not in flow(path).explain()


@pytest.mark.parametrize(
    "flow",
    [
        lambda path: lines(path).top(3),
        lambda path: lines(path).reduce(int, lambda total, _: total + 1, combine=int.__add__),
        lambda path: lines(path).window(windows.fixed(5, by=len)).count_by(0),
        lambda path: lines(path).count_by().sort(),
        lambda path: lines([path, path]).count().into(print),
    ],
)
def test_whatever_is_put_together_where_it_is_read_goes_to_processes(path, flow):
    assert runs(flow(path)).startswith("runs in 2 worker processes")


def test_windows_that_close_before_the_end_need_all_events_in_one_place(path):
    window = windows.fixed(5, by=len, watermark=watermarks.out_of_order(0))
    assert "would cross" in runs(lines(path).window(window).count())


def test_options_decide_if_there_are_any(path):
    flow = lines(path).count()
    for options in ({"place": "inline"}, {"workers": 2}, {"place": "thread"}):
        assert runs(flow.options(**options)) == "runs as options say"
        assert "Process" not in flow.options(**options).explain()
    assert "2 workers at Process" in flow.map(str).options(place=Process(), workers=2).explain()


def test_a_process_needs_a_share_and_a_core(path, monkeypatch):
    flow = lines(path).count()
    monkeypatch.setattr(placing, "cores", lambda: 64)
    assert "runs in 2 worker processes" in runs(flow), "as many as there are shares"
    monkeypatch.setattr(placing, "SHARE", BYTES // 2 + 1)
    assert "of files are less than " in runs(flow)
    monkeypatch.setattr(placing, "SHARE", 1)
    assert f"runs in {-(-BYTES // 1000)} worker processes" in runs(flow), "as many as there are parts"
    monkeypatch.setattr(placing, "cores", lambda: 1)
    assert runs(flow) == "runs on the event loop, as there is one core"


def test_without_the_extra_it_stays(path, monkeypatch):
    monkeypatch.setattr(placing, "_NEEDED", ("cloudpickle", "no_such_module"))
    assert "headgate[process] is not installed (no_such_module)" in runs(lines(path).count())


def test_a_file_that_went_away_is_for_the_reader_to_report(path):
    flow = lines(path).count()
    path.unlink()
    with pytest.raises(Exception, match=r"No such file|FileNotFound"):
        flow.to_list()


def test_an_error_of_what_cannot_cross_names_the_remedy(path):
    lock = threading.Lock()
    flow = lines(path).filter(lambda _: not lock.locked()).count()
    with pytest.raises(CrossingError, match=r'_thread.lock.*options\(place="inline"\)'):
        flow.to_list()
    assert flow.options(place="inline").to_list() == [len(LINES)]


@pytest.mark.slow
def test_so_does_that_of_results_which_cannot_cross(path):
    flow = lines(path).reduce(threading.Lock, lambda lock, _: lock, combine=lambda one, _: one)
    with pytest.raises(HandlerError) as caught:
        flow.to_list()
    assert 'options(place="inline")' in caught.value.__notes__[0]


@pytest.mark.slow
def test_workers_of_the_same_number_share_a_process():
    flow = Flow.from_iterable(range(500), max_demand=10).options(workers=2, place=Process())
    flow = flow.map(lambda n: (n, {os.getpid()})).partition(0).map(lambda pair: (pair[0], {*pair[1], os.getpid()}))
    flow = flow.partition(lambda pair: pair[0] // 10, place=Process(max_bytes=1000))
    first, other = set(), set()
    for _, pids, last in flow.map(lambda pair: (*pair, os.getpid())).to_list():
        first |= pids
        other.add(last)
    assert len(first) == 2, "of two layers"
    assert len(other) == 2, "at a place with options of its own"
    assert not first & other
    assert os.getpid() not in first | other
