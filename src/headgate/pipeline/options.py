"""`Processors` and `Batcher`: the options of a pipeline's steps, checked when they are given."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from headgate.errors import OptionError
from headgate.protocol.retries import Retries, RetryPolicy
from headgate.runtime.options import check_choice, check_count, check_name, check_seconds, refuse_unknown
from headgate.runtime.places import Process, cores

PLACES: Final = ("inline", "task", "thread")

RETRY: Final = "retry"
DEAD_LETTER: Final = "dead_letter"
DISCARD: Final = "discard"
REQUEUE: Final = "requeue"
ON_FAILURE: Final = (RETRY, DEAD_LETTER, DISCARD, REQUEUE)

OVERFLOWS: Final = (None, "block", "requeue")

Handler = Callable[..., Any]


class Processors:
    """The options of one processing step: stages that each handle one message at a time.

    Args:
        handler: A function of a message, plain or async, or the name of the pipeline's method. Default: for the only
            step ``handle_message``; for a named one ``handle_NAME``.
        concurrency: How many stages. Default: twice the number of cores; with worker processes, one for each core.
        max_demand: How many messages each of them may hold. Default 10 for plain handlers, which are quick; 1 for async
            ones and threads, so that no message waits behind a slow one while another stage has nothing to do.
        min_demand: It asks for more when no more than this many are left. Default: half of ``max_demand``.
        timeout: Seconds that a handler may take for one message; then it is cancelled (a thread is left to itself, a
            worker process is killed), and the message has failed. Default None: any. Not for plain handlers that run
            inline.
        retry: A `RetryPolicy`, or a dict of exception classes and policies (None: not at all), for messages that the
            handler fails with. Default None: it is up to the source to hand it out again.
        place: ``"inline"``, ``"task"``, ``"thread"``, or a `Process` for handlers that compute: then each stage has a
            worker process for its handler, plain or async, while all else stays here. Default: in a task when the
            handler is async, else inline.

    Raises:
        OptionError: An option is unknown, of the wrong type or out of range.
    """

    ordered: bool | None = None  # of a step that runs many messages in one stage

    def __init__(
        self,
        handler: Handler | str | None = None,
        *,
        concurrency: int | None = None,
        max_demand: int | None = None,
        min_demand: int | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | Mapping[Any, RetryPolicy | None] | None = None,
        place: str | Process | None = None,
        **unknown: Any,
    ) -> None:
        """Check the options."""
        where = "Processors"
        refuse_unknown(where, unknown, Processors.__init__)
        self.handler = _check_handler(where, "handler", handler)
        if concurrency is not None:
            check_count(where, "concurrency", concurrency, 1)
        self.place = _check_place(where, place)
        usual = cores() if isinstance(place, Process) else 2 * (os.cpu_count() or 1)
        self.concurrency = concurrency or usual
        if max_demand is not None:
            check_count(where, "max_demand", max_demand, 1)
        if min_demand is not None:
            check_count(where, "min_demand", min_demand, 0)
        self.max_demand = max_demand
        self.min_demand = min_demand
        self.timeout = check_limit(where, "timeout", timeout)
        self.retry = check_retry(where, "retry", retry)


class Batcher:
    """The options of one batcher: it collects messages, and hands them to ``handle_batch`` together.

    Args:
        handler: A function of a list of messages and a `BatchInfo`, plain or async, or the name of the pipeline's
            method. Default ``handle_batch``.
        size: Messages of a batch, default 100. Or a pair of a state and a function ``(message, state) -> (emit,
            state)`` that says after which message a batch is complete; the state goes on with the next batch.
        max_bytes: A batch holds no more bytes than this, unless one message alone does; needs ``sizer``.
        sizer: A function of a message: how many bytes it counts for. Default: ``len(message.data)``.
        timeout: Seconds from its first message on after which a batch is complete in any case. Default 1.
        key: A function of a message: messages of different keys are never in one batch. Default: its ``batch_key``.
        concurrency: How many batches are handled at a time. Default 1.
        serial: Batches of one key are handled one after the other, in order. Default False.
        max_open: How many batches may be open at a time, one for each key; one more closes the oldest. Default 100.
        max_waiting: How many complete batches may wait. Default: ``concurrency``, and at least 2.
        overflow: What happens when they are: ``"block"``: nothing more is fetched until there is room. ``"requeue"``:
            messages for this batcher go back to their source for a while, and the others go on. Default: block when it
            is the only one, or when the source cannot take messages back; else requeue.
        run_timeout: Seconds that the handler may take for one batch. Default None: any.
        retry: As of `Processors`, for batches that the handler raises for. They are tried again where they are.
        isolate: A batch that fails for good is handled in halves, so that only the messages that are to blame fail.
            Default True.
        place: As of `Processors`.

    Raises:
        OptionError: An option is unknown, of the wrong type or out of range.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        handler: Handler | str | None = None,
        *,
        size: int | tuple[Any, Callable[[Any, Any], tuple[bool, Any]]] = 100,
        max_bytes: int | None = None,
        sizer: Callable[[Any], int] | None = None,
        timeout: float = 1.0,
        key: Callable[[Any], Any] | None = None,
        concurrency: int = 1,
        serial: bool = False,
        max_open: int = 100,
        max_waiting: int | None = None,
        overflow: str | None = None,
        run_timeout: float | None = None,
        retry: RetryPolicy | Mapping[Any, RetryPolicy | None] | None = None,
        isolate: bool = True,
        place: str | Process | None = None,
        **unknown: Any,
    ) -> None:
        """Check the options."""
        where = "Batcher"
        refuse_unknown(where, unknown, Batcher.__init__)
        self.handler = _check_handler(where, "handler", handler)
        _check_size(where, size)
        self.size = size
        if max_bytes is not None:
            check_count(where, "max_bytes", max_bytes, 1, "an integer of at least 1, or None")
        self.max_bytes = max_bytes
        self.sizer = _check_function(where, "sizer", sizer, "a function of a message, or None") or _length
        self.timeout = check_seconds(where, "timeout", timeout, "a number of seconds above 0")
        if not self.timeout:
            raise OptionError(where, "timeout", "a number of seconds above 0", timeout)
        self.key = _check_function(where, "key", key, "a function of a message, or None")
        check_count(where, "concurrency", concurrency, 1)
        self.concurrency = concurrency
        check_choice(where, "serial", serial, (True, False))
        self.serial = serial
        check_count(where, "max_open", max_open, 1)
        self.max_open = max_open
        if max_waiting is not None:
            check_count(where, "max_waiting", max_waiting, 1, "an integer of at least 1, or None")
        self.max_waiting = max_waiting or max(2, concurrency)
        check_choice(where, "overflow", overflow, OVERFLOWS)
        self.overflow = overflow
        self.run_timeout = check_limit(where, "run_timeout", run_timeout)
        self.retry = check_retry(where, "retry", retry)
        check_choice(where, "isolate", isolate, (True, False))
        self.isolate = isolate
        self.place = _check_place(where, place)


