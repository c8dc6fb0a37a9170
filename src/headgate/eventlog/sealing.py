"""Sealing fields with a key for each subject, and keys with a master key. It needs the extra ``[encryption]``.

AES-256-GCM, with a fresh random nonce for each box; the id of the event is authenticated with it, so that a box cannot
be moved to another event.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any, Final

from headgate.errors import DamagedLogError, OptionError

KEY_BYTES: Final = 32
DAMAGED: Final = b""
"""Stands for a key that was changed: nothing is sealed or opened with it."""
_NONCE: Final = 12


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 (an extra)
    except ImportError:
        expected = "left out, or the extra installed: pip install 'headgate[encryption]'"
        raise OptionError("EventLog", "master_key", expected, "a key") from None
    return AESGCM(key)


def check_master(key: Any) -> bytes | None:
    """Refuse what is no key.

    Raises:
        OptionError: It is no key, or the extra is missing.
    """
    if key is None:
        return None
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise OptionError("EventLog", "master_key", f"{KEY_BYTES} bytes", f"{type(key).__name__} (not shown)")
    _cipher(key)
    return key


class Key(bytes):
    """The key of a subject.

    Attributes:
        created_at: When it was made, in microseconds since 1970: nothing older is sealed with it.
    """

    created_at = 0


def new_key() -> bytes:
    """Make a key."""
    return os.urandom(KEY_BYTES)


def encrypt(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Encrypt; the context is not stored, and has to be the same to decrypt."""
    nonce = os.urandom(_NONCE)
    sealed: bytes = _cipher(key).encrypt(nonce, plain, context)
    return nonce + sealed


def decrypt(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Decrypt.

    Raises:
        ValueError: It was changed, or it is another key's.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (an extra)

    try:
        plain: bytes = _cipher(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], context)
    except InvalidTag:
        raise ValueError("it was changed, or it belongs to another key") from None
    return plain


def seal(key: bytes, fields: dict[str, Any], event_id: bytes) -> str:
    """Seal fields of an event, given as JSON can hold them."""
    return base64.b64encode(encrypt(key, json.dumps(fields).encode(), event_id)).decode()


def unseal(key: bytes, box: str, event_id: bytes) -> dict[str, Any]:
    """Return the fields of a box.

    Raises:
        ValueError: It was changed, or it is another key's.
    """
    fields: dict[str, Any] = json.loads(decrypt(key, base64.b64decode(box), event_id))
    return fields


def another_master() -> OptionError:
    """Return the error for a master key that is not the log's."""
    expected = "the key that the keys in this log are sealed with"
    return OptionError("EventLog", "master_key", expected, "another one (not shown)")


def damaged_key(subject: str, position: int | None = None) -> DamagedLogError:
    """Return the error for a subject's key that the right master key does not open."""
    return DamagedLogError(f"the key of subject {subject!r}", "it was changed, and opens nothing any more", position)
