"""Batches of columns through the same flow: filters by expression, group-by, files."""

from collections import defaultdict
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import Flow, OptionError

ROWS = [{"key": f"k{n % 5}", "value": n, "half": None if n % 7 == 0 else n / 2} for n in range(5000)]


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=700)
    return path


@pytest.mark.parametrize("workers", [1, 3])
def test_rows_of_a_file(parquet, workers):
    flow = Flow.from_parquet(parquet).options(workers=workers)
    assert sorted(flow.to_list(), key=lambda row: row["value"]) == ROWS
    assert flow.map(lambda row: row["value"]).sum().to_list() == [sum(range(5000))]
    assert Flow.from_parquet(parquet, columns=["key"]).take_sort(1, "key").to_list() == [[{"key": "k0"}]]


@pytest.mark.parametrize("workers", [1, 3])
def test_columns_stay_columns(parquet, workers):
    kinds = set()

    def look(batch):
        kinds.add(type(batch))
        return batch

    flow = Flow.from_parquet(parquet, batch=100).options(workers=workers).map_batches(look)
    kept = flow.where(pc.field("value") >= 4000).map_batches(look)
    assert kept.count().to_list() == [1000]
    assert kinds == {pa.RecordBatch}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("key", ["word", "number", "day", "missing"])
def test_a_group_by_reads_what_it_looks_at_and_keys_are_what_they_are(tmp_path, workers, key):
    """Whether a file has a dictionary of them or not; each row group has another one, and other columns beside."""
    for part in range(2):
        table = pa.table(
            {
                "word": [f"w{n % 3 + part}" for n in range(300)],
                "number": [n % 4 + part for n in range(300)],
                "day": [date(2026, 1, 1 + n % 2 + part) for n in range(300)],
                "missing": [None if n % 2 else f"m{part}" for n in range(300)],
                "value": range(300),
                f"other {part}": range(300),
            }
        )
        pq.write_table(table, tmp_path / f"{part}.parquet", row_group_size=50, use_dictionary=part == 0)
    flow = Flow.from_parquet(tmp_path / "*.parquet").options(workers=workers)
    got = {
        row[key]: (row["n"], row["total"])
        for row in flow.aggregate(key, n=("value", "count"), total=("value", "sum")).to_list()
    }
    expected: dict[object, tuple[int, int]] = {}
    for row in flow.to_list():
        count, total = expected.get(row[key], (0, 0))
        expected[row[key]] = (count + 1, total + row["value"])
    assert got == expected
    assert len(got) > 2


@pytest.mark.parametrize("workers", [1, 3])
def test_a_group_by(parquet, workers):
    flow = Flow.from_parquet(parquet, batch=100).options(workers=workers)
    got = flow.aggregate(
        "key", n=("value", "count"), total=("value", "sum"), mean=("half", "mean"), most=("half", "max")
    )
    halves = defaultdict(list)
    for row in ROWS:
        if row["half"] is not None:
            halves[row["key"]].append(row["half"])
    assert sorted(got.to_list(), key=lambda row: row["key"]) == [
        {
            "key": key,
            "n": 1000,
            "total": sum(row["value"] for row in ROWS if row["key"] == key),  # type: ignore[misc]
            "mean": pytest.approx(sum(values) / len(values)),  # type: ignore[arg-type]
            "most": max(values),
        }
        for key, values in sorted(halves.items())
    ]
    assert flow.aggregate([], n=("value", "count")).to_list() == [{"n": 5000}]
    assert flow.where(pc.field("value") < 0).aggregate("key", n=("value", "count")).to_list() == []


@given(
    st.lists(st.fixed_dictionaries({"k": st.integers(0, 3), "v": st.integers(-9, 9)}), max_size=40), st.integers(1, 3)
)
def test_a_group_by_of_lists_of_mappings(rows, workers):
    flow = Flow.from_iterable(rows, max_demand=5).options(workers=workers)
    groups = defaultdict(list)
    for row in rows:
        groups[row["k"]].append(row["v"])
    got = flow.aggregate("k", least=("v", "min"), total=("v", "sum")).to_list()
    assert sorted((row["k"], row["least"], row["total"]) for row in got) == sorted(
        (key, min(values), sum(values)) for key, values in groups.items()
    )


def test_into_a_file(parquet, tmp_path):
    target = tmp_path / "out.parquet"
    Flow.from_parquet(parquet, batch=100).where(pc.field("value") < 10).into(target).run()
    assert pq.read_table(target).to_pylist() == ROWS[:10]
    Flow.from_iterable(ROWS).into(target).run()
    assert pq.read_table(target).to_pylist() == ROWS


def test_what_is_no_aggregate_is_refused(parquet):
    flow = Flow.from_parquet(parquet)
    for wanted in ({"n": ("value", "median")}, {"n": "value"}, {}):
        with pytest.raises(OptionError):
            flow.aggregate("key", **wanted)
    with pytest.raises(OptionError, match="keys"):
        flow.aggregate([1], n=("value", "sum"))  # type: ignore[list-item]
    with pytest.raises(OptionError, match="expression"):
        flow.where(lambda row: True)
