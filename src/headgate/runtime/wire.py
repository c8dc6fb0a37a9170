"""How messages are turned into bytes and back, between processes that trust each other.

Events take the shortest way: one call of pickle, protocol 5, with large buffers (arrays, Arrow columns) beside it. All
other messages, and events that pickle refuses or would take from ``__main__``, go through `Encoder`, which also knows

* references and subscriptions: they cross as numbers, and are the same object again on the side that knows them;
* code of the program itself (classes and functions of ``__main__``, of a notebook, lambdas, closures): it crosses by
  value, each object once for every link, and by its number from then on;
* exceptions: with their traceback, cause and notes.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
import weakref
from collections.abc import Callable
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import CrossingError, OptionError, short
from headgate.runtime.arrow import reducers

try:
    import cloudpickle
    from tblib.pickling_support import pickle_exception, pickle_traceback
except ImportError as error:  # pragma: no cover (tests have the extra)
    raise OptionError(
        "Child", "place", "headgate[process] to be installed (cloudpickle and tblib)", str(error)
    ) from error

if TYPE_CHECKING:
    from types import ModuleType

PLAIN: Final = 0
RICH: Final = 1
_MAIN: Final = "__main__"

Parts = tuple[int, bytes, list[pickle.PickleBuffer]]
"""How it was encoded (`PLAIN` or `RICH`), the pickle, and the buffers beside it."""
Split = tuple[int, list[bytes], list[pickle.PickleBuffer]]
"""The same, with the pickle in pieces."""


class Codes:
    """The code that has crossed a link by value, and how references are named there.

    Args:
        name: Says for an object of ours (a reference, a subscription, somebody who waits for an answer) what crosses
            in its stead: a tuple; None for all other objects.
        find: Turns such a tuple into the object of this side.
    """

    def __init__(self, name: Callable[[Any], tuple[Any, ...] | None], find: Callable[[tuple[Any, ...]], Any]) -> None:
        """Begin with nothing known."""
        self.name = name
        self.find = find
        self.sent: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self.number = 0
        self.received: dict[int, Any] = {}

    def encode_events(self, batch: Any) -> Parts:
        """Encode a batch of events.

        Raises:
            Exception: Some event cannot cross; see `check`.
        """
        how, pieces, buffers = self.split_events(batch)
        return how, b"".join(pieces), buffers

    def encode(self, value: Any, *, crude: bool = False) -> Parts:
        """Encode anything; ``crude``: exceptions as their text alone."""
        how, pieces, buffers = self.split(value, crude=crude)
        return how, b"".join(pieces), buffers

    def split_events(self, batch: Any) -> Split:
        """Encode a batch of events in pieces, in which pickle writes it anyway.

        To grow one string of bytes takes several times as long, where it is large: its pages are new ones each time.

        Raises:
            Exception: Some event cannot cross; see `check`.
        """
        sink, buffers = Pieces(), list[pickle.PickleBuffer]()
        try:
            _Plain(sink, 5, buffer_callback=buffers.append).dump(batch)
        except Exception:  # noqa: BLE001 (whatever pickle does not know: the encoder may)
            return self.split(batch)
        return PLAIN, sink.pieces, buffers

    def split(self, value: Any, *, crude: bool = False) -> Split:
        """Encode anything in pieces; ``crude``: exceptions as their text alone."""
        sink, buffers = Pieces(), list[pickle.PickleBuffer]()
        encoder = Encoder(sink, self, buffers, crude=crude)
        try:
            encoder.dump(value)
        except BaseException:
            for code in encoder.fresh:  # it has not crossed
                self.sent.pop(code, None)
            raise
        return RICH, sink.pieces, buffers

    def decode(self, kind: int, data: Any, buffers: Any = ()) -> Any:
        """Turn bytes from the other side back into what they were."""
        if kind == PLAIN:
            return pickle.loads(data, buffers=buffers)  # noqa: S301 (from a process of ours)
        return _Decoder(io.BytesIO(data), self, buffers).load()


class Pieces:
    """What a pickle is written to: keeps it in the pieces that it comes in, of about 64 KB each.

    Attributes:
        pieces: In order. They are bytes of their own: what they were made of may change.
    """

    __slots__ = ("pieces",)

    def __init__(self) -> None:
        """Begin with nothing."""
        self.pieces: list[bytes] = []

    def write(self, piece: Any) -> None:
        """Take one."""
        self.pieces.append(piece if type(piece) is bytes else bytes(piece))


def _table() -> dict[type[Any], Any]:
    """Return the reducers for Arrow data."""
    if not _arrow:
        _arrow.update(reducers())
    return _arrow


_arrow: dict[type[Any], Any] = {}


class _Plain(pickle.Pickler):
    """Pickle itself; it stops at what the other process would look for in a ``__main__`` that is not the same."""

    def reducer_override(self, obj: Any) -> Any:
        """Reduce Arrow data to what they show. Pickle does not ask for what is made of its own types."""
        kind = type(obj)
        if (kind is FunctionType or isinstance(obj, type)) and obj.__module__ == _MAIN:
            raise pickle.PicklingError
        if kind is _Cached and obj.__module__ in (None, _MAIN):
            raise pickle.PicklingError
        if _arrow or "pyarrow" in sys.modules:
            reducer = _table().get(kind)
            if reducer is not None:
                return reducer(obj)
        return NotImplemented


class Encoder(cloudpickle.Pickler):  # type: ignore[misc]  # it is not typed
    """Pickle that knows what is ours, and takes code along.

    Args:
        stream: Where the bytes go.
        codes: What the link knows.
        buffers: Where large buffers go.
        crude: Exceptions cross as their text.
        wholes: These are being taken by value themselves, the outermost first.
    """

    def __init__(
        self,
        stream: Pieces | io.BytesIO,
        codes: Codes,
        buffers: list[pickle.PickleBuffer] | None,
        *,
        crude: bool = False,
        wholes: tuple[Any, ...] = (),
    ) -> None:
        """Prepare it for one value."""
        super().__init__(stream, 5, None if buffers is None else buffers.append)
        self._codes = codes
        self._crude = crude
        self._wholes = wholes
        self.fresh: list[Any] = []

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        """Say what crosses in the stead of an object; None: the object."""
        if type(value) in _ATOMS:
            return None
        named = self._codes.name(value)
        if named is not None:
            return named
        if not isinstance(value, (type, FunctionType)) or any(value is each for each in self._wholes):
            return None
        return self._code(value) if is_own(value) else None

    def reducer_override(self, obj: Any) -> Any:
        """Take exceptions along with their traceback."""
        if type(obj) is Bare:
            obj = obj.error
        if isinstance(obj, BaseException):
            return self._softened(obj) if self._crude else pickle_exception(obj)
        if isinstance(obj, TracebackType):
            return pickle_traceback(obj)
        if type(obj) is _Cached and (obj.__module__ is None or is_own(obj)):  # pickle knows its name only
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        if isinstance(obj, (io.TextIOWrapper, io.BufferedIOBase, io.RawIOBase)) and not isinstance(obj, io.BytesIO):
            raise TypeError(f"{obj!r} is an open file")  # cloudpickle would take a copy of what is in it
        if "pyarrow" in sys.modules and type(obj) in _table():  # pickle's own table stands behind it
            return _table()[type(obj)](obj)
        return super().reducer_override(obj)

    def _softened(self, error: BaseException) -> Any:
        """Reduce an exception; what it holds and cannot cross goes as its text."""
        make, parts, *state = pickle_exception(error)
        if not self._crosses(type(error)):
            return CrossingError, (f"{type(error).__qualname__}: {short(error)}",)
        return make, self._soft(parts), *(self._soft(each) for each in state)

    def _soft(self, value: Any) -> Any:
        if isinstance(value, (BaseException, TracebackType)) or self._crosses(value):
            return value
        if isinstance(value, tuple):
            return tuple(self._soft(each) for each in value)
        if isinstance(value, dict):
            return {key: self._soft(each) for key, each in value.items()}
        return short(value)

    def _crosses(self, value: Any) -> bool:
        try:
            Encoder(io.BytesIO(), self._codes, None).dump(value)
        except Exception:  # noqa: BLE001 (that is the question)
            return False
        return True

    def _code(self, value: Any) -> tuple[Any, ...] | None:
        codes = self._codes
        number = codes.sent.get(value)
        if number is not None:
            return ("code", number, None)
        stream = io.BytesIO()
        inner = Encoder(stream, codes, None, crude=self._crude, wholes=(*self._wholes, value))
        try:
            inner.dump(value)
        finally:
            self.fresh += inner.fresh
        codes.number += 1
        codes.sent[value] = codes.number
        self.fresh.append(value)
        return ("code", codes.number, stream.getvalue())


class Bare:
    """An exception that is to cross by value, although there is a name for it."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        """Wrap it; it comes out unwrapped."""
        self.error = error


class _Decoder(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, codes: Codes, buffers: Any) -> None:
        super().__init__(stream, buffers=buffers)
        self._codes = codes

    def persistent_load(self, pid: Any) -> Any:
        codes = self._codes
        if pid[0] != "code":
            return codes.find(pid)
        _, number, data = pid
        if data is not None:
            codes.received[number] = codes.decode(RICH, data)
        return codes.received[number]


def _cached(function: Any, parameters: dict[str, Any]) -> Any:
    """Give a function a cache of its own."""
    return functools.lru_cache(**parameters)(function)


_Cached: Final = type(functools.cache(_cached))
_ATOMS: Final = frozenset({int, str, float, bool, bytes, type(None), list, tuple, dict, set})


def is_own(value: Any) -> bool:
    """Say whether a class or a function can only cross by value, as another process could not import it."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", "")
    if module == "__main__" or "<" in name:  # a lambda, or inside of a function
        return True
    found: ModuleType | None = sys.modules.get(module) if isinstance(module, str) else None
    if found is None:
        return module is not None
    target: Any = found
    for part in name.split("."):
        target = getattr(target, part, None)
    return target is not value  # another one has its name: it was decorated, or made by hand


def check(where: str, values: dict[str, Any], codes: Codes) -> None:
    """Find out which of several values cannot cross.

    Args:
        where: What they belong to.
        values: By what each is called.
        codes: Those of the link.

    Raises:
        CrossingError: It names the first that cannot.
    """
    for name, value in values.items():
        try:
            codes.encode(value)
        except Exception as error:
            raise CrossingError(
                f"{where}: {name} cannot go to another process: {short(value)} ({error}). {HINT}"
            ) from error


HINT: Final = "Open files, sockets, locks and connections stay where they are: make them in `started`, over there"
