"""Why does nothing move? Every stage's state in words, and since when.

No clock is read per event. `look` notes each stage's totals and when they were seen to change; a stage whose totals are
the same as at an earlier look has stood still at least since then. `headgate.run` looks once a second; without it the
second call of `System.diagnose` knows what the first one saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from headgate.errors import HeadgateError
from headgate.observe.stacks import count_of, is_spawner, stack_of
from headgate.protocol.dispatch.partition import PartitionDispatcher
from headgate.protocol.messages import HANDLE_DEMAND, HANDLE_EVENTS, PRODUCER

if TYPE_CHECKING:
    from headgate.protocol.producer import ProducerSide
    from headgate.runtime.driver import Driver
    from headgate.runtime.node import Node

MOVING: Final = 1.0
"""Seconds within which a stage whose totals have changed counts as moving."""

HANDLER: Final = "handler"
PAUSED: Final = "paused"
ACCUMULATING: Final = "accumulating"
NAME: Final = "waits for a name"
RESTART: Final = "waits for its restart"
PARTITION: Final = "partition stuck"
FULL: Final = "buffer full"
DEMAND: Final = "waits for demand"
EVENTS: Final = "waits for events"
FINISHING: Final = "finishing"
STARTING: Final = "starting"
IDLE: Final = "idle"

_WAITS: Final = frozenset({DEMAND, EVENTS, FINISHING, IDLE, FULL})
"""Who is in one of these waits for somebody else."""


class _State(NamedTuple):
    kind: str
    why: str
    others: tuple[str, ...] = ()  # whom it waits for; nobody: it is where things hang


@dataclass(frozen=True, slots=True)
class StageDiagnosis:
    """One stage, or a child that waits to be started again.

    Attributes:
        name: Its name.
        role: ``"producer"``, ``"producer_consumer"``, ``"consumer"``; of a child that does not run: ``"child"``.
        kind: What it is in: ``"handler"`` (a callback runs), ``"paused"``, ``"accumulating"``, ``"waits for a name"``,
            ``"waits for its restart"``, ``"partition stuck"``, ``"buffer full"``, ``"waits for demand"`` (it has
            events, and nobody asks), ``"waits for events"`` (there is demand, and there are none), ``"finishing"``,
            ``"starting"`` or ``"idle"``.
        why: The same as a sentence, with names and numbers.
        seconds: For how long at least its totals have not changed. 0: they have, or this is the first look.
        culprit: Others wait for it, and it waits for nobody.
        stack: Where its handler is, if one runs that can be looked into.
    """

    name: str
    role: str
    kind: str
    why: str
    seconds: float
    culprit: bool
    stack: str | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `System.diagnose` returns; ``str()`` of it is meant to be read.

    Attributes:
        stages: All that live, in the order of their start, and children that wait to be started again.
        seconds: For how long at least nothing has moved; 0: something has, or this is the first look.
        first: It is the first look, so nothing is known of before.
    """

    stages: tuple[StageDiagnosis, ...]
    seconds: float
    first: bool

    @property
    def culprits(self) -> tuple[StageDiagnosis, ...]:
        """Those for whom the others wait."""
        return tuple(each for each in self.stages if each.culprit)

    def __getitem__(self, name: str) -> StageDiagnosis:
        """Return what is said of a stage."""
        return next(each for each in self.stages if each.name == name)

    def __str__(self) -> str:
        """Say it in one line for each stage."""
        return self.render()

    def render(self, *, stacks: bool = False) -> str:
        """Return it as text.

        Args:
            stacks: With the stacks of handlers that run.
        """
        lines = [self._headline()]
        width = max((len(each.name) for each in self.stages), default=0)
        for each in self.stages:
            since = f"  (for {duration(each.seconds)})" if each.seconds >= MOVING else ""
            lines.append(f"{'>' if each.culprit else ' '} {each.name:<{width}}  {each.why}{since}")
            if stacks and each.stack:
                lines += [" " * (width + 4) + line for line in each.stack.rstrip().splitlines()]
        return "\n".join(lines)

    def _headline(self) -> str:
        if not self.stages:
            return "No stage runs."
        culprits = self.culprits
        names = join(each.name for each in culprits)
        if self.first:
            return "This is the first look; a later one can tell what has not moved since." + (
                f" The others wait for {names}." if culprits and len(culprits) < len(self.stages) else ""
            )
        if not self.seconds:
            return "Events are moving."
        text = f"Nothing has moved for {duration(self.seconds)}."
        return text + (f" It hangs on {names}:" if culprits else "")


