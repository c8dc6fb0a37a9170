"""Lists of a test that stages in other processes write to: what they append is there when their handler returns."""

import itertools
import threading
from multiprocessing.connection import Client, Listener
from typing import Any

_KEY = b"a test and its own workers"
_lists: dict[int, list[Any]] = {}
_numbers = itertools.count(1)
_listener: Any = None


class Handle:
    """Crosses in the stead of a list of the test, and is a `Remote` over there."""

    def __init__(self, items):
        self.number = next(_numbers)
        _lists[self.number] = items

    def __reduce__(self):
        return Remote, (_address(), self.number)


class Remote:
    """The list, seen from another process."""

    _connections: dict[Any, Any] = {}  # noqa: RUF012 (one for all)
    _lock = threading.Lock()

    def __init__(self, address, number):
        self._at = (address, number)

    def __reduce__(self):
        return Remote, self._at

    def _do(self, method, *args):
        address, number = self._at
        with self._lock:
            if address not in self._connections:
                self._connections[address] = Client(address, authkey=_KEY)
            connection = self._connections[address]
            connection.send((number, method, args))
            return connection.recv()

    def append(self, item):
        self._do("append", item)

    def extend(self, items):
        self._do("extend", list(items))

    def pop(self, *args):
        return self._do("pop", *args)

    def __len__(self):
        return self._do("__len__")

    def __getitem__(self, at):
        return self._do("__getitem__", at)

    def __setitem__(self, at, item):
        self._do("__setitem__", at, item)

    def __iter__(self):
        return iter(self._do("copy"))

    def __eq__(self, other):
        return list(self) == other

    __hash__ = None  # type: ignore[assignment]


def _address():
    global _listener  # noqa: PLW0603 (one for all tests)
    if _listener is None:
        _listener = Listener(authkey=_KEY)
        threading.Thread(target=_accept, daemon=True, name="tests: lists").start()
    return _listener.address


def _accept():
    while True:
        threading.Thread(target=_serve, args=(_listener.accept(),), daemon=True, name="tests: a worker").start()


def _serve(connection):
    try:
        while True:
            number, method, args = connection.recv()
            connection.send(getattr(_lists[number], method)(*args))
    except (EOFError, OSError):
        connection.close()


def share(value):
    return Handle(value) if type(value) is list else value
