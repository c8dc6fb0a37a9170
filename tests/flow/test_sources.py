"""Where events come from: iterables, files in ranges, stages; each event once, whoever reads it."""

import asyncio
import bz2
import csv
import gzip
import json
import lzma
import pickle
import zipfile
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import Child, Flow, Ignore, Producer, RecordError, System
from headgate.flow.reading import Files, plan_ranges, read

lines = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12), max_size=30)


@given(lines, st.integers(1, 40), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_each_line_is_of_the_range_that_it_begins_in(tmp_path_factory, texts, split, end, last):
    path = tmp_path_factory.mktemp("lines") / "text"
    path.write_bytes((end.join(texts) + (end if last else "")).encode())
    expected = path.read_bytes().decode().split("\n")
    if expected[-1] == "":
        expected.pop()
    expected = [line.removesuffix("\r") for line in expected]
    found = [line for part in plan_ranges(Files((str(path),), split=split)) for batch in read(part) for line in batch]
    assert found == expected


@pytest.mark.parametrize("workers", [1, 3])
def test_lines_of_several_files_by_a_pattern(tmp_path, workers):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} {n}\n" for n in range(500)))
    (tmp_path / "empty.txt").write_text("")
    flow = Flow.from_lines(tmp_path / "*.txt", split=100).options(workers=workers)
    assert sorted(flow.to_list()) == sorted(f"{name} {n}" for name in "abc" for n in range(500))
    assert Flow.from_files([tmp_path / "a.txt", str(tmp_path / "b.txt")]).count().to_list() == [1000]  # type: ignore[misc]


def test_what_crosses_of_many_files_is_one_path_at_a_time(tmp_path):
    paths = []
    for number in range(300):
        path = tmp_path / f"{number:03}.txt"
        path.write_text("line\n")
        paths.append(str(path))
    one, *_ = plan_ranges(Files((paths[0],)))
    first, *rest = plan_ranges(Files(tuple(paths)))
    assert len(rest) == 299
    assert len(pickle.dumps(first)) == len(pickle.dumps(one))


@pytest.mark.parametrize(
    ("count", "size", "split", "ahead"),
    [
        (1, 10, 1000, 2),
        (127, 10, 1000, 2),  # few files: a worker that holds many of them would leave none to the others
        (200, 10, 1000, 3),
        (200, 600, 1000, 2),  # what a worker has is a range's weight at most
        (200, 10, None, 2),
    ],
)
def test_of_many_small_files_a_worker_has_some_at_a_time(tmp_path, count, size, split, ahead):
    for number in range(count):
        (tmp_path / f"{number:03}.txt").write_text("x" * (size - 1) + "\n")
    flow = Flow.from_lines(tmp_path / "*.txt", split=split).options(workers=2)
    assert f"max_demand {ahead})" in flow.explain()
    assert flow.count().to_list() == [count]


