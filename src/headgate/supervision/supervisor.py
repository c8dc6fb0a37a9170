"""`Supervisor`: the recipe of a tree of children, and the app that it makes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Final

from headgate.errors import OptionError
from headgate.protocol.children import ONE_FOR_ALL, ONE_FOR_ONE, PERMANENT, REST_FOR_ONE, TEMPORARY, TRANSIENT, Backoff
from headgate.protocol.messages import DeadLetter
from headgate.runtime.options import Child, check_choice, check_count, check_name, check_seconds, refuse_unknown
from headgate.supervision.running import Supervision
from headgate.system import Startable, System

STRATEGIES: Final = (ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE)


class Supervisor(Startable):
    """The recipe of a supervisor and its children. It can be started any number of times, also within another one.

    ::

        app = Supervisor([Child(Counter, name="counter"), Child(Print, subscribe_to=["counter"])])
        headgate.run(app)                 # in a program, until it is done or told to end
        await app                         # the same in a program that has an event loop already
        async with app as running: ...    # for as long as the block lasts

    The children are started in order, and stopped in the reverse order. No event flows before all of them are there. A
    child that ends is started again as its ``restart`` says; one whose stream is over is done. When all of them are
    done, so is the supervisor.

    Args:
        children: `Child`, `ConsumerSupervisor` and `Supervisor` recipes, in the order of their start. Their ids differ.
        strategy: Who is started again with a child: ``"one_for_one"`` (default): it alone; ``"one_for_all"``: all of
            them; ``"rest_for_one"``: it and those after it.
        max_restarts: How many restarts are allowed, default 3; None: any number,
        max_seconds: within how many seconds, default 5. Beyond that the supervisor gives up: it stops its children and
            ends with a `RestartLimitError`, which is up to the supervisor above it. What counts is said in
            `headgate.protocol.children`.
        backoff: The waits before restarts; the other children go on meanwhile.
        shutdown: Seconds for stopping all of it, default 30. Each child has its own limit within that.
        name: A name for logs, and to find it. Default: the id.
        id: Names it among its siblings. Default ``"supervisor"``.
        restart: For the supervisor above: ``"permanent"`` (default), ``"transient"`` or ``"temporary"``.
        dead_letter: For the whole app, so only at its top: called with each `DeadLetter`, plain or async. The event is
            only done with when it has returned. Default: they are logged, and kept in ``letters``.
        on_error: For the whole app, so only at its top: called with each error that does not end a stage, as of
            `System`. Default: they are logged.
        auto_shutdown: Whether it ends when all children are done. Default: True if there are any from the start.

    Raises:
        OptionError: An option is unknown, of the wrong type or out of range.
    """

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        children: Iterable[Child | Supervisor],
        *,
        strategy: str = ONE_FOR_ONE,
        max_restarts: int | None = 3,
        max_seconds: float = 5.0,
        backoff: Backoff | None = None,
        shutdown: float = 30.0,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 (the field's word)
        restart: str = PERMANENT,
        dead_letter: Callable[[DeadLetter], Any] | None = None,
        on_error: Callable[[Exception], None] | None = None,
        auto_shutdown: bool | None = None,
        **unknown: Any,
    ) -> None:
        """Check the options."""
        where = self.where = f"Supervisor({'' if name is None and id is None else repr(name or id)})"
        refuse_unknown(where, unknown, Supervisor.__init__)
        if isinstance(children, (Child, Supervisor)) or not isinstance(children, Iterable):
            raise OptionError(where, "children", "a list of Child(...) and Supervisor(...)", children)
        self.children = list(children)
        self.name = check_name(where, "name", name)
        self.id = check_name(where, "id", id) or name or "supervisor"
        check_choice(where, "strategy", strategy, STRATEGIES)
        self.strategy = strategy
        if max_restarts is not None:
            check_count(where, "max_restarts", max_restarts, 0, "an integer of at least 0, or None")
        self.max_restarts = max_restarts
        self.max_seconds = check_seconds(where, "max_seconds", max_seconds)
        if backoff is not None and not isinstance(backoff, Backoff):
            raise OptionError(where, "backoff", "a Backoff(...)", backoff)
        self.backoff = backoff or Backoff()
        self.shutdown = check_seconds(where, "shutdown", shutdown)
        check_choice(where, "restart", restart, (PERMANENT, TRANSIENT, TEMPORARY))
        self.restart = restart
        if dead_letter is not None and not callable(dead_letter):
            raise OptionError(where, "dead_letter", "a function of a DeadLetter, or None", dead_letter)
        self.dead_letter = dead_letter
        if on_error is not None and not callable(on_error):
            raise OptionError(where, "on_error", "a function of an exception, or None", on_error)
        self.on_error = on_error
        check_choice(where, "auto_shutdown", auto_shutdown, (None, True, False))
        self.auto_shutdown = bool(self.children) if auto_shutdown is None else auto_shutdown
        self._entered: list[tuple[System, Supervision]] = []
        check_siblings(where, self.children)

    def __repr__(self) -> str:
        """Show the id and how many children it has."""
        return f"<Supervisor {self.id!r}, {len(self.children)} children>"

    def names(self) -> Iterator[str]:
        """Return the names of all stages below, in order."""
        for child in self.children:
            yield from child.names()

    def groups(self) -> Iterator[str]:
        """Return the names of all groups below, in order."""
        for child in self.children:
            yield from child.groups()

    async def start_in(
        self, system: System, *, hold: list[Any] | None = None, path: tuple[str, ...] = ()
    ) -> Supervision:
        """Start it in a system that runs already; `System.start` does this."""
        node = system.node
        for option, hook, used in (
            ("dead_letter", self.dead_letter, node.on_dead_letter),
            ("on_error", self.on_error, node.on_error),
        ):
            if hook is not None and hook is not used:
                expected = f"given to the top of the app, or to System(on_{option.removeprefix('on_')}=)"
                raise OptionError(self.where, option, expected, hook)
        supervision = self.supervise(system, path)
        await supervision.start(hold)
        return supervision

    def supervise(self, system: System, path: tuple[str, ...]) -> Supervision:
        """Make what runs it; nothing is started yet."""
        return Supervision(self, system, path)

    async def __aenter__(self) -> Supervision:
        """Start it in a system of its own."""
        system = await System(on_error=self.on_error, on_dead_letter=self.dead_letter).__aenter__()
        try:
            supervision: Supervision = await system.start(self)
        except BaseException:
            await system.stop()
            raise
        self._entered.append((system, supervision))
        return supervision

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it, and raise what went wrong and was not seen."""
        system, supervision = self._entered.pop()
        await supervision.stop()
        await system.__aexit__(kind, error, traceback)

    def __await__(self) -> Generator[Any, Any, Any]:
        """Run until it is done.

        Raises:
            RestartLimitError: It gave up.
        """
        return self._to_its_end().__await__()

    async def _to_its_end(self) -> Any:
        async with self as running:
            return await running.wait()


def check_siblings(where: str, children: list[Any]) -> None:
    """Refuse what is no recipe, ids that are not unique, and names that are used twice.

    Of a group, its own id and name count as well as those of its stages.
    """
    ids: dict[str, Any] = {}
    names: dict[str, Any] = {}
    for child in children:
        if not isinstance(child, (Child, Supervisor)):
            raise OptionError(where, "children", "a list of Child(...) and Supervisor(...)", child)
        template = child.template if isinstance(child, Child) else None
        whose = template or child  # the stages of one group share its own id and name
        members = child.members() if isinstance(child, Child) else []
        for id_ in {child.id, whose.id, *(each.id for each in members)}:
            if ids.setdefault(id_, whose) is not whose:
                raise OptionError(where, "children", f"different ids (give id= to one of the two {id_!r})", child)
        if template is None and ids[child.id] is child and sum(each is child for each in children) > 1:
            raise OptionError(where, "children", f"different ids (give id= to one of the two {child.id!r})", child)
        for name in (*child.names(), *whose.groups()):
            if names.setdefault(name, whose) is not whose:
                raise OptionError(where, "children", f"different names (two have {name!r})", child)
