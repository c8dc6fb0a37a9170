"""Flow next to what one would write by hand: counting words of real text, and flights by hour and origin.

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
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

from headgate import Process
from headgate.flow import Flow

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


def words_joblib(path: str) -> dict[str, int]:
    """Count with joblib, range by range."""
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


WORDS: dict[str, Callable[[str], Any]] = {
    "plain loop": words_serial,
    "ProcessPoolExecutor over ranges": words_pool,
    "joblib over ranges": words_joblib,
    "flow, inline": lambda path: words_flow(path, 1, None),
    "flow, 1 process": lambda path: words_flow(path, 1, Process()),
    "flow, 2 processes": lambda path: words_flow(path, WORKERS, Process()),
    "flow, columns": words_columns,
}


# -- measuring --------------------------------------------------------------------------------------------------------


def measure(what: str, contenders: dict[str, Callable[[str], Any]], path: str, repeat: int) -> None:
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
                result = contender(path)
            except ImportError as error:
                missing.add(name)
                sys.stderr.write(f"{name}: left out, {error}\n")
                continue
            seconds.setdefault(name, []).append(time.perf_counter() - began)
            if expected is None:
                expected = dict(result)
            elif dict(result) != expected:
                raise SystemExit(f"{what}, {name}: another result than the plain loop's")
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
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headgate-"))
    try:
        path, used = corpus(folder, options.megabytes)
        sys.stdout.write(json.dumps({"text": used, "bytes": path.stat().st_size}) + "\n")
        chosen = {name: each for name, each in WORDS.items() if options.only in name}
        measure("words", chosen, str(path), options.repeat)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
