"""How flows begin: with iterables, files, stages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from headgate.errors import OptionError
from headgate.flow.graph import Node, SourceNode
from headgate.flow.inputs import ChildInput, FilesInput, Input, IterableInput, StageInput, check_iterable
from headgate.flow.operators import place
from headgate.flow.reading import CSV, JSONL, LINES, PARQUET, Files, find
from headgate.runtime.options import Child, To, check_count
from headgate.runtime.reference import Ref

if TYPE_CHECKING:
    import os

    Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class Beginning:
    """The part of `Flow` that begins one."""

    __slots__ = ()

    @classmethod
    def _begin(cls, node: Node) -> Self:
        return cls(node)  # type: ignore[call-arg]  # the whole class takes it

    @classmethod
    def from_iterable(cls, iterable: Any, **options: Any) -> Self:
        """Take the elements of a sequence, an iterable or an async iterable. See `from_iterables`."""
        return cls.from_iterables([iterable], **options)

    @classmethod
    def from_iterables(
        cls,
        iterables: Iterable[Any],
        *,
        max_demand: int = 1000,
        min_demand: int | None = None,
        place: str | None = None,
    ) -> Self:
        """Take the elements of several iterables, each at its own pace.

        An iterator (a generator, a file) can be iterated once only; everything else begins anew with each run.

        Args:
            iterables: Sequences (also arrays, which are cut without copying), iterables or async iterables.
            max_demand: Elements that a worker has of each at most.
            min_demand: How few it has when it asks for more; default: half. A batch has at most the difference.
            place: Where they are iterated: ``"thread"`` for those whose ``next`` blocks. Default: on the event loop.

        Raises:
            OptionError: One cannot be iterated, there is none, or an option is wrong.
        """
        where = "Flow.from_iterables"
        _check_demand(where, max_demand, min_demand)
        found = [iterables] if isinstance(iterables, Beginning) else list(iterables)
        if not found:
            raise OptionError(where, "iterables", "at least one", iterables)
        for each in found:
            if isinstance(each, Beginning):
                raise OptionError(where, "iterables", "no flow (Flow.merge puts flows together)", each)
            check_iterable(where, each)
        called = place_of("from_iterable")
        return cls._begin(
            SourceNode(inputs=tuple(IterableInput(called, max_demand, min_demand, each, place) for each in found))
        )

    @classmethod
    def from_lines(
        cls,
        paths: Paths,
        *,
        split: int | None = 4 << 20,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> Self:
        """Take the lines of text files, without their ends.

        Workers read the files themselves, in ranges of bytes; each line is of the range that it begins in. Compressed
        files (.gz, .bz2, .xz, .zip of one file) cannot be split: each is read by one worker.

        Args:
            paths: A path, a pattern (``"logs/**/*.txt"``), or several of them.
            split: Bytes of a range; None: each file is read by one worker.
            encoding: Of the text; one in which a line break is the byte 10.
            errors: What happens with bytes that are no such text, as of ``open``.

        Raises:
            OptionError: There is no such file, or an option is wrong.
        """
        return cls._files("from_lines", paths, LINES, split, encoding, errors)

    from_files = from_lines

    @classmethod
    def from_csv(
        cls,
        paths: Paths,
        *,
        fields: Iterable[str] | None = None,
        delimiter: str = ",",
        split: int | None = 4 << 20,
        encoding: str = "utf-8",
        errors: str = "strict",
    ) -> Self:
        """Take the rows of csv files, as dictionaries of text.

        A file in which something is quoted is read by one worker, as a line break may then be part of a value; all
        others are split as in `from_lines`.

        Args:
            paths: As `from_lines`.
            fields: The names of the columns; default: the first row of each file has them.
            delimiter: Between values.
            split: As `from_lines`.
            encoding: As `from_lines`.
            errors: As `from_lines`.

        Raises:
            OptionError: There is no such file, or an option is wrong.
        """
        names = None if fields is None else tuple(fields)
        return cls._files(
            "from_csv", paths, CSV, split, encoding, errors, (("fields", names), ("delimiter", delimiter))
        )

    @classmethod
    def from_jsonl(cls, paths: Paths, *, split: int | None = 4 << 20) -> Self:
        """Take the values of files that have one JSON value in each line; empty lines are passed over.

        Raises:
            OptionError: There is no such file, or an option is wrong.
        """
        return cls._files("from_jsonl", paths, JSONL, split, "utf-8", "strict")

    @classmethod
    def from_parquet(cls, paths: Paths, *, columns: Iterable[str] | None = None, batch: int | None = None) -> Self:
        """Take the rows of Parquet files, in batches of columns (``pyarrow.RecordBatch``); needs the extra ``columns``.

        `map_batches`, `where` and `aggregate` take such batches as they are; every other operator
        gets rows, as dictionaries.

        Args:
            paths: As `from_lines`.
            columns: Which columns; default: all.
            batch: Rows of a batch at most; default: a row group.

        Raises:
            OptionError: There is no such file, pyarrow is missing, or an option is wrong.
        """
        names = None if columns is None else tuple(columns)
        return cls._files("from_parquet", paths, PARQUET, None, "", "", (("columns", names), ("batch", batch)))

    @classmethod
    def _files(
        cls,
        kind: str,
        paths: Any,
        what: str,
        split: int | None,
        encoding: str,
        errors: str,
        options: tuple[tuple[str, Any], ...] = (),
    ) -> Self:
        where = f"Flow.{kind}"
        if split is not None:
            check_count(where, "split", split, 1, "a number of bytes, or None")
        if encoding:
            _check_encoding(where, encoding)
        files = Files(find(paths, where), what, split, encoding, errors, options)
        ahead = files.ahead()
        return cls._begin(SourceNode(inputs=(FilesInput(place_of(kind), ahead, ahead // 2, files),)))

    @classmethod
    def from_stages(cls, stages: Iterable[Ref | str | To], *, max_demand: int = 1000) -> Self:
        """Take the events of producers that run already. The flow ends when all of them have come to their end.

        It fails when one of them is not there, or does not end normally.

        Args:
            stages: References, names, or ``To(...)`` with terms of their own (but for ``cancel`` and ``key``).
            max_demand: Events that a worker has of each at most.

        Raises:
            OptionError: There is none, or one is something else.
        """
        where = "Flow.from_stages"
        found = list(stages) if not isinstance(stages, (str, Ref, To)) else [stages]
        if not found or not all(isinstance(each, (Ref, str, To)) for each in found):
            raise OptionError(where, "stages", "references, names or To(...), at least one", stages)
        inputs: tuple[Input, ...] = tuple(StageInput(place_of("from_stages"), max_demand, None, each) for each in found)
        return cls._begin(SourceNode(inputs=inputs))

    @classmethod
    def from_children(cls, children: Iterable[Child], *, max_demand: int = 1000) -> Self:
        """Take the events of producers that run as part of the flow.

        Args:
            children: Their recipes. One that raises `Ignore` when it starts is left out.
            max_demand: Events that a worker has of each at most.

        Raises:
            OptionError: There is none, or one is no producer.
        """
        where = "Flow.from_children"
        found = list(children) if not isinstance(children, Child) else [children]
        if not found or not all(isinstance(each, Child) and each.role != "consumer" for each in found):
            raise OptionError(where, "children", "recipes of producers: Child(...), at least one", children)
        inputs: tuple[Input, ...] = tuple(
            ChildInput(place_of("from_children"), max_demand, None, each) for each in found
        )
        return cls._begin(SourceNode(inputs=inputs))


def place_of(kind: str, function: Any = None) -> str:
    """Return the name and the line of an operator that the user's program has written down."""
    return place(kind, function, 3)


def _check_demand(where: str, max_demand: Any, min_demand: Any) -> None:
    check_count(where, "max_demand", max_demand, 1)
    if min_demand is not None:
        check_count(where, "min_demand", min_demand, 0)
        if min_demand >= max_demand:
            raise OptionError(where, "min_demand", f"an integer below max_demand ({max_demand})", min_demand)


def _check_encoding(where: str, encoding: str) -> None:
    try:
        good = "\n".encode(encoding) == b"\n"
    except (LookupError, UnicodeError):
        good = False
    if not good:
        raise OptionError(where, "encoding", "one in which a line break is the byte 10", encoding)