@pytest.mark.parametrize(("ending", "opener"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_compressed_file_is_read_by_one(tmp_path, ending, opener, workers):
    path = tmp_path / f"words{ending}"
    with opener(path, "wt") as file:
        file.writelines(f"line {n}\n" for n in range(5000))
    assert Flow.from_lines(path).options(workers=workers).count().to_list() == [5000]
    assert sorted(Flow.from_lines(path).options(workers=workers).to_list()) == sorted(f"line {n}" for n in range(5000))


def test_a_large_compressed_file_is_read_as_its_results_are_wanted(tmp_path):
    path = tmp_path / "long.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f"{n:0100}\n" for n in range(300_000))
    read_so_far = []
    flow = Flow.from_lines(path).map_batches(lambda batch: read_so_far.append(len(batch)) or batch)  # type: ignore[func-returns-value]
    for number, _ in enumerate(flow):
        if number == 10:
            break
    assert sum(read_so_far) < 200_000
    read_so_far.clear()
    assert len(flow.to_list()) == sum(read_so_far) == 300_000


def test_rows_of_csv(tmp_path):
    rows = [{"name": f"n{n}", "value": str(n)} for n in range(1000)]
    path = tmp_path / "plain.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "value"])
        writer.writeheader()
        writer.writerows(rows)
    key = lambda row: row["name"]
    assert sorted(Flow.from_csv(path, split=100).options(workers=2).to_list(), key=key) == sorted(rows, key=key)
    given_names = Flow.from_csv(path, split=100, fields=["a", "b"]).filter(lambda row: row["a"] == "name").to_list()
    assert given_names == [{"a": "name", "b": "value"}]


def test_csv_with_line_breaks_in_values_is_not_torn(tmp_path):
    path = tmp_path / "quoted.csv"
    rows = [{"a": "one\ntwo, three", "b": str(n)} for n in range(100)]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["a", "b"])
        writer.writeheader()
        writer.writerows(rows)
    assert Flow.from_csv(path, split=50).to_list() == rows
    with zipfile.ZipFile(tmp_path / "quoted.zip", "w") as archive:
        archive.write(path)
    assert Flow.from_csv(tmp_path / "quoted.zip").to_list() == rows


def test_json_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps({"n": n}) + "\n" + "\n" * (n % 2) for n in range(100)))
    assert Flow.from_jsonl(path, split=64).map(lambda event: event["n"]).to_list() == list(range(100))
    path.write_text('{"n": 1}\n{"n": 2\n')
    with pytest.raises(RecordError, match=r"events.jsonl:2: expected one JSON value a line"):
        Flow.from_jsonl(path).to_list()


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "odd.txt"
    path.write_bytes(b"good\ngood\nb\xffd\n")
    with pytest.raises(RecordError, match=r"odd.txt:3: "):
        Flow.from_lines(path).to_list()
    assert Flow.from_lines(path, errors="replace").to_list() == ["good", "good", "b\ufffdd"]


def test_an_archive_of_several_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a", "a\n")
        archive.writestr("b", "b\n")
    with pytest.raises(RecordError, match="one file, it has 2"):
        Flow.from_lines(tmp_path / "two.zip").to_list()


@pytest.mark.parametrize("workers", [1, 3])
def test_several_iterables_of_all_kinds(workers):
    async def source():
        for n in range(100):
            await asyncio.sleep(0)
            yield n

    flow = Flow.from_iterables([range(10), iter("abc"), (x for x in [None]), source()], max_demand=7)
    expected = Counter([*range(10), *"abc", None, *range(100)])
    assert Counter(flow.options(workers=workers).to_list()) == expected


def test_a_blocking_iterable_in_a_thread():
    assert Flow.from_iterable(iter(range(3000)), place="thread").sum().to_list() == [4498500]


def test_max_demand_says_how_large_batches_are():
    flow = Flow.from_iterable(range(25), max_demand=10, min_demand=0)
    assert flow.map_batches(lambda batch: [len(batch)]).to_list() == [10, 10, 5]


class Counting(Producer):
    """Gives numbers up to a limit."""

    def __init__(self, limit):
        self.limit = limit
        self.next = 0

    def handle_demand(self, demand):
        first, self.next = self.next, min(self.limit, self.next + demand)
        if self.next == self.limit:
            self.stage.finish()
        return range(first, self.next)


class Declining(Producer):
    """Does not want to run."""

    def started(self):
        raise Ignore

    def handle_demand(self, demand):
        return None


@pytest.mark.parametrize("workers", [1, 2])
def test_children_run_as_part_of_the_flow(workers):
    flow = Flow.from_children([Child(Counting, 1000), Child(Counting, 10)]).options(workers=workers)
    assert flow.count().to_list() == [1010]
    assert Flow.from_children([Child(Declining)]).to_list() == []
    assert Flow.from_children([Child(Declining), Child(Counting, 5)]).count().to_list() == [5]


async def test_stages_that_run_already_live_on_if_they_do_not_end():
    async with System() as system:
        producer = await system.start(Child(Counting, 10**12, name="numbers"))
        got = []
        async for event in Flow.from_stages([producer]).map(lambda x: x * 2):
            got.append(event)
            if len(got) == 5:
                break
        assert got == [0, 2, 4, 6, 8]
        assert producer.alive


async def test_stages_that_end_end_the_flow():
    async with System() as system:
        first = await system.start(Child(Counting, 100, demand="accumulate"))
        second = await system.start(Child(Counting, 50, name="second", demand="accumulate"))
        assert await Flow.from_stages([first, second]).count().collect() == [150]
