"""`Child` and `To`: recipes and subscriptions, checked when they are written down, not when they are used."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from headgate.errors import OptionError
from headgate.protocol.dispatch.base import Dispatcher
from headgate.protocol.dispatch.broadcast import BroadcastDispatcher
from headgate.protocol.dispatch.demand import DemandDispatcher
from headgate.protocol.messages import CALLBACKS, CONSUMER, HANDLE_EVENTS, PRODUCER, Terms
from headgate.protocol.producer import AT_LEAST_ONCE, AT_MOST_ONCE
from headgate.protocol.stage import StageCore
from headgate.runtime.places import Place
from headgate.runtime.reference import Ref

PLACES: Final = ("inline", "task", "thread")
_DISPATCHERS: Final[dict[str, Callable[[], Dispatcher]]] = {
    "demand": DemandDispatcher,
    "broadcast": BroadcastDispatcher,
}


class To:
    """One subscription of a consumer: to whom, and on what terms.

    Args:
        producer: A stage's name, its reference, or (inside of a system) anything that has a ``ref``.
        max_demand: The most events that may be out at any moment. Default 1000.
        min_demand: More is asked for when no more than this many are out; below ``max_demand``. The handler's batches
            have at most ``max_demand - min_demand`` events. Default: half of ``max_demand``.
        cancel: What this consumer does when the producer ends: ``"permanent"`` (default): it ends too, for the same
            reason (at the end of a finite stream: when its last producer has finished); ``"transient"``: only when that
            reason is abnormal; ``"temporary"``: it lives on.
        mode: ``"automatic"`` (default), or ``"manual"``: nothing is asked but by ``ask``.
        partition: The partition, when the producer has a partition dispatcher. For a group of stages (``count=``) a
            list or range with one for each.
        selector: Event -> truth, when the producer broadcasts: only what it chooses is delivered.
        weight: Turns in a row, when the producer's dispatcher serves in turn. Default 1.
        key: A name for this subscription, for dispatchers that want one.
        retry: Seconds for which to wait for a stage of the producer's name when there is none, at the start or after it
            has ended without having finished (``math.inf``: as long as it takes); ``cancel`` applies only then. While a
            supervisor is about to start that stage it is waited for in any case. Default None: ``cancel`` applies at
            once.

    Raises:
        OptionError: An option is unknown, of the wrong type or out of range.
    """

    __slots__ = ("producer", "terms")

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        producer: str | Ref,
        *,
        max_demand: int = 1000,
        min_demand: int | None = None,
        cancel: str = "permanent",
        mode: str = "automatic",
        partition: Any = None,
        selector: Callable[[Any], Any] | None = None,
        weight: int = 1,
        key: Any = None,
        retry: float | None = None,
        **unknown: Any,
    ) -> None:
        """Check the options."""
        where = f"To({_named(producer)})"
        refuse_unknown(where, unknown, To.__init__)
        if not isinstance(producer, (str, Ref)):
            raise OptionError(where, "producer", "the name or the reference of a stage", producer)
        check_count(where, "max_demand", max_demand, 1)
        if min_demand is None:
            min_demand = max_demand // 2
        check_count(where, "min_demand", min_demand, 0)
        if min_demand >= max_demand:
            raise OptionError(
                where, "min_demand", f"an integer from 0 to {max_demand - 1} (below max_demand)", min_demand
            )
        check_choice(where, "cancel", cancel, ("permanent", "transient", "temporary"))
        check_choice(where, "mode", mode, ("automatic", "manual"))
        check_count(where, "weight", weight, 1)
        if retry is not None:
            check_seconds(where, "retry", retry, "a number of seconds of at least 0, or None")
            if isinstance(producer, Ref) and not producer.driver.registered:
                raise OptionError(where, "retry", "None, as a stage without a name cannot come back", retry)
        self.producer = producer
        self.terms = Terms(max_demand, min_demand, cancel, mode == "manual", partition, selector, weight, key, retry)

    def with_heir(self, heir: tuple[str, ...]) -> To:
        """Return the subscription of a stage that its supervisor starts again when it ends."""
        to = copy.copy(self)
        to.terms = self.terms._replace(heir=heir)
        return to

    def of_member(self, index: int) -> To:
        """Return the subscription of one stage of a group: it has its own of a list of partitions."""
        if not isinstance(self.terms.partition, (list, range)):
            return self
        to = copy.copy(self)
        to.terms = self.terms._replace(partition=self.terms.partition[index])
        return to

    def __repr__(self) -> str:
        """Show the producer and the demand."""
        return f"To({_named(self.producer)}, max_demand={self.terms.max_demand}, min_demand={self.terms.min_demand})"


class Child:
    """A recipe from which a stage can be started, and started again.

    Args:
        cls: A subclass of `Producer`, `ProducerConsumer` or `Consumer`.
        *args: For its ``__init__``.
        name: A name that others can subscribe to; no two living stages of a system share one. Default: none.
        id: Names the child among its siblings. Default: the name, or the class's name.
        subscribe_to: Producers: names, references or `To`.
        dispatcher: ``"demand"`` (default), ``"broadcast"``, or a `Dispatcher` as a prototype: each start gets a copy.
        buffer_size: Events that may wait beyond the demand, or None for no bound. Default 10,000. A middle stage is not
            given more to handle while its output does not fit.
        buffer_keep: What happens to a surplus: None (default): an error; ``"first"``: the new events are dropped;
            ``"last"``: the oldest are. What is dropped is counted.
        demand: ``"forward"`` (default), or ``"accumulate"``: demand and events are held until a
            ``set_demand("forward")``.
        restart: For supervisors: ``"permanent"`` (default), ``"transient"`` or ``"temporary"``.
        shutdown: Seconds that the stage has to end by itself. Default 5.
        place: ``"inline"``, ``"task"``, ``"thread"``, `Process` or `Ray`. Default: in a task when a handler is
            async, else inline.
        delivery: ``"at_least_once"`` (default): what a consumer did not handle goes to the next taker;
            ``"at_most_once"``: it is lost, and counted.
        max_deliveries: How often events that a handler crashes with are given to handlers before they are halved,
            to find the one that is to blame, which becomes a dead letter. Default 3. None: they come back for ever.
        count: Under a supervisor: how many stages to start from this recipe. They are named ``name-1``, ``name-2``,
            ..., and whoever subscribes to ``name`` subscribes to each of them. Default 1.
        **kwargs: For its ``__init__``.

    Raises:
        OptionError: An option is unknown, of the wrong type or out of range, or does not fit the class.
    """

    ref_class: type[Ref] = Ref

    def __init__(  # noqa: PLR0913 (each is a choice of its own)
        self,
        cls: type[Any],
        *args: Any,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 (the field's word)
        subscribe_to: Iterable[str | Ref | To] = (),
        dispatcher: str | Dispatcher | None = None,
        buffer_size: int | None = 10_000,
        buffer_keep: str | None = None,
        demand: str = "forward",
        restart: str = "permanent",
        shutdown: float = 5.0,
        place: str | Place | None = None,
        delivery: str = AT_LEAST_ONCE,
        max_deliveries: int | None = 3,
        count: int = 1,
        **kwargs: Any,
    ) -> None:
        """Check the options."""
        self.label = getattr(cls, "__name__", repr(cls))
        where = self.where = f"Child({self.label})"
        role = getattr(cls, "role", None)
        if not isinstance(cls, type) or role is None:
            raise OptionError(where, "cls", "a subclass of Producer, ProducerConsumer or Consumer", cls)
        self.cls = cls
        self.role: str = role
        self.args = args
        self.kwargs = kwargs
        self._check_arguments(where)
        self.name = check_name(where, "name", name)
        self.id = check_name(where, "id", id) or name or self.label
        self.subscribe_to = self._subscriptions(where, subscribe_to)
        self._dispatcher = self._check_dispatcher(where, dispatcher)
        if buffer_size is not None:
            check_count(where, "buffer_size", buffer_size, 0, "an integer of at least 0, or None")
        self.buffer_size = buffer_size
        check_choice(where, "buffer_keep", buffer_keep, (None, "first", "last"))
        self.buffer_keep = buffer_keep
        check_choice(where, "demand", demand, ("forward", "accumulate"))
        if demand == "accumulate" and role == CONSUMER:
            raise OptionError(where, "demand", "'forward', as a consumer has no demand to hold", demand)
        self.demand = demand
        check_choice(where, "restart", restart, ("permanent", "transient", "temporary"))
        self.restart = restart
        self.shutdown = check_seconds(where, "shutdown", shutdown)
        check_choice(where, "delivery", delivery, (AT_LEAST_ONCE, AT_MOST_ONCE))
        self.delivery = delivery
        if max_deliveries is not None:
            check_count(where, "max_deliveries", max_deliveries, 1, "an integer of at least 1, or None")
        self.max_deliveries = max_deliveries
        check_count(where, "count", count, 1)
        self.count = count
        self.grouped = count > 1  # a group of one can be asked for as well: it can be resized
        self.template: Child | None = None  # of a member of a group
        self.remark = ""  # for pictures
        self._check_partitions(where)
        self.defined = _defined(cls)
        if role != PRODUCER and HANDLE_EVENTS not in self.defined:
            raise OptionError(where, "cls", "a class that has handle_events", cls)
        self.place = self._check_place(where, place)

    def __repr__(self) -> str:
        """Show the class and the name."""
        return f"<Child {self.label}{'' if self.name is None else ' ' + repr(self.name)}>"

    def names(self) -> Iterator[str]:
        """Return the names of the stages that are started from it."""
        if self.name is not None:
            yield from [f"{self.name}-{n}" for n in range(1, self.count + 1)] if self.grouped else [self.name]

    def groups(self) -> Iterator[str]:
        """Return the name of the group that is started from it, if it is one."""
        if self.name is not None and self.grouped:
            yield self.name

    def members(self, count: int | None = None) -> list[Child]:
        """Return a recipe for each stage of a group; of a single stage, its own.

        Args:
            count: How many. Default: the option.
        """
        if not self.grouped and count is None:
            return [self]
        return [self._member(index) for index in range(count or self.count)]

    def with_event(self, event: Any) -> Child:
        """Return a recipe with one more positional argument."""
        child = copy.copy(self)
        child.args = (*self.args, event)
        return child

    def _member(self, index: int) -> Child:
        child = copy.copy(self)
        child.template, child.count, child.grouped = self, 1, False
        child.id = f"{self.id}-{index + 1}"
        child.name = None if self.name is None else f"{self.name}-{index + 1}"
        child.subscribe_to = [to.of_member(index) for to in self.subscribe_to]
        return child

    def _check_partitions(self, where: str) -> None:
        """Refuse a list of partitions that is not one for each stage of a group."""
        for to in self.subscribe_to:
            partitions = to.terms.partition
            if isinstance(partitions, (list, range)) and len(partitions) != self.count:
                expected = f"as many partitions as the group has stages (count={self.count})"
                raise OptionError(f"{where}, {to!r}", "partition", expected, partitions)

    @property
    def partitioned(self) -> bool:
        """Whether the stages of this group have partitions of their own."""
        return any(isinstance(to.terms.partition, (list, range)) for to in self.subscribe_to)

    def core_class(self, lanes: Mapping[str, type[StageCore]]) -> type[StageCore]:
        """Return the class of its core: the fast lane of its role, unless its class is marked as plain."""
        return StageCore if getattr(self.cls, "__headgate_plain__", False) else lanes[self.role]

    def build(self) -> Any:
        """Make a fresh instance of the stage."""
        return self.cls(*self.args, **self.kwargs)

    def fresh_dispatcher(self) -> Dispatcher | None:
        """Make a fresh dispatcher; None for a consumer."""
        return None if self._dispatcher is None else self._dispatcher.fresh()

    def _check_arguments(self, where: str) -> None:
        """Refuse arguments that ``__init__`` does not take: a misspelt option ends up there."""
        try:
            inspect.signature(self.cls).bind(*self.args, **self.kwargs)
        except TypeError as error:
            parameters = inspect.signature(self.cls).parameters
            unknown = {name: value for name, value in self.kwargs.items() if name not in parameters}
            refuse_unknown(where, unknown, Child.__init__)
            expected = f"the arguments of {self.label}{inspect.signature(self.cls)}"
            raise OptionError(where, "args", expected, str(error)) from None
        except ValueError:  # a class without a signature of its own
            return

    def _subscriptions(self, where: str, subscribe_to: Iterable[str | Ref | To]) -> list[To]:
        if isinstance(subscribe_to, (str, Ref, To)) or not isinstance(subscribe_to, Iterable):
            raise OptionError(where, "subscribe_to", "a list of names, references or To(...)", subscribe_to)
        entries = [as_to(each) for each in subscribe_to]
        if entries and self.role == PRODUCER:
            raise OptionError(where, "subscribe_to", "empty, as a producer subscribes to nobody", entries)
        return entries

    def _check_dispatcher(self, where: str, dispatcher: str | Dispatcher | None) -> Dispatcher | None:
        if self.role == CONSUMER:
            if dispatcher is not None:
                raise OptionError(where, "dispatcher", "left out, as a consumer dispatches nothing", dispatcher)
            return None
        if dispatcher is None:
            return DemandDispatcher()
        if isinstance(dispatcher, Dispatcher):
            return dispatcher
        if isinstance(dispatcher, str) and dispatcher in _DISPATCHERS:
            return _DISPATCHERS[dispatcher]()
        raise OptionError(
            where, "dispatcher", "'demand', 'broadcast' or a Dispatcher such as PartitionDispatcher(4)", dispatcher
        )

    def _check_place(self, where: str, place: str | Place | None) -> str | Place:
        asynchronous = sorted(name for name in self.defined if inspect.iscoroutinefunction(getattr(self.cls, name)))
        self.inner_place = "task" if asynchronous else "inline"
        if place is None:
            return self.inner_place
        if isinstance(place, Place):
            return place
        if not isinstance(place, str) or place not in PLACES:
            words = ", ".join(map(repr, PLACES))
            raise OptionError(where, "place", f"one of {words}, Process(...) or Ray(...)", place)
        if asynchronous and place != "task":
            raise OptionError(where, "place", f"'task', as {', '.join(asynchronous)} is async", place)
        return place


def as_to(value: str | Ref | To) -> To:
    """Return a subscription as a `To`."""
    return value if isinstance(value, To) else To(value)


def _defined(cls: type[Any]) -> frozenset[str]:
    """Return the callbacks that the class has itself, beyond the documentation on the base classes."""
    names = []
    for name in CALLBACKS:
        method = getattr(cls, name, None)
        if method is not None and not getattr(method, "__headgate_default__", False):
            names.append(name)
    return frozenset(names)


def check_count(where: str, option: str, value: Any, least: int, expected: str | None = None) -> None:
    """Refuse what is no integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(where, option, expected or f"an integer of at least {least}", value)


