"""What goes into the file of `SQLiteQueue` and what comes out: rows, payloads as JSON, and records to look at."""

from __future__ import annotations

import json
import traceback as tracebacks
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from headgate.connectors.options import check_seconds
from headgate.errors import OptionError
from headgate.failures import cut
from headgate.types import Message

STATES: Final = ("waiting", "delayed", "leased", "behind", "dead", "done")
"""By the number of the state. What is ``behind`` counts as waiting: an earlier message of its key is under way."""

LONGEST_KEY: Final = 1_000
"""Characters of a key, user or dedupe key at most: they stand in indexes as well."""
_SMALLEST: Final = -(2**63)

COLUMNS: Final = (
    "id, state, body, key, user, priority, deliveries, due, deadline, dedupe, put_at, ended_at, metadata, reason, "
    "traceback"
)

_NAMES: Final = tuple(COLUMNS.replace("body", "data").split(", "))

_encode_json: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

Row = tuple[Any, ...]
"""Of a message to be put: state, priority, due, key, user, dedupe, deadline, put_at, metadata, body."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many messages of a queue are in which state, at one moment.

    Attributes:
        waiting: To be handed out now, or as soon as earlier ones of their key have ended.
        delayed: To be handed out later: put with a delay, or being retried.
        leased: Under way.
        expired: They were under way, and their lease is over: the next `fetch` of anybody takes them back.
        dead: Dead letters.
        done: Acknowledged, or discarded; only those that were kept (``keep_done``).
    """

    waiting: int
    delayed: int
    leased: int
    expired: int
    dead: int
    done: int

    @property
    def left(self) -> int:
        """How many have not ended."""
        return self.waiting + self.delayed + self.leased + self.expired


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message as it stands in the file. Times are Unix times in seconds.

    Attributes:
        id: Its number; no other message of the file ever has it.
        state: ``"waiting"``, ``"delayed"``, ``"leased"``, ``"behind"`` (it waits for an earlier one of its key),
            ``"dead"`` or ``"done"``.
        data: The payload. One that cannot be decoded: as it stands in the file.
        key: What it belongs to.
        user: Whose it is.
        priority: Those of a higher one go first.
        deliveries: How often it has been handed out.
        due: When its delay or lease is over; else None.
        deadline: From when on it is not worth handling, or None.
        dedupe: By which it is unique, or None.
        put_at: When it was put.
        ended_at: When it was given up or done, or None.
        metadata: As it was put.
        reason: Why it failed (last), or None.
        traceback: The same in full, or None.
    """

    id: int
    state: str
    data: Any
    key: Any
    user: Any
    priority: int
    deliveries: int
    due: float | None
    deadline: float | None
    dedupe: str | None
    put_at: float
    ended_at: float | None
    metadata: dict[str, Any] | None
    reason: str | None
    traceback: str | None


class Codec:
    """Turns payloads into text or bytes and back.

    Args:
        where: Whose options these are.
        encode: A function of a payload that returns a string or bytes. Default: JSON, and bytes as they are.
        decode: The inverse.
    """

    def __init__(
        self, where: str, encode: Callable[[Any], str | bytes] | None, decode: Callable[[Any], Any] | None
    ) -> None:
        """Check that both or none are given."""
        for option, value in (("encode", encode), ("decode", decode)):
            if value is not None and not callable(value):
                raise OptionError(where, option, "a function of one argument, or None", value)
        if (encode is None) is not (decode is None):
            missing = "encode" if encode is None else "decode"
            raise OptionError(where, missing, "given as well: what one of the two writes the other one reads", None)
        self._where = where
        self._encode = encode
        self.decode: Callable[[Any], Any] = decode or _decode

    def encode(self, data: Any) -> str | bytes:
        """Encode a payload.

        Raises:
            OptionError: It cannot be encoded; ``__cause__`` says why.
        """
        if self._encode is not None:
            made = self._encode(data)
            if not isinstance(made, (str, bytes)):
                raise OptionError(self._where, "encode", "a function that returns a string or bytes", made)
            return made
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)
        try:
            return _encode_json(data)
        except (TypeError, ValueError, RecursionError) as error:
            expected = "something that JSON can say, or bytes (anything else: give encode= and decode=)"
            raise OptionError(self._where, "data", expected, data) from error

    def row(  # noqa: PLR0913 (these are the columns)
        self,
        data: Any,
        now: float,
        *,
        key: Any = None,
        user: Any = None,
        priority: int = 0,
        delay: float = 0.0,
        deadline: float | None = None,
        dedupe: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Row:
        """Return the row of a message.

        Raises:
            OptionError: Something cannot be kept.
        """
        body = self.encode(data)
        if key is not None:
            check_key(self._where, "key", key)
        if user is not None:
            check_key(self._where, "user", user)
        if priority:
            check_integer(self._where, "priority", priority)
        elif isinstance(priority, bool) or not isinstance(priority, int):
            raise OptionError(self._where, "priority", "an integer", priority)
        if dedupe is not None:
            check_text(self._where, "dedupe", dedupe)
        if deadline is not None:
            check_seconds(self._where, "deadline", deadline)
        kept = None if metadata is None else self._metadata(metadata)
        if delay and check_seconds(self._where, "delay", delay):
            return (1, priority, now + delay, key, user, dedupe, deadline, now, kept, body)
        return (0, priority, None, key, user, dedupe, deadline, now, kept, body)

    def _metadata(self, metadata: Mapping[str, Any]) -> str:
        if not isinstance(metadata, Mapping):
            raise OptionError(self._where, "metadata", "a dict that JSON can say, or None", metadata)
        try:
            return _encode_json(dict(metadata))
        except (TypeError, ValueError, RecursionError) as error:
            raise OptionError(self._where, "metadata", "a dict that JSON can say, or None", metadata) from error

    def record(self, row: tuple[Any, ...]) -> QueuedMessage:
        """Return a record of a row of `COLUMNS`."""
        found = dict(zip(_NAMES, row, strict=True))
        with suppress(Exception):  # the user's function; whoever looks at the queue wants to see it all the same
            found["data"] = self.decode(found["data"])
        if found["metadata"] is not None:
            found["metadata"] = json.loads(found["metadata"])
        found["state"] = STATES[found["state"]]
        return QueuedMessage(**found)

    def message(self, row: Any, token: int) -> Message:
        """Return the message of a row that was claimed; what a ``decode`` raises passes."""
        _, number, key, user, deliveries, deadline, metadata, body = row
        kept = None
        if metadata is not None:
            kept = json.loads(metadata)
        if user is not None:
            kept = kept or {}
            kept["user"] = user
        message = Message(self.decode(body), kept, key, receipt=(number, token), deliveries=deliveries)
        if deadline is not None:
            message.deadline = deadline
        return message


def _decode(body: str | bytes) -> Any:
    return json.loads(body) if type(body) is str else body


def check_key(where: str, option: str, value: Any) -> None:
    """Refuse what cannot be a key of the file: it must come back as it was put, and be ordered."""
    if isinstance(value, str):
        check_text(where, option, value)
    else:
        check_integer(where, option, value, "a string, an integer of 64 bits, or None")


def check_text(where: str, option: str, value: Any) -> None:
    """Refuse what is no string, is too long, or cannot be written as UTF-8."""
    if not isinstance(value, str) or len(value) > LONGEST_KEY:
        raise OptionError(where, option, f"a string of at most {LONGEST_KEY} characters, or None", value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise OptionError(where, option, "a string that can be written as UTF-8", value) from error


def check_integer(where: str, option: str, value: Any, expected: str = "an integer of 64 bits") -> None:
    """Refuse what is no integer, or does not fit."""
    if isinstance(value, bool) or not isinstance(value, int) or not _SMALLEST < value < -_SMALLEST:
        raise OptionError(where, option, expected, value)


def why_unreadable(error: Exception) -> tuple[str, str]:
    """Return why a message that cannot be decoded has failed."""
    line = " ".join("".join(tracebacks.format_exception_only(error)).split())
    return cut(f"it cannot be decoded: {line}"), cut("".join(tracebacks.format_exception(error)))
