"""What of a pipeline goes to the worker processes of its handlers: the user's own, and nothing of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from headgate.errors import CrossingError, short
from headgate.runtime.places import Process

if TYPE_CHECKING:
    from headgate.pipeline.pipeline import Pipeline
    from headgate.runtime.node import Node
    from headgate.runtime.wire import Codes

HINT: Final = (
    "Open files, sockets, locks and connections stay where they are: make them in `worker_started`, over there"
)
_KEPT: Final = ("name", "id", "context")
_OPTIONS: Final = ("source", "processors", "batchers", "rate_limit")


class Stays:
    """Stands in a worker for something that stays in the process that runs the pipeline.

    Args:
        what: Its name.
    """

    def __init__(self, what: str) -> None:
        """Know what it stands for."""
        self._what = what

    def __repr__(self) -> str:
        """Say so."""
        return f"<{self._what}, which is not here>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Cross as it is."""
        return Stays, (self._what,)

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse to be used.

        Raises:
            CrossingError: Always, but for what Python itself looks for.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        text = f"{self._what!r} of the pipeline stays in the process that runs it: handlers elsewhere cannot use it"
        raise CrossingError(text)

    __call__ = __iter__ = __getitem__ = __len__ = _refuse


def state_of(pipeline: Pipeline, ours: frozenset[str]) -> dict[str, Any]:
    """Return the attributes of a pipeline as its handlers find them elsewhere.

    Args:
        pipeline: The pipeline.
        ours: The attributes that the library has put there: they stay here, but for a few.
    """
    state = {
        name: Stays(name) if name in ours and name not in _KEPT else value for name, value in vars(pipeline).items()
    }
    return {name: Stays(name) for name in _OPTIONS} | state


def codes_of(pipeline: Pipeline, codes: Codes) -> Codes:
    """Let sources and options stay here: they cross where their class does, if that is one of the program itself."""
    stays = {id(value): name for name, value in _options(pipeline)}
    known = codes.name

    def name(value: Any) -> tuple[Any, ...] | None:
        return ("stays", stays[id(value)]) if id(value) in stays else known(value)

    codes.name = name
    return codes


def codes_there(codes: Codes) -> Codes:
    """Put what stands for them in their place, on the other side."""
    known = codes.find

    def find(name: tuple[Any, ...]) -> Any:
        return Stays(name[1]) if name[0] == "stays" else known(name)

    codes.find = find
    return codes


def _options(pipeline: Pipeline) -> Iterator[tuple[str, Any]]:
    """Return the objects that make up a pipeline, whether given on a class or to the constructor."""
    for cls in type(pipeline).__mro__:
        for name in _OPTIONS:
            value = vars(cls).get(name)
            each = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
            yield from ((name, one) for one in (value, *each) if type(one) not in _PLAIN)
    yield from (("source", source) for source in pipeline.sources)


_PLAIN: Final = (type(None), str, int, float, bool, list, tuple, dict)


def hook_of(pipeline: Pipeline) -> Callable[[], Any] | None:
    """Return what is to be called in a worker first, if there is anything."""
    from headgate.pipeline.pipeline import Pipeline  # noqa: PLC0415 (it knows us)

    return pipeline.worker_started if type(pipeline).worker_started is not Pipeline.worker_started else None


def check_crossing(pipeline: Pipeline, node: Node) -> None:
    """See that the handlers that are to run elsewhere can go there, with all that they need.

    Raises:
        CrossingError: It names what cannot.
    """
    steps = [(f"processors[{name!r}]", handler, place) for name, (handler, place, _) in pipeline.handlers.items()]
    batchers = [(f"batchers[{name!r}]", handler, place) for name, (handler, place) in pipeline.batch_handlers.items()]
    for option, handler, place in (*steps, *batchers):
        if not isinstance(place, Process):
            continue
        codes: Any = codes_of(pipeline, node.home().codes(None))  # type: ignore[arg-type]  # no link is there yet
        try:
            codes.encode((handler, hook_of(pipeline)))
        except Exception as error:
            where = f"{pipeline.where}, {option}"
            refuse_first(where, _parts(pipeline, handler), codes)
            raise CrossingError(f"{where}: the handler cannot go to another process: {error}. {HINT}") from error


def _parts(pipeline: Pipeline, handler: Any) -> Iterator[tuple[str, Any]]:
    """Name what goes along with a handler, the smallest parts first."""
    from headgate.runtime.wire import is_own  # noqa: PLC0415 (it needs an extra)

    if getattr(handler, "__self__", None) is pipeline or hook_of(pipeline) is not None:
        for name, value in vars(pipeline).items():
            if name in _KEPT or name not in pipeline.ours:
                yield f"its attribute {name!r}", value
        for cls in filter(is_own, type(pipeline).__mro__):
            for name, value in vars(cls).items():
                if not name.startswith("__"):
                    yield f"{name!r} of its class {cls.__name__}", value
    function = getattr(handler, "__func__", handler)
    code = getattr(function, "__code__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), getattr(function, "__closure__", None) or (), strict=False):
        yield f"{name!r}, which its handler uses,", cell.cell_contents
    yield "its handler", handler


def probing(codes: Codes) -> Codes:
    """Return codes to try with whether something can cross: nothing is taken for sent afterwards."""
    return type(codes)(codes.name, codes.find)


def refuse_first(where: str, parts: Iterator[tuple[str, Any]], codes: Codes, hint: str = HINT) -> None:
    """Find out which of several values cannot cross.

    Raises:
        CrossingError: It names the first.
    """
    for name, value in parts:
        try:
            probing(codes).encode(value)
        except Exception as error:
            text = f"{where}: {name} cannot go to another process: {short(value)} ({error}). {hint}"
            raise CrossingError(text) from error