def _check_place(where: str, place: Any) -> str | Process | None:
    """Refuse what is no place for a handler."""
    if not isinstance(place, Process):
        if place is not None and (not isinstance(place, str) or place not in PLACES):
            raise OptionError(where, "place", f"one of None, {', '.join(map(repr, PLACES))}, or Process(...)", place)
        return place
    if place.group is not None:
        expected = "a Process without group=, as each stage has a worker of its own that may be killed"
        raise OptionError(where, "place", expected, place)
    return place


def check_limit(where: str, option: str, value: Any) -> float | None:
    """Refuse what is no limit in seconds."""
    if value is None:
        return None
    seconds = check_seconds(where, option, value, "a number of seconds above 0, or None")
    if not seconds:
        raise OptionError(where, option, "a number of seconds above 0, or None", value)
    return seconds


def check_retry(where: str, option: str, value: Any) -> Retries | None:
    """Refuse what is no retry policy."""
    if value is None:
        return None
    if not isinstance(value, (RetryPolicy, Mapping)):
        raise OptionError(where, option, "a RetryPolicy(...), a dict of exception classes and policies, or None", value)
    return Retries(value, where=where)


def check_handler_place(
    where: str, handler: Handler, place: str | Process | None, timeout: float | None, limit: str = "timeout"
) -> str | Process:
    """Return where a handler runs, or refuse a place that does not fit it."""
    asynchronous = is_async(handler)
    if place is None:
        place = "task" if asynchronous else "inline"
    if asynchronous and place != "task" and not isinstance(place, Process):
        raise OptionError(where, "place", f"'task' or Process(...), as {_name(handler)} is async", place)
    if timeout is not None and place == "inline":
        raise OptionError(where, limit, "None: a plain handler that runs inline cannot be cancelled", timeout)
    return place