def check_name(where: str, option: str, value: Any) -> str | None:
    """Refuse what is no name."""
    if value is not None and (not isinstance(value, str) or not value):
        raise OptionError(where, option, "a string that is not empty, or None", value)
    return value


def check_seconds(where: str, option: str, value: Any, expected: str = "a number of seconds of at least 0") -> float:
    """Refuse what is no number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:  # nan too
        raise OptionError(where, option, expected, value)
    return float(value)


def check_choice(where: str, option: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse what is none of these."""
    if not any(value is each or (type(value) is type(each) and value == each) for each in allowed):
        raise OptionError(where, option, "one of " + ", ".join(map(repr, allowed)), value)


def refuse_unknown(where: str, unknown: dict[str, Any], function: Callable[..., Any]) -> None:
    """Refuse options that the function does not have, and say which one may have been meant."""
    if not unknown:
        return
    name, value = next(iter(unknown.items()))
    known = [
        each for each in inspect.signature(function).parameters if each not in ("self", "unknown", "args", "kwargs")
    ]
    if function is Child.__init__ and name in set(inspect.signature(To.__init__).parameters) - {"self", "unknown"}:
        raise OptionError(where, name, "given to To(...) in subscribe_to, as it belongs to one subscription", value)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise OptionError(where, name, f"one of the known options {', '.join(known)}{hint}", value)


def _named(producer: Any) -> str:
    return repr(producer.name) if isinstance(producer, Ref) else repr(producer)
