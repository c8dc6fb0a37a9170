"""`ConsumerSupervisor`: one supervised child for each event, so many at a time as its subscriptions allow."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final

from headgate.errors import OptionError
from headgate.protocol.children import PERMANENT, TEMPORARY, TRANSIENT, Backoff
from headgate.protocol.messages import DeadLetter
from headgate.runtime.options import Child, To, check_choice, check_count, check_seconds, refuse_unknown
from headgate.runtime.reference import Ref
from headgate.stage import Stage
from headgate.supervision.members import ChildInfo, Counts
from headgate.supervision.spawner import ASYNC, STAGE, THREAD, Plan, Spawner

_WHY: Final = "'temporary' or 'transient' (a 'permanent' child would be started again when its event is done)"


class ConsumerSupervisorRef(Ref):
    """The reference of a `ConsumerSupervisor` that runs: all of `Ref`, and its children."""

    __slots__ = ()

    @property
    def _spawner(self) -> Spawner:
        spawner: Spawner = self.driver.instance
        return spawner

    def children(self) -> list[ChildInfo]:
        """List the children that are not done, in the order of their start; ``"waiting"``: to be started again."""
        return self._spawner.children()

    def count(self) -> Counts:
        """Count them: one recipe, those that run, no supervisors, and all that are not done."""
        return self._spawner.count()

    async def start_child(self, event: Any) -> str:
        """Start a child by hand; it counts for no demand.

        Returns:
            Its id, for `stop_child`.

        Raises:
            StageCrashed: It could not be started.
            Ignore: It is not to run.
            NoStageError: The supervisor has ended.
        """
        return await self._spawner.start_child(event)

    async def stop_child(self, id: str) -> None:  # noqa: A002 (the field's word)
        """Stop a child, also one that waits to be started again. Its slot gets free, and its event is done with.

        Raises:
            NoStageError: There is none of this id (any more).
        """
        await self._spawner.stop_child(id)


class ConsumerSupervisor(Child):
    """The recipe of a consumer that starts one child for each event.

    ::

        async def fetch(url): ...

        Supervisor([
            Child(Urls, name="urls"),
            ConsumerSupervisor(fetch, subscribe_to=[To("urls", max_demand=100)], child_restart="transient"),
        ])

    It never has more children at a time than ``max_demand`` of each subscription. A slot that gets free is asked for
    again; with a ``min_demand`` only when so many are free. An event is acknowledged when its child is done with it;
    events whose children have not ended when this ends go back to the producer.

    A child that fails is, if it is ``"transient"``, started again with the same event, after a wait; when it has failed
    once more than ``retries`` times, or is ``"temporary"``, its event is a dead letter. The others go on.

    Args:
        child: What is started with the event: an async function (runs in a task), a plain function (runs in a thread),
            a stage's class, or a `Child` recipe of one for more options. All are given the event as their last
            positional argument; with a `Child`, that one needs a default.
        *args: For the function or the class, before the event.
        child_restart: Of functions and classes: ``"temporary"`` (default) or ``"transient"``; of a `Child` its own
            ``restart`` says it.
        child_shutdown: Of functions and classes: seconds that a child has to end after it was cancelled. Default 5.
        retries: How often one event's child is started again. Default 3.
        backoff: The waits before that.
        dead_letter: Called with the `DeadLetter` of an event that is given up, plain or async; the event is only done
            with when it has returned. Default: the system's.
        max_restarts: How many restarts of all children are allowed; beyond that this ends with a `RestartLimitError`.
            Default None: any number.
        max_seconds: Within how many seconds. Default 5.
        subscribe_to: Producers: names, references or `To`.
        name, id, restart, shutdown: As of `Child`.

    Raises:
        OptionError: An option is unknown, of the wrong type or out of range.
    """

    ref_class: type[ConsumerSupervisorRef] = ConsumerSupervisorRef  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        child: Callable[..., Any] | type[Stage] | Child,
        *args: Any,
        child_restart: str | None = None,
        child_shutdown: float | None = None,
        retries: int = 3,
        backoff: Backoff | None = None,
        dead_letter: Callable[[DeadLetter], Any] | None = None,
        max_restarts: int | None = None,
        max_seconds: float = 5.0,
        subscribe_to: Iterable[str | Ref | To] = (),
        name: str | None = None,
        id: str | None = None,  # noqa: A002 (the field's word)
        restart: str = PERMANENT,
        shutdown: float = 10.0,
        **unknown: Any,
    ) -> None:
        """Check the options."""
        where = "ConsumerSupervisor"
        _refuse_unknown(where, unknown)
        kind = _kind(where, child)
        _check_call(where, child, args)
        if isinstance(child, Child):
            if args or child_restart is not None or child_shutdown is not None:
                option = "args" if args else "child_restart" if child_restart is not None else "child_shutdown"
                got = args or (child_shutdown if child_restart is None else child_restart)
                raise OptionError(where, option, "left out, as the Child(...) has its own", got)
            child_restart, child_shutdown = child.restart, child.shutdown
        label = child.label if isinstance(child, Child) else getattr(child, "__name__", type(child).__name__)
        where = f"{where}({label})"
        child_restart = TEMPORARY if child_restart is None else child_restart
        if child_restart == PERMANENT:
            raise OptionError(where, "restart" if kind == STAGE else "child_restart", _WHY, child_restart)
        check_choice(where, "child_restart", child_restart, (TEMPORARY, TRANSIENT))
        child_shutdown = check_seconds(where, "child_shutdown", 5.0 if child_shutdown is None else child_shutdown)
        if isinstance(child, type):
            recipe = Child(child, *args, None, restart=child_restart, shutdown=child_shutdown)
            recipe.args, args = args, ()  # each event takes the place of the None
            child = recipe
        check_count(where, "retries", retries, 0)
        if backoff is not None and not isinstance(backoff, Backoff):
            raise OptionError(where, "backoff", "a Backoff(...)", backoff)
        if dead_letter is not None and not callable(dead_letter):
            raise OptionError(where, "dead_letter", "a function of a DeadLetter, or None", dead_letter)
        if max_restarts is not None:
            check_count(where, "max_restarts", max_restarts, 0, "an integer of at least 0, or None")
        max_seconds = check_seconds(where, "max_seconds", max_seconds)
        plan = Plan(
            kind,
            _awaiting(child) if kind == ASYNC else child,
            args,
            child_restart,
            child_shutdown,
            retries,
            backoff or Backoff(),
            dead_letter,
            max_restarts,
            max_seconds,
        )
        try:
            super().__init__(
                Spawner,
                plan,
                name=name,
                id=(name or label) if id is None else id,
                subscribe_to=subscribe_to,
                restart=restart,
                shutdown=shutdown,
            )
        except OptionError as error:  # it says what users know: their recipe, not the stage behind it
            if error.where != f"Child({Spawner.__name__})":
                raise
            raise OptionError(where, error.option, error.expected, error.got) from None
        self.where = where


def _refuse_unknown(where: str, unknown: dict[str, Any]) -> None:
    """Refuse options that there are not; those of a subscription are told where they belong."""
    of_to = next(iter(unknown), None) in inspect.signature(To).parameters.keys() - {"unknown"}
    refuse_unknown(where, unknown, Child.__init__ if of_to else ConsumerSupervisor.__init__)


def _kind(where: str, child: Any) -> str:
    """Say how children run."""
    if isinstance(child, Child):
        if child.name is not None or child.count != 1:
            option = "name" if child.name is not None else "count"
            raise OptionError(where, option, "left out, as there is one child for each event", child)
        return STAGE
    if isinstance(child, type) and issubclass(child, Stage) and child.role is not None:
        return STAGE
    if not callable(child) or isinstance(child, type):
        raise OptionError(where, "child", "an async function, a plain function, a stage's class or a Child(...)", child)
    if inspect.isgeneratorfunction(child) or inspect.isasyncgenfunction(child):
        raise OptionError(where, "child", "a function without 'yield', as nobody would iterate over it", child)
    call = getattr(child, "__call__", None)  # noqa: B004 (an object with an async __call__)
    return ASYNC if inspect.iscoroutinefunction(inspect.unwrap(child)) or inspect.iscoroutinefunction(call) else THREAD


def _check_call(where: str, child: Any, args: tuple[Any, ...]) -> None:
    """Refuse what cannot be called with an event behind its arguments: else every event were a dead letter."""
    kwargs: dict[str, Any] = {}
    call = child
    if isinstance(child, Child):
        call, args, kwargs = child.cls, (*child.args, *args), child.kwargs
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):  # it has none that can be seen
        return
    try:
        signature.bind(*args, None, **kwargs)
    except TypeError as error:
        name = getattr(call, "__name__", type(call).__name__)
        expected = f"those of {name}{signature} before the event, which comes last"
        raise OptionError(where, "args", expected, str(error)) from None


def _awaiting(child: Any) -> Any:
    """Return a real coroutine function: a decorated one may give any awaitable, and run code before it does."""
    function = child.__func__ if inspect.ismethod(child) else child
    if inspect.isfunction(function) and function.__code__.co_flags & inspect.CO_COROUTINE:
        return child

    async def call(*args: Any) -> Any:
        return await child(*args)

    return call