def remark_of(place: str | Process) -> str:
    """Say for pictures where a handler runs, if its stage does not."""
    word = place.word if isinstance(place, Process) else place
    return f"handler in a {word}" if word in ("thread", "process") else ""


def is_async(handler: Any) -> bool:
    """Say whether a handler is an async function."""
    call = getattr(handler, "__call__", None)  # noqa: B004 (an object with an async __call__)
    return inspect.iscoroutinefunction(inspect.unwrap(handler)) or inspect.iscoroutinefunction(call)


def named(where: str, option: str, value: Any, kind: type[Any], default: str | None) -> dict[str, Any]:
    """Return options by name: given one alone, a list, or a dict; each an object of their kind, a dict or None.

    Args:
        where: For errors.
        option: For errors.
        value: What was given.
        kind: `Processors` or `Batcher`.
        default: The name of one that is given alone; None: there has to be a dict.
    """
    expected = f"{kind.__name__}(...), or a dict of names and those"
    if value is None:
        value = {}
    if default is not None and (isinstance(value, kind) or _looks_like_options(value, kind)):
        value = {default: value}
    if not isinstance(value, Mapping):
        raise OptionError(where, option, expected, value)
    found: dict[str, Any] = {}
    for name, each in value.items():
        check_name(where, option, name)
        made = kind(**each) if isinstance(each, Mapping) else kind() if each is None else each
        if not isinstance(made, kind):
            raise OptionError(where, f"{option}[{name!r}]", expected, each)
        found[name] = made
    return found


def _looks_like_options(value: Any, kind: type[Any]) -> bool:
    """Say whether a dict holds the options of one, and no names of several."""
    known = inspect.signature(kind.__init__).parameters
    return isinstance(value, Mapping) and bool(value) and all(name in known for name in value)


def _check_handler(where: str, option: str, value: Any) -> Any:
    if value is not None and not isinstance(value, str) and not callable(value):
        raise OptionError(where, option, "a function, the name of a method, or None", value)
    return value


def _check_function(where: str, option: str, value: Any, expected: str) -> Any:
    if value is not None and not callable(value):
        raise OptionError(where, option, expected, value)
    return value


def _check_size(where: str, size: Any) -> None:
    expected = "an integer of at least 1, or a pair of a state and a function (message, state) -> (emit, state)"
    if isinstance(size, tuple):
        if len(size) != 2 or not callable(size[1]):  # noqa: PLR2004 (a pair)
            raise OptionError(where, "size", expected, size)
        try:
            inspect.signature(size[1]).bind(None, None)
        except TypeError:
            raise OptionError(where, "size", expected, size) from None
        except ValueError:  # it has no signature that can be seen
            return
    else:
        check_count(where, "size", size, 1, expected)


def _length(message: Any) -> int:
    return len(message.data)


def _name(handler: Any) -> str:
    return getattr(handler, "__name__", type(handler).__name__)
