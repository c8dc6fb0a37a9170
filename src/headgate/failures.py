"""Why a message has failed, as text that every store can keep."""

from __future__ import annotations

import traceback as tracebacks
from typing import Final

from headgate.errors import short
from headgate.types import Message

_LONGEST_TEXT: Final = 64_000


def why(message: Message) -> tuple[str | None, str | None]:
    """Return why a message has failed, in one line and in full; None and None: it has not."""
    reason = message.reason
    if reason is None:
        return None, None
    try:
        if isinstance(reason, BaseException):
            line = " ".join("".join(tracebacks.format_exception_only(reason)).split())
        else:
            line = reason if isinstance(reason, str) else short(reason)
        full = message.traceback
    except Exception:  # noqa: BLE001 (a repr of the user's; the letter must not be lost over it)
        line = full = short(reason)
    return cut(line), cut(full)


def cut(text: str) -> str:
    """Bound a text, of which the end says most, and make it writable as UTF-8."""
    if len(text) > _LONGEST_TEXT:
        text = text[: _LONGEST_TEXT // 4] + "\n[...]\n" + text[-_LONGEST_TEXT * 3 // 4 :]
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