class Memory:
    """What was seen at earlier looks, by stage number: its totals, and when they were first seen like this."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.seen: dict[int, tuple[Any, float]] = {}
        self.looks = 0

    def look(self, node: Node) -> dict[int, float]:
        """Note how things stand, and return for how many seconds each stage has not changed."""
        now = node.loop.time()
        seen: dict[int, tuple[Any, float]] = {}
        for number, driver in list(node.drivers.items()):
            totals = _totals(driver)
            before = self.seen.get(number)
            seen[number] = before if before is not None and before[0] == totals else (totals, now)
        self.seen = seen
        self.looks += 1
        return {number: now - since for number, (_, since) in seen.items()}


_memories: WeakKeyDictionary[Node, Memory] = WeakKeyDictionary()


def look(node: Node) -> dict[int, float]:
    """Note how the stages stand, so that a later diagnosis knows since when they do.

    Returns:
        Seconds for which each stage has not changed, by its number.
    """
    memory = _memories.get(node)
    if memory is None:
        memory = _memories[node] = Memory()
    return memory.look(node)


def diagnose(node: Node) -> Diagnosis:
    """Explain what every stage is at, and for whom it waits."""
    first = node not in _memories
    seconds = look(node)
    states = {number: explain(driver) for number, driver in list(node.drivers.items())}
    stages = [
        StageDiagnosis(
            driver.name,
            driver.core.role,
            states[number].kind,
            states[number].why,
            seconds.get(number, 0.0),
            not states[number].others and (states[number].kind not in _WAITS or _is_blamed(driver, states[number])),
            stack_of(driver) if states[number].kind == HANDLER and not driver.far else None,
        )
        for number, driver in list(node.drivers.items())
        if number in states
    ]
    stages += _absent(node)
    moved = min((each.seconds for each in stages if each.role != "child"), default=0.0)
    return Diagnosis(tuple(stages), moved if moved >= MOVING else 0.0, first)


def duration(seconds: float) -> str:
    """Show a time: ``8 s``, ``2 min 5 s``, ``3 h 10 min``."""
    whole = int(seconds)
    if whole < 60:  # noqa: PLR2004 (a minute)
        return f"{whole} s" if whole >= 10 else f"{seconds:.1f} s"  # noqa: PLR2004 (two digits will do)
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"  # noqa: PLR2004


def join(names: Iterable[str], most: int = 4) -> str:
    """List names: ``'a', 'b' and 'c'``."""
    quoted = [repr(each) for each in dict.fromkeys(names)]
    if len(quoted) > most:
        quoted = [*quoted[: most - 1], f"{len(quoted) - most + 1} more"]
    return quoted[0] if len(quoted) == 1 else " and ".join([", ".join(quoted[:-1]), quoted[-1]]) if quoted else "nobody"


# -- what one stage is at ---------------------------------------------------------------------------------------------


def _totals(driver: Driver) -> Any:
    core = driver.core
    if driver.far:
        return driver.statistics()
    out, into = core.out, core.into
    return (
        core.state,
        None if core.callback is None else core.callback[0],
        core.paused,
        core.awaited,
        None
        if into is None
        else (into.handled, into.at, len(into.windows), [each.asked for each in into.windows.values()]),
        None
        if out is None
        else (out.emitted, out.delivered, out.handled, out.requested, out.queue.size, out.accumulating),
    )


def explain(driver: Driver) -> _State:
    """Say what a stage is at; of one elsewhere, what was heard of it last."""
    if driver.far:
        return _by_hearsay(driver)
    for each in (_by_callback, _by_lifetime, _by_choice, _by_name, _by_output, _by_input):
        state = each(driver)
        if state is not None:
            return state
    return _State(IDLE, "has nothing to do")


def _by_hearsay(driver: Any) -> _State:
    """What the node of a stage has said last; one that says nothing is kept busy by a handler."""
    silent = driver.node.loop.time() - driver.heard
    where = driver.process
    if silent > MOVING:
        return _State(HANDLER, f"keeps {where} busy: nothing was heard of it for {duration(silent)}")
    if driver.at is None:
        return _State(STARTING, f"is being started in {where}")
    kind, why, others = driver.at
    return _State(kind, f"{why} (in {where})", tuple(others))


def _by_callback(driver: Driver) -> _State | None:
    """A callback that is outstanding."""
    core, into = driver.core, driver.core.into
    if core.callback is None:
        children = driver.instance.children() if is_spawner(driver) else ()
        if children:
            running = sum(each.state == "running" for each in children)
            waiting = len(children) - running
            more = f", {waiting} wait to be started again" if waiting else ""
            return _State(HANDLER, f"runs {count_of(running, 'child', 'children')}{more}")
        return None
    name = core.callback[0]
    what = ""
    if name == HANDLE_EVENTS and into is not None:
        deliveries = 1 if into.window is None else into.window.deliveries
        again = f" (delivery {deliveries})" if deliveries > 1 else ""
        what = f" with {count_of(into.size, 'event')}{again}"
    elif name == HANDLE_DEMAND:
        what = f" for {count_of(core.callback[1][0], 'event')}"
    where = {"thread": " in its thread", "task": ""}.get(driver.place, "")
    if core.state == "starting":
        return _State(STARTING, f"runs {name}{what}{where}")
    return _State(HANDLER, f"runs {name}{what}{where}")


def _by_lifetime(driver: Driver) -> _State | None:
    """A stage that starts or ends."""
    core, out, into = driver.core, driver.core.out, driver.core.into
    if core.state == "starting":
        return _State(STARTING, "is about to run started")
    if core.state != "finishing":
        return None
    waits: list[str] = []
    others: list[str] = []
    if out is not None:
        flying = [each for each in (*out.subscribers.values(), *out.closing.values()) if each.in_flight]
        if flying:
            count = sum(each.in_flight for each in flying)
            others = [_peer(each.address) for each in flying]
            waits.append(
                f"{count_of(count, 'event')} that {join(others)} {_has(others)} and {_has_not(others)} handled"
            )
        queued = out.queue.size + sum(out.dispatcher.queued().values())
        if queued:
            waits.append(f"{count_of(queued, 'event')} that nobody takes")
        if out.buried:
            waits.append(f"{count_of(out.buried, 'dead letter')} that the hook has not kept yet")
    if into is not None and into.unsettled():
        waits.append("events that are not done")
    return _State(FINISHING, "finishes: waits for " + (", and for ".join(waits) or "its last messages"), tuple(others))


def _by_choice(driver: Driver) -> _State | None:
    """Somebody wants it to hold still."""
    core, out = driver.core, driver.core.out
    if core.paused:
        return _State(PAUSED, "is paused" + _holding(driver))
    if out is not None and out.accumulating:
        demand = sum(each.pending for each in out.subscribers.values())
        asked = f"; consumers have asked for {count_of(demand, 'event')}" if demand else ""
        return _State(ACCUMULATING, f"accumulates, until set_demand('forward'){asked}{_holding(driver)}")
    return None


def _by_name(driver: Driver) -> _State | None:
    """It waits for a stage that is not there."""
    core, into = driver.core, driver.core.into
    if into is None or not core.awaited or any(each.open for each in into.windows.values()):
        return None
    names = awaited(driver)
    return _State(NAME, f"waits for a stage named {join(names)}" + (", which is to come" if names else ""))


def awaited(driver: Driver) -> list[str]:
    """Return the names that a stage waits for."""
    waiting = driver.node.awaited._waiting  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return [name for name, those in list(waiting.items()) if any(each.driver is driver for each in those)]


def _by_output(driver: Driver) -> _State | None:
    """It has events that nobody takes."""
    out, into = driver.core.out, driver.core.into
    if out is None:
        return None
    stuck = _stuck_partition(out)
    if stuck is not None:
        return stuck
    queued = out.queue.size + sum(out.dispatcher.queued().values())
    waiting = 0 if into is None else sum(size for _, _, size in into.work if size > 0) - into.at
    if not queued and not waiting:
        return None
    size = driver.child.buffer_size
    full = bool(size and out.queue.size >= size)
    holds = f"its buffer is full ({out.queue.size} events)" if full else f"has {count_of(queued + waiting, 'event')}"
    kind = FULL if full else DEMAND
    if not out.subscribers:
        return _State(kind, f"{holds}, and nobody is subscribed")
    if any(each.pending for each in out.subscribers.values()):
        return _State(DEMAND, f"{holds}, and is about to send them", tuple(_consumers(out)))
    busy = [_peer(each.address) for each in out.subscribers.values() if each.in_flight]
    flying = sum(each.in_flight for each in out.subscribers.values())
    names = busy or list(_consumers(out))
    pronoun = "it has" if len(busy) == 1 else "they have"
    at = f"; {pronoun} {count_of(flying, 'event')} in hand" if busy else ""
    return _State(kind, f"{holds}, and no demand: waits for {join(names)} to ask{at}", tuple(names))


def _stuck_partition(out: ProducerSide) -> _State | None:
    """A partition whose queue is full keeps the others from being served."""
    if not isinstance(out.dispatcher, PartitionDispatcher):
        return None
    hungry = [each for each in out.subscribers.values() if each.pending]
    queued = out.dispatcher.queued()
    if not queued or out.need() > 0 or (out.dispatcher.wanted > 0 and not out.queue.size):
        return None
    name = max(queued, key=lambda key: queued[key])
    owner = next((each for each in out.subscribers.values() if each.terms.partition == name), None)
    who = "nobody is subscribed to it" if owner is None else f"{_peer(owner.address)!r} does not ask for more"
    verb = "waits" if len(hungry) == 1 else "wait"
    others = f"; {join(_peer(each.address) for each in hungry)} {verb} for it" if hungry else ""
    return _State(
        PARTITION,
        f"partition {name!r} is stuck: {count_of(queued[name], 'event')} in its queue, and {who}{others}",
        () if owner is None else (_peer(owner.address),),
    )


def _by_input(driver: Driver) -> _State | None:
    """It would work if it had events, or if somebody asked."""
    core, out, into = driver.core, driver.core.out, driver.core.into
    if into is None:
        assert out is not None  # noqa: S101 (it is a source)
        if out.requested and out.subscribers:
            owed = "asked for" if core.answers else "wanted (it has no handle_demand: it emits by itself)"
            return _State(EVENTS, f"has no events: {out.requested} {owed} and not given")
        return _by_demand(out)
    windows = [each for each in into.windows.values() if each.open]
    if not windows:
        return _State(IDLE, "is subscribed to nobody")
    wanted = sum(each.outstanding for each in windows)
    names = [_peer(each.producer) for each in windows]
    if wanted <= 0 and all(each.manual for each in windows):
        return _State(IDLE, f"has asked {join(names)} for nothing (manual)")
    return _State(EVENTS, f"waits for events: has asked {join(names)} for {wanted}", tuple(names))


def _by_demand(out: ProducerSide) -> _State:
    """A source that is asked for nothing."""
    if not out.subscribers:
        return _State(IDLE, "nobody is subscribed")
    names = list(_consumers(out))
    flying = sum(each.in_flight for each in out.subscribers.values())
    busy = [_peer(each.address) for each in out.subscribers.values() if each.in_flight]
    why = f"{join(busy)} {_has(busy)} {count_of(flying, 'event')} in hand" if busy else f"{join(names)} want none"
    return _State(IDLE, f"is asked for nothing: {why}", tuple(busy or names))


def _is_blamed(driver: Driver, state: _State) -> bool:
    """Say whether a stage that waits, and for no other stage, is where things hang."""
    return state.kind == FINISHING or driver.core.role == PRODUCER or state.kind in (DEMAND, FULL)


def _absent(node: Node) -> Iterator[StageDiagnosis]:
    """Children that do not run now, and will."""
    for supervision in list(node.supervisions.values()):
        due = {
            id(member): timer.when() - node.loop.time()
            for timer, members in list(supervision._timers.items())  # noqa: SLF001
            for member in members
        }
        for member in list(supervision._members):  # noqa: SLF001
            if member.state != "waiting":
                continue
            seconds = max(0.0, due.get(id(member), 0.0))
            by = f"by supervisor {supervision.name!r}, in {duration(seconds)}"
            why = f"waits for its restart {by}; it ended: {_line(member.reason)}"
            yield StageDiagnosis(member.recipe.id, "child", RESTART, why, 0.0, culprit=True, stack=None)


# -- words ------------------------------------------------------------------------------------------------------------


def _holding(driver: Driver) -> str:
    core = driver.core
    buffered = 0 if core.out is None else core.out.queue.size
    waiting = 0 if core.into is None else sum(size for _, _, size in core.into.work if size > 0) - core.into.at
    holds = [f"{count_of(waiting, 'event')} before its handler"] if waiting else []
    holds += [f"{count_of(buffered, 'event')} in its buffer"] if buffered else []
    return f"; it holds {' and '.join(holds)}" if holds else ""


def _consumers(out: ProducerSide) -> Iterator[str]:
    for each in out.subscribers.values():
        yield _peer(each.address)


def _has(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _has_not(names: list[str]) -> str:
    return "has not" if len(names) == 1 else "have not"


def _peer(address: Any) -> str:
    return str(getattr(address, "name", address))


def _line(reason: Any) -> str:
    """Show why something has ended, in a line."""
    text = str(reason)
    if isinstance(reason, BaseException) and not isinstance(reason, HeadgateError):
        text = f"{type(reason).__name__}: {text}" if text else type(reason).__name__
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "..."  # noqa: PLR2004 (a line)
