"""`Policy`: what of an event may be seen outside: fields are kept, dropped, redacted, or masked consistently."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from headgate.errors import OptionError
from headgate.eventlog.events import check_text

KEEP: Final = "keep"
DROP: Final = "drop"
REDACT: Final = "redact"
MASK: Final = "mask"
REDACTED: Final = "[redacted]"
ERASED: Final = "[erased]"
"""What stands in a field whose subject's key was destroyed."""
SEALED: Final = "[sealed]"
"""What stands in a field that was sealed with a key that this log was not opened with."""
_KEY_BYTES: Final = 16
_STREAM_DIGITS: Final = 20
_GONE: Final = object()

Action = str | Callable[[Any], Any]


class Policy:
    """Rules for fields.

    Args:
        rules: A field, and what becomes of it: ``"keep"``, ``"drop"``, ``"redact"``, ``"mask"``, or a function of the
            value. The field is a name, for all fields of this name however deep (``"email"``), or a path from the top
            (``"address.city"``), for one type only with its name before it (``"Opened:owner"``). ``"@stream"``,
            ``"@actor"``, ``"@subject"`` and ``"@correlation_id"`` are the columns; fields of the metadata are treated
            like those of the data. The most special rule that fits wins.
        default: What becomes of fields without a rule.
        key: 16 bytes or more: the same key masks the same value in the same way everywhere. Default: a random one, so
            that nobody can find out values by masking guesses.

    ``"mask"`` puts something in its place that looks alike, the same each time: text of the same kind, a number with as
    many digits, an address at ``example.invalid``. Fields that are declared as personal are masked unless a rule says
    otherwise. ``"[erased]"`` and ``"[sealed]"`` stay as they are, unless they are dropped.

    Raises:
        OptionError: A rule is unknown, or the key is none.
    """

    def __init__(
        self, rules: Mapping[str, Action] | None = None, *, default: str = KEEP, key: bytes | None = None
    ) -> None:
        """Check the rules."""
        if rules is not None and not isinstance(rules, Mapping):
            raise OptionError("Policy", "rules", "a dict of fields and what becomes of them, or None", rules)
        self._by_name: dict[str, Action] = {}
        self._by_path: dict[tuple[str, ...], Action] = {}
        for field, action in (rules or {}).items():
            if not isinstance(field, str) or not field:
                raise OptionError("Policy", "rules", "a dict whose keys are names or paths of fields", rules)
            if action not in (KEEP, DROP, REDACT, MASK) and not callable(action):
                expected = "'keep', 'drop', 'redact', 'mask' or a function"
                raise OptionError("Policy", field, expected, action)
            kind, colon, path = field.rpartition(":")
            if colon or "." in path:
                self._by_path[(kind, *path.split("."))] = action
            else:
                self._by_name[path] = action
        if default not in (KEEP, DROP, REDACT, MASK):
            raise OptionError("Policy", "default", "'keep', 'drop', 'redact' or 'mask'", default)
        self._default = default
        if key is not None and (not isinstance(key, bytes) or len(key) < _KEY_BYTES):
            got = f"{type(key).__name__} (not shown)"
            raise OptionError("Policy", "key", f"at least {_KEY_BYTES} bytes, or None", got)
        self._key = key if key is not None else os.urandom(32)

    def data(self, kind: str, fields: dict[str, Any], personal: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the fields of an event as they may be seen.

        Args:
            kind: The name of its type.
            fields: Its data, or metadata.
            personal: Names of fields that are masked unless a rule says otherwise.
        """
        made: dict[str, Any] = {}
        for name, value in fields.items():
            action = self._rule(kind, (name,))
            if action is None and name in personal:
                action = MASK
            result = self._treated(kind, (name,), value, action)
            if result is not _GONE:
                made[name] = result
        return made

    def column(self, name: str, value: str | None, default: str = KEEP) -> str | None:
        """Return a column of the envelope as it may be seen; None: it is dropped.

        Args:
            name: Its name.
            value: What is in it.
            default: What becomes of it without a rule.

        Raises:
            EventError: A rule makes something of it that cannot be one.
        """
        action = self._by_name.get(f"@{name}", default)
        if value is None or action == DROP:
            return None
        if action == MASK and name == "stream":
            return self.stream(value)
        made = self._done(action, value)
        return None if made is None else check_text("Policy", f"@{name}", str(made))

    def stream(self, name: str) -> str:
        """Return the masked name of a stream; what stands before the first ``-`` is kept. Fits as a rule, too.

        It is long, as two streams must not get one name.
        """
        category, dash, rest = name.partition("-")
        mask = self._digest(rest if dash else name).hex()[:_STREAM_DIGITS]
        return f"{category}-{mask}" if dash else mask

    def mask(self, value: Any) -> Any:
        """Return something alike in the place of a value, the same each time."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (list, tuple)):
            return [self.mask(each) for each in value]
        if isinstance(value, dict):
            return {name: self.mask(each) for name, each in value.items()}
        if isinstance(value, (int, float)):
            return self._number(value)
        text = str(value)
        digest = self._digest(text)
        if "@" in text and " " not in text:
            return f"{digest.hex()[:10]}@example.invalid"
        return _alike(text, digest)

    def _digest(self, text: str) -> bytes:
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()

    def _number(self, value: float) -> float:
        digest = self._digest(repr(value))
        digits = len(str(abs(int(value)))) if math.isfinite(value) else 1
        low = 10 ** (digits - 1) if digits > 1 else 0
        number = low + int.from_bytes(digest[:16], "big") % (10**digits - low)
        number = -number if value < 0 else number
        return number if isinstance(value, int) else float(number) + digest[16] / 256

    def _rule(self, kind: str, path: tuple[str, ...]) -> Action | None:
        for key in ((kind, *path), ("", *path)):
            if key in self._by_path:
                return self._by_path[key]
        return self._by_name.get(path[-1])

    def _treated(self, kind: str, path: tuple[str, ...], value: Any, action: Action | None) -> Any:
        """Return a value as it may be seen; lists are looked through."""
        if action is None:
            if isinstance(value, dict):
                inner = {
                    name: self._treated(kind, (*path, name), each, self._rule(kind, (*path, name)))
                    for name, each in value.items()
                }
                return {name: each for name, each in inner.items() if each is not _GONE}
            if isinstance(value, list):
                items = [self._treated(kind, path, each, None) for each in value]
                return [each for each in items if each is not _GONE]
            action = self._default
        return _GONE if action == DROP else self._done(action, value)

    def _done(self, action: Action, value: Any) -> Any:
        if action == KEEP or (isinstance(value, str) and value in (ERASED, SEALED)):
            return value
        if action == REDACT:
            return REDACTED
        if action == MASK:
            return self.mask(value)
        assert callable(action)  # noqa: S101 (checked when it was made)
        return action(value)


def _alike(text: str, digest: bytes) -> str:
    """Return text of the same shape: a letter for each letter, a digit for each digit, up to a bound."""
    made = []
    stream = digest
    for index, letter in enumerate(text[:64]):
        if index % 32 == 31:  # noqa: PLR2004 (the digest is used up)
            stream = hashlib.sha256(stream).digest()
        byte = stream[index % 32]
        if letter.isdigit():
            made.append(chr(ord("0") + byte % 10))
        elif letter.isalpha():
            first = "A" if letter.isupper() else "a"
            made.append(chr(ord(first) + byte % 26))
        else:
            made.append(letter)
    return "".join(made)
