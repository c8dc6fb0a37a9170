"""Columns: batches of Arrow instead of lists of events, for whoever needs the speed. Needs the extra ``columns``.

A batch of columns (``pyarrow.RecordBatch``) goes through a flow like any other batch: it is cut, counted and handed on
without its rows being touched. What is in here works on columns; every other operator gets rows, as dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import OptionError
from headgate.flow.folds import Fold

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:  # pragma: no cover (the tests have it)
    raise OptionError("Flow", "columns", "used with pyarrow installed: pip install headgate[columns]", None) from error

if TYPE_CHECKING:
    from headgate.flow.reading import FileRange

PARTS: Final = 64
"""Partial results that are kept side by side before they are put together."""
ROWS: Final = 100_000
"""Rows of those, at most."""

_ALONE: Final = {"sum": "sum", "count": "sum", "min": "min", "max": "max", "any": "any", "all": "all"}
"""What is done with the partial results of each aggregate."""


def row_groups(path: str) -> int:
    """Return how many parts a Parquet file has that can be read by themselves."""
    return int(pq.read_metadata(path).num_row_groups)


def read_groups(part: FileRange) -> Iterator[Any]:
    """Yield the rows of a row group, as batches of columns."""
    columns = part.files.option("columns")
    groups = part.files.option("groups") or ()
    with pq.ParquetFile(part.path, memory_map=True, read_dictionary=list(groups)) as file:
        yield from file.iter_batches(
            batch_size=part.files.option("batch") or 1 << 17,
            row_groups=range(part.start, part.stop),
            columns=None if columns is None else list(columns),
        )


def as_columns(events: Any) -> Any:
    """Return a batch as columns: lists of mappings become some, others are taken as they are.

    Raises:
        TypeError: The events are no mappings.
    """
    if isinstance(events, pa.RecordBatch):
        return events
    if isinstance(events, pa.Table):
        return _batch(events)
    return pa.RecordBatch.from_pylist(list(events))


def _batch(table: Any) -> Any:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def is_expression(value: object) -> bool:
    """Say whether it is an expression of ``pyarrow.compute``."""
    return isinstance(value, pc.Expression)


@dataclass(frozen=True)
class Where:
    """Keeps the rows for which an expression of ``pyarrow.compute`` is true."""

    expression: Any

    def __call__(self, events: Any) -> Any:
        """Filter a batch."""
        if not len(events):
            return events
        return _batch(pa.Table.from_batches([as_columns(events)]).filter(self.expression))


@dataclass(frozen=True)
class Aggregate(Fold):
    """A group-by of columns. Accumulator: tables of partial results.

    Attributes:
        keys: The columns that rows are grouped by.
        wanted: (name of the result, column, aggregate).
    """

    keys: tuple[str, ...]
    wanted: tuple[tuple[str, str, str], ...]
    merges = True
    columns = True

    def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the columns that it looks at, and the keys."""
        return tuple(dict.fromkeys((*self.keys, *(column for _, column, _ in self.wanted)))), self.keys

    def begin(self) -> list[Any]:
        """Start with nothing."""
        return []

    def add(self, accumulator: Any, events: Any) -> Any:
        """Aggregate a batch by itself."""
        batches = [events] if hasattr(events, "num_rows") else [as_columns(events)]
        for batch in batches:
            if not batch.num_rows:
                continue
            table = pa.Table.from_batches([batch])
            accumulator.append(self._grouped(table, self._first(), rename=self._partials()))
        return self._tidy(accumulator)

    def merge(self, accumulator: Any, other: Any) -> Any:
        """Put the tables side by side."""
        accumulator.extend(other)
        return self._tidy(accumulator)

    def results(self, accumulator: Any) -> Any:
        """Return one batch of columns: the keys, then the results."""
        if not accumulator:
            return []
        table = self._together(accumulator)
        columns = [table.column(name) for name in self.keys]
        for _, column, aggregate in self.wanted:
            if aggregate == "mean":
                total, count = (table.column(f"{column} {part}") for part in ("sum", "count"))
                columns.append(
                    pc.divide(  # pyright: ignore[reportAttributeAccessIssue]  # made at run time
                        pc.cast(total, pa.float64()), pc.cast(count, pa.float64())
                    )
                )
            else:
                columns.append(table.column(f"{column} {aggregate}"))
        names = [*self.keys, *(name for name, _, _ in self.wanted)]
        return _batch(pa.table(dict(zip(names, columns, strict=True))))

    def empty(self, accumulator: Any) -> bool:
        """Say whether there are no tables."""
        return not accumulator

    def size(self, accumulator: Any) -> int:
        """Return the rows of the tables."""
        return sum(table.num_rows for table in accumulator)

    def _first(self) -> list[tuple[str, str]]:
        """Return what is computed from rows, each once."""
        wanted: dict[tuple[str, str], None] = {}
        for _, column, aggregate in self.wanted:
            for each in ("sum", "count") if aggregate == "mean" else (aggregate,):
                wanted[column, each] = None
        return list(wanted)

    def _partials(self) -> list[str]:
        return [f"{column} {aggregate}" for column, aggregate in self._first()]

    def _grouped(self, table: Any, aggregates: list[tuple[str, str]], *, rename: list[str]) -> Any:
        grouped = table.group_by(list(self.keys)).aggregate(aggregates)
        made = [f"{column}_{aggregate}" for column, aggregate in aggregates]
        columns = [_plain(grouped.column(name)) for name in (*self.keys, *made)]
        return pa.table(dict(zip((*self.keys, *rename), columns, strict=True)))

    def _tidy(self, accumulator: list[Any]) -> list[Any]:
        if len(accumulator) > PARTS or (len(accumulator) > 8 and self.size(accumulator) > ROWS):  # noqa: PLR2004
            return [self._together(accumulator)]
        return accumulator

    def _together(self, tables: list[Any]) -> Any:
        if len(tables) == 1:
            return tables[0]
        names = self._partials()
        again = [(name, _ALONE[aggregate]) for name, (_, aggregate) in zip(names, self._first(), strict=True)]
        return self._grouped(pa.concat_tables(tables, promote_options="permissive"), again, rename=names)


