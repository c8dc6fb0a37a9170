"""What happens inside, as events for whoever attaches to them. Nothing is built as long as nobody has.

An event has a name such as ``"pipeline.processor.stop"``, measurements (numbers) and metadata (what it is about)::

    detach = telemetry.attach("pipeline.", lambda name, measurements, metadata: ...)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

Handler = Callable[[str, dict[str, Any], dict[str, Any]], None]

handlers: Final[list[tuple[str, Handler]]] = []
"""Who is attached, by a prefix of names and a function. While it is empty, whoever would tell something need not."""


def attach(prefix: str, handler: Handler) -> Callable[[], None]:
    """Have a function called with each event whose name begins like this.

    It is called where the event happens, on the event loop, and must not block. One that raises is logged and detached.

    Args:
        prefix: ``""`` for all of them.
        handler: Called as ``handler(name, measurements, metadata)``.

    Returns:
        A function that detaches it; calling it again does nothing.
    """
    entry = (prefix, handler)
    handlers.append(entry)

    def detach() -> None:
        for index, each in enumerate(handlers):
            if each is entry:
                del handlers[index]
                return

    return detach


def emit(name: str, measurements: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Tell everybody who is attached to this name."""
    for entry in list(handlers):
        prefix, handler = entry
        if not name.startswith(prefix):
            continue
        try:
            handler(name, measurements, metadata)
        except Exception:
            logging.getLogger("headgate").exception("telemetry: a handler of %r has raised, and is detached", prefix)
            handlers[:] = [each for each in handlers if each is not entry]


class Span:
    """A beginning and an end: ``NAME.start``, then ``NAME.stop`` or ``NAME.exception``, with the duration in seconds.

    Args:
        name: Without the last part.
        metadata: For both events.
    """

    __slots__ = ("_begun", "_name", "metadata")

    def __init__(self, name: str, **metadata: Any) -> None:
        """Begin."""
        self._name = name
        self.metadata = metadata
        self._begun = time.monotonic()
        emit(f"{name}.start", {"time": time.time()}, metadata)

    def stop(self, **metadata: Any) -> None:
        """End."""
        emit(f"{self._name}.stop", {"duration": time.monotonic() - self._begun}, {**self.metadata, **metadata})

    def fail(self, error: BaseException) -> None:
        """End with an error."""
        duration = {"duration": time.monotonic() - self._begun}
        metadata = {**self.metadata, "kind": type(error).__name__, "error": error}
        emit(f"{self._name}.exception", duration, metadata)
