"""What is done with single events: descriptions, and what happens when a function of the user's fails.

Descriptions are frozen data plus the user's functions, so that they can be sent to where the work is done.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from headgate.errors import OperatorError, OptionError, short
from headgate.flow.times import Field, reader

_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 (compared as text)

MAP: Final = "map"
FILTER: Final = "filter"
REJECT: Final = "reject"
FLAT_MAP: Final = "flat_map"
MAP_VALUES: Final = "map_values"
TAP: Final = "tap"
MAP_BATCHES: Final = "map_batches"


class Failure(NamedTuple):
    """One event that an operator has failed with, as a side output gets it.

    Attributes:
        event: What the function was given.
        operator: Which operator, with its line.
        error: The exception, as text: its type and what it says.
        traceback: Of the worker, as text.
    """

    event: Any
    operator: str
    error: str
    traceback: str


@dataclass(frozen=True, eq=False)
class Side:
    """A side output: what is left out of the main flow goes there instead of being lost.

    Attributes:
        function: Called with a list of what comes (`Failure` of an operator; late events of a window), in the process
            that runs the flow. If it raises, the flow ends with that. Default: it is added to ``events``.
        events: What came, where there is no function.
    """

    function: Callable[[list[Any]], Any] | None = None
    events: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the function."""
        if self.function is not None and not callable(self.function):
            raise OptionError("flow.Side", "function", "a function of a list, or None", self.function)

    def take(self, events: list[Any]) -> None:
        """Take what has come."""
        if self.function is None:
            self.events.extend(events)
        else:
            self.function(events)


@dataclass(frozen=True)
class Retrying:
    """Call a function that has failed again, at once, before it counts as failed.

    Attributes:
        times: How often at most, beyond the first call.
        then: What happens when that fails, too: ``"raise"`` (default), ``"skip"`` or a `Side`.
    """

    times: int
    then: str | Side = "raise"


def retry(times: int, then: str | Side = "raise") -> Retrying:
    """Call a function that has failed up to ``times`` times more. See `Retrying`.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise OptionError("flow.retry", "times", "a whole number, 1 or more", times)
    if not isinstance(then, Side) and then not in ("raise", "skip"):
        raise OptionError("flow.retry", "then", "'raise', 'skip' or a Side", then)
    return Retrying(times, then)


Policy = str | Side | Retrying


@dataclass(frozen=True)
class Element:
    """One element-wise operator.

    Attributes:
        kind: ``"map"``, ``"filter"``, ...
        function: The user's.
        where: What errors and plans call it: with the name of the function, and the line of the program.
        retries: How often the function is called again when it raises.
        fails: What happens in the end: ``"raise"``, ``"skip"`` or ``"side"``.
        side: Its side output. Where the work is done it is only known by its number.
        number: That of its side output among those of the flow; -1: none.
    """

    kind: str
    function: Callable[..., Any]
    where: str
    retries: int = 0
    fails: str = "raise"
    side: Side | None = None
    number: int = -1

    @property
    def careful(self) -> bool:
        """Whether it goes on after a failure."""
        return self.retries > 0 or self.fails != "raise"


def element(kind: str, function: Any, errors: Policy, depth: int = 2) -> Element:
    """Describe an operator, with the line of the user's program that wanted it.

    Raises:
        OptionError: The function cannot be called, or the policy is none.
    """
    where = place(kind, function, depth + 1)
    if not callable(function):
        raise OptionError(where, "function", "a function", function)
    retries = 0
    if isinstance(errors, Retrying):
        retries, errors = errors.times, errors.then
    if isinstance(errors, Side):
        return Element(kind, function, where, retries, "side", errors)
    if errors not in ("raise", "skip"):
        raise OptionError(where, "errors", "'raise', 'skip', flow.retry(...) or a flow.Side(...)", errors)
    return Element(kind, function, where, retries, errors)


def place(kind: str, function: Any = None, depth: int = 1) -> str:
    """Name an operator: what it is, of which function, and the line of the user's program."""
    frame = sys._getframe(depth)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # there is no other way
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    inner = "" if function is None else name_of(function)
    return f"{kind}({inner}) at {os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"  # noqa: PTH119


def name_of(function: Any) -> str:
    """Return how a function is called in plans and errors."""
    if isinstance(function, (str, int)):
        return short(function)
    name = str(getattr(function, "__qualname__", None) or type(function).__qualname__)
    name = name.replace("<locals>.", "").rpartition(".")[2] or name
    return "lambda" if name == "<lambda>" else name


def reading(value: Field | None, where: str, option: str) -> Callable[[Any], Any] | None:
    """Return what reads a key or value off an event: None means the event itself."""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return _field(value)
    return None if value is None else reader(value, where, option)


@functools.cache
def _field(name: str | int) -> Callable[[Any], Any]:
    """Return the one function that reads a field, so that equal keys are known to be equal."""
    return reader(name, "", "")


def failed(operator: str, event: Any, error: BaseException) -> OperatorError:
    """Return the error that ends a flow, with the worker's traceback as text, as it may cross processes."""
    text = "".join(traceback.format_exception(error))
    raised = OperatorError(operator, event, f"{type(error).__name__}: {error}", text)
    raised.__cause__ = error
    return raised