def _plain(column: Any) -> Any:
    """Return a column without its dictionary: those of several files need not be the same."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


AGGREGATES: Final = (*_ALONE, "mean")


def aggregate(where: str, keys: Iterable[str] | str, wanted: dict[str, tuple[str, str]]) -> Aggregate:
    """Check what is wanted.

    Raises:
        OptionError: A key is no name of a column, or an aggregate is unknown.
    """
    names = (keys,) if isinstance(keys, str) else tuple(keys)
    if not all(isinstance(each, str) for each in names):
        raise OptionError(where, "keys", "names of columns", keys)
    found: list[tuple[str, str, str]] = []
    for name, pair in wanted.items():
        if not isinstance(pair, tuple) or len(pair) != 2 or pair[1] not in AGGREGATES:  # noqa: PLR2004
            raise OptionError(where, name, f"(column, aggregate), of {', '.join(AGGREGATES)}", pair)
        found.append((name, *pair))
    if not found:
        raise OptionError(where, "results", "at least one: name=(column, aggregate)", wanted)
    return Aggregate(where, names, tuple(found))


class ParquetFile:
    """Writes batches into a Parquet file; the first says which columns there are."""

    def __init__(self, path: str) -> None:
        """Open nothing yet."""
        self._path = path
        self._writer: Any = None

    def write(self, events: Any) -> None:
        """Append a batch."""
        batch = as_columns(events)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, batch.schema)
        self._writer.write_batch(batch.cast(self._writer.schema) if batch.schema != self._writer.schema else batch)

    def close(self) -> None:
        """Complete the file."""
        if self._writer is None:
            pq.write_table(pa.table({}), self._path)
        else:
            self._writer.close()
