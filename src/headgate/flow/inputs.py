"""Where the events of a flow come from: descriptions, and the stages that hand work to the workers."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from headgate.errors import OptionError
from headgate.flow.exchange import End, WorkDispatcher
from headgate.flow.reading import FileRange, Files, plan_ranges
from headgate.protocol.batching import is_batch
from headgate.runtime.options import Child, To
from headgate.runtime.reference import Ref
from headgate.sources import AsyncIterableProducer, IterableProducer, SequenceProducer
from headgate.stage import Producer

_OVER: Final = "no more work"


@dataclass(frozen=True)
class Input:
    """One source of a flow.

    Attributes:
        where: What plans call it.
        max_demand: How many events a worker has at most.
        min_demand: How few, before it asks for more; None: half.
    """

    where: str
    max_demand: int = 1000
    min_demand: int | None = None

    outside = False
    """Its stages exist before the flow, and live on after it."""
    whole = True
    """A worker does what it is handed at one time in one piece."""
    ours = True
    """It says its last word to all workers (`End`), and keeps what is not acknowledged for others."""

    @property
    def bounded(self) -> bool:
        """Whether it is known to end."""
        return False

    @property
    def repeatable(self) -> bool:
        """Whether it can be read again from the beginning."""
        return False

    @property
    def volume(self) -> int | None:
        """How much there is, in events or bytes; None: nobody knows."""
        return None

    def child(self, name: str, number: int, gone: Callable[[str, int], None]) -> Child:
        """Return the recipe of its stage.

        Args:
            name: What to call it.
            number: The number of the source.
            gone: As of `WorkDispatcher`.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class IterableInput(Input):
    """Anything that can be iterated.

    Attributes:
        iterable: A sequence, an iterable or an async iterable.
        place: Where it is iterated; None: on the loop.
    """

    iterable: Any = ()
    place: Any = None

    @property
    def bounded(self) -> bool:
        """Whether it has a length."""
        return hasattr(self.iterable, "__len__")

    @property
    def repeatable(self) -> bool:
        """Whether it is no iterator, which is used up by iterating."""
        return not hasattr(self.iterable, "__next__") and not hasattr(self.iterable, "__anext__")

    @property
    def volume(self) -> int | None:
        """Its length."""
        return len(self.iterable) if hasattr(self.iterable, "__len__") else None

    def child(self, name: str, number: int, gone: Callable[[str, int], None]) -> Child:
        """Return the recipe of the stage that iterates over it."""
        iterable = self.iterable
        if isinstance(iterable, AsyncIterable):
            cls: type[Any] = _AsyncWork
        else:
            cls = _SequenceWork if is_batch(iterable) else _IterableWork
        return Child(cls, iterable, number, name=name, dispatcher=WorkDispatcher(gone), place=self.place, **_OPTIONS)


@dataclass(frozen=True)
class FilesInput(Input):
    """Files that workers read themselves, each its ranges.

    Attributes:
        files: Which, and what is in them.
    """

    files: Files = field(default_factory=Files)

    @property
    def whole(self) -> bool:  # type: ignore[override]
        """Whether no range is so long that it is read bit by bit."""
        return not any(map(self.files.in_pieces, self.files.paths))

    @property
    def bounded(self) -> bool:
        """Yes."""
        return True

    @property
    def repeatable(self) -> bool:
        """Yes."""
        return True

    @property
    def volume(self) -> int | None:
        """Bytes."""
        return self.files.size()

    def narrowed(self, columns: tuple[str, ...], groups: tuple[str, ...]) -> FilesInput:
        """Return the same for somebody who looks at some columns only, and groups by some of them."""
        options = dict(self.files.options)
        options["groups"] = groups
        options["columns"] = columns if options["columns"] is None else options["columns"]
        return replace(self, files=replace(self.files, options=tuple(options.items())))

    def child(self, name: str, number: int, gone: Callable[[str, int], None]) -> Child:
        """Return the recipe of the stage that hands out ranges."""
        return Child(RangeWork, self.files, number, name=name, dispatcher=WorkDispatcher(gone), **_OPTIONS)


@dataclass(frozen=True)
class StageInput(Input):
    """A producer that runs already; it belongs to somebody else."""

    stage: Ref | str | To = ""
    outside = True
    ours = False


@dataclass(frozen=True)
class ChildInput(Input):
    """A producer that runs as part of the flow."""

    recipe: Child | None = None
    ours = False

    @property
    def repeatable(self) -> bool:
        """Whether starting it again begins anew: nobody can know."""
        return False

    def child(self, name: str, number: int, gone: Callable[[str, int], None]) -> Child:  # noqa: ARG002 (its form)
        """Return it under a name of the flow's."""
        assert self.recipe is not None  # noqa: S101 (given)
        child = copy.copy(self.recipe)
        child.name, child.id = child.name or name, child.name or name
        child.restart = "temporary"
        return child


_OPTIONS: Final[dict[str, Any]] = {
    "restart": "temporary",
    "demand": "accumulate",
    "buffer_size": None,
    "max_deliveries": None,
}


class _Work(Producer):
    """A source that says its last word to all workers before it ends."""

    number = 0
    _over = False

    def finish(self) -> None:
        """End after what is on its way."""
        if not self._over:
            self._over = True
            self.stage.cast(_OVER)

    def end(self) -> None:
        """Tell all workers."""
        self.stage.emit([End(self.number)])
        self.stage.finish()


class _SequenceWork(_Work, SequenceProducer):
    def __init__(self, sequence: Any, number: int) -> None:
        super().__init__(sequence, "continue")
        self.number = number

    def handle_cast(self, message: Any) -> None:  # noqa: ARG002 (a callback's form)
        self.end()


class _IterableWork(_Work, IterableProducer):
    def __init__(self, iterable: Iterable[Any], number: int) -> None:
        super().__init__(iterable, "continue")
        self.number = number

    def handle_cast(self, message: Any) -> Any:
        if message is not _OVER and message != _OVER:
            return super().handle_cast(message)
        self.end()
        return None


class _AsyncWork(_Work, AsyncIterableProducer):
    def __init__(self, iterable: AsyncIterable[Any], number: int) -> None:
        super().__init__(iterable, "continue")
        self.number = number

    async def handle_cast(self, message: Any) -> None:  # noqa: ARG002 (a callback's form)
        self.end()


class RangeWork(_Work):
    """Hands out ranges of files."""

    def __init__(self, files: Files, number: int) -> None:
        """Begin with the first file when it is asked."""
        self.number = number
        self._ranges: Iterator[FileRange] = plan_ranges(files)

    def handle_demand(self, demand: int) -> Sequence[FileRange]:
        """Give the next ranges."""
        found: list[FileRange] = []
        for each in self._ranges:
            found.append(each)
            if len(found) == demand:
                return found
        self.finish()
        return found

    def handle_cast(self, message: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Tell all workers that there are no more."""
        self.end()


def check_iterable(where: str, iterable: Any) -> None:
    """Refuse what cannot be iterated.

    Raises:
        OptionError: It is text, bytes or no iterable.
    """
    good = isinstance(iterable, (Iterable, AsyncIterable)) or is_batch(iterable)
    if not good or isinstance(iterable, (str, bytes)):
        raise OptionError(where, "iterable", "a sequence, an iterable or an async iterable", iterable)
