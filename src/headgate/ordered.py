"""A group of stages that work side by side, and whose output comes in the order of their input."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from headgate.errors import HandlerError, NoStageError, OptionError, StageCrashed, WorkerLostError
from headgate.protocol.batching import cut, is_batch
from headgate.protocol.messages import HANDLE_EVENTS, PRODUCER_CONSUMER, Down
from headgate.runtime.options import Child
from headgate.runtime.reference import Ref
from headgate.stage import Producer, ProducerConsumer

DEATHS = 3
"""How often a part may be in the hands of a worker that dies, before its batch counts as failed."""
_SHARE = 2
"""The larger it is, the smaller are the parts of a batch that workers are given in the beginning."""


def ordered(child: Child) -> Child:
    """Let a group give its output in the order of its input.

    One stage stands for the group. It takes a batch, gives parts of it to the members, large ones first and small ones
    at the end so that all are through at about the same time (guided self-scheduling: Polychronopoulos and Kuck, 1987),
    and sends what they return when all of it is there. So make ``max_demand`` of its subscriptions worth it: a batch
    (half the ``max_demand`` unless ``min_demand`` says otherwise) should hold at least ten times as many events as
    there are members.

    Args:
        child: The recipe of the group: a middle stage with ``count=``, at any place. Its instances have to do without
            demand of their own: they are given events by ``handle_events(events, source)``, where ``source`` is None,
            and ``started`` and ``terminate``; ``self.stage`` is there.

    Returns:
        A recipe, with the same name, subscriptions and options.

    Raises:
        OptionError: It is no recipe of a middle stage.
    """
    if not isinstance(child, Child) or child.role != PRODUCER_CONSUMER:
        raise OptionError("ordered", "child", "a Child(...) of a ProducerConsumer", child)
    if any(to.terms.manual or isinstance(to.terms.partition, (list, range)) for to in child.subscribe_to):
        raise OptionError("ordered", "subscribe_to", "automatic, and without a partition for each", child.subscribe_to)
    kind = _AsyncMember if child.inner_place == "task" else _Member
    member = Child(kind, child.cls, child.args, child.kwargs, None, id=child.id, place=child.place, restart="temporary")
    member.args = member.args[:-1]  # its owner comes in the place of the None
    return Child(
        Ordered,
        member,
        child.count,
        name=child.name,
        id=child.id,
        subscribe_to=child.subscribe_to,
        dispatcher=child.fresh_dispatcher(),
        buffer_size=child.buffer_size,
        buffer_keep=child.buffer_keep,
        demand=child.demand,
        restart=child.restart,
        shutdown=child.shutdown,
        delivery=child.delivery,
        max_deliveries=child.max_deliveries,
    )


class Ordered(ProducerConsumer):
    """The stage that stands for the group.

    Args:
        member: The recipe of a member; it takes one more argument, the reference of its owner.
        count: How many.
    """

    def __init__(self, member: Child, count: int) -> None:
        """Begin without members."""
        self.member = member
        self.count = count
        self.members: list[Ref | None] = [None] * count

    async def started(self) -> None:
        """Start the members."""
        await asyncio.gather(*(self._start(slot) for slot in range(self.count)))

    async def terminate(self, reason: Any) -> None:  # noqa: ARG002 (a callback's form)
        """Stop them; after a kill they do it themselves, when they hear of the end of their owner."""
        await asyncio.gather(*(each.stop("shutdown") for each in self.members if each is not None))

    async def handle_events(self, events: Any, source: Any) -> list[Any]:  # noqa: ARG002 (a callback's form)
        """Let the members handle parts of it, and put their outputs in order."""
        outputs: dict[int, Any] = {}
        spans = _spans(len(events), self.count)

        async def serve(slot: int) -> None:
            for start, stop in spans:
                outputs[start] = await self._handle(slot, cut(events, start, stop))

        serving = [asyncio.ensure_future(serve(slot)) for slot in range(self.count)]
        try:
            await asyncio.gather(*serving)
        except BaseException:
            for each in serving:
                each.cancel()
            await asyncio.wait(serving)
            raise
        return [output for start in sorted(outputs) for output in outputs[start]]

    async def _start(self, slot: int) -> Ref:
        node = self.stage.ref.driver.node
        ref: Ref = await node.starter(self.member.with_event(self.stage.ref))
        self.members[slot] = ref
        return ref

    async def _handle(self, slot: int, part: Any) -> Any:
        """Let one member handle events; when its worker dies another takes over, up to a limit."""
        deaths = 0
        while True:
            ref = self.members[slot]
            if ref is None or not ref.alive:
                ref = await self._start(slot)
            try:
                value, error = await ref.call(part, timeout=None)
            except (NoStageError, StageCrashed) as lost:
                deaths += 1
                reason = ref.reason if not ref.alive else lost
                if deaths == DEATHS or not isinstance(getattr(reason, "__cause__", None), WorkerLostError):
                    raise reason if isinstance(reason, BaseException) else lost from lost
                continue
            if error is not None:
                raise error
            return value


def _spans(size: int, workers: int) -> Iterator[tuple[int, int]]:
    """Cut a batch for workers who come back for more: ever smaller parts."""
    start = 0
    while start < size:
        stop = start + max(1, (size - start) // (_SHARE * workers))
        yield start, stop
        start = stop


class _Member(Producer):
    """One of the group: it handles what it is asked about, and sends nothing by itself."""

    def __init__(self, cls: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any], owner: Ref) -> None:
        self.inner = cls(*args, **kwargs)
        self.owner = owner

    def started(self) -> Any:
        """Let the instance know its stage."""
        self.inner.stage = self.stage
        self.stage.monitor(self.owner)
        return self.inner.started()

    def terminate(self, reason: Any) -> Any:
        """Let the instance end."""
        return self.inner.terminate(reason)

    def handle_info(self, message: Any) -> None:
        """End with the owner."""
        if isinstance(message, Down):
            self.stage.stop("shutdown")

    def handle_call(self, request: Any) -> Any:
        """Return the output for events and None, or None and what was raised: the member lives on."""
        try:
            value = self.inner.handle_events(request, None)
        except Exception as error:  # noqa: BLE001 (it is raised by the owner)
            return None, error
        return self._checked(value)

    def _checked(self, value: Any) -> tuple[Any, BaseException | None]:
        if value is None:
            return [], None
        if not is_batch(value):
            wrong = HandlerError(self.stage.name, HANDLE_EVENTS, "a sequence of events or None", value)
            return None, wrong
        return value, None


class _AsyncMember(_Member):
    async def started(self) -> None:
        """Let the instance know its stage."""
        value = super().started()
        if asyncio.iscoroutine(value):
            await value

    async def terminate(self, reason: Any) -> None:
        """Let the instance end."""
        value = super().terminate(reason)
        if asyncio.iscoroutine(value):
            await value

    async def handle_call(self, request: Any) -> tuple[Any, BaseException | None]:
        """Return the output for events, or what was raised."""
        try:
            value = self.inner.handle_events(request, None)
            if asyncio.iscoroutine(value):
                value = await value
        except Exception as error:  # noqa: BLE001 (it is raised by the owner)
            return None, error
        return self._checked(value)
