"""`Supervision`: a supervisor that runs, as it is reached from outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from headgate.errors import HeadgateError, NoStageError, OptionError
from headgate.protocol.messages import SHUTDOWN
from headgate.runtime.options import Child
from headgate.runtime.reference import Ref
from headgate.supervision.engine import Engine
from headgate.supervision.members import ChildInfo, Counts, Member

if TYPE_CHECKING:
    from headgate.supervision.supervisor import Supervisor


class Supervision(Engine):
    """A running supervisor: its children can be listed, added, stopped, started again and changed in number.

    Attributes:
        system: What its stages run in.
        recipe: What it was started from.
    """

    def __repr__(self) -> str:
        """Show the id and whether it lives."""
        return f"<Supervision {self.id!r} {'running' if self.alive else 'ended'}>"

    # -- what it looks like from outside ------------------------------------------------------------------------------

    def children(self) -> list[ChildInfo]:
        """List the children in the order of their start."""
        return [
            ChildInfo(
                each.recipe.id,
                "stage" if isinstance(each.recipe, Child) else "supervisor",
                each.state,
                each.handle,
                each.life.restarts,
                each.reason,
            )
            for each in self._members
        ]

    def count(self) -> Counts:
        """Count the children."""
        stages = sum(isinstance(each.recipe, Child) for each in self._members)
        active = sum(each.handle is not None and each.handle.alive for each in self._members)
        return Counts(len(self._members), active, len(self._members) - stages, stages)

    def child(self, id: str) -> Ref | Supervision:  # noqa: A002 (the field's word)
        """Return the reference of a child that runs.

        Raises:
            NoStageError: There is none of this id, or it does not run.
        """
        handle = self._find(id).handle
        if handle is None:
            raise NoStageError(f"supervisor {self.name!r}: child {id!r} does not run")
        return handle

    async def wait(self) -> Any:
        """Wait until it has ended.

        Returns:
            The reason, when it is a normal one.

        Raises:
            RestartLimitError: It gave up.
        """
        reason = await asyncio.shield(self.done)
        if isinstance(reason, HeadgateError):
            self.node.observed.append(reason)
            raise reason
        return reason

    async def stop(self, reason: Any = SHUTDOWN, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 (ours)
        """Stop the children, the last started first, and end.

        Args:
            reason: Why; they are told.
            timeout: Seconds for all of it; who has not ended by then is killed. Default: the ``shutdown`` option.

        Returns:
            The reason that it ended with.
        """
        self._end_within(self.recipe.shutdown if timeout is None else timeout)
        if not self._stopping.done():
            self._stopping.set_result(reason)
            self._wake.set()
        return await asyncio.shield(self.done)

    async def start_child(self, recipe: Child | Supervisor) -> Ref | Supervision:
        """Add a child behind the others and start it.

        Raises:
            OptionError: Its id or a name of it is taken.
            HeadgateError: It could not be started; then it is not added either.
        """
        return await self._ask(self._add, recipe)

    async def stop_child(self, id: str, *, remove: bool = False) -> None:  # noqa: A002 (the field's word)
        """Stop a child, or a whole group; it stays known, and `restart_child` starts it again.

        Args:
            id: Of a child or a group.
            remove: Forget it as well.

        Raises:
            NoStageError: There is none of this id.
        """
        await self._ask(self._take_out, id, remove)

    async def restart_child(self, id: str) -> Ref | Supervision:  # noqa: A002 (the field's word)
        """Stop a child if it runs, and start it. This does not count as a restart.

        Raises:
            NoStageError: There is none of this id.
            HeadgateError: It could not be started.
        """
        return await self._ask(self._start_again, id)

    async def resize(self, id: str, count: int) -> list[Ref]:  # noqa: A002 (the field's word)
        """Change how many stages a group (a ``Child`` with ``count=``) has, while it works. Nothing is lost.

        New ones are subscribed as the others, and subscribed to by those that follow the group. Those that go give back
        what they have not begun, and finish what they have.

        Args:
            id: Of the group.
            count: How many it is to have, at least 1.

        Returns:
            The references of all that run now.

        Raises:
            NoStageError: There is no such group.
            OptionError: ``count`` is no such number, or the members have partitions of their own.
        """
        return await self._ask(self._resize, id, count)

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _start_for(self, member: Member) -> None:
        """Start a child for somebody who asked for it.

        Raises:
            NoStageError: The supervisor ends, or is being drained.
            HeadgateError: It could not be started.
        """
        if not self._draining:
            await self._start(member)
        if self._draining or member.state == "stopped":
            raise NoStageError(f"supervisor {self.name!r} has ended")

    def _find(self, id: str) -> Member:  # noqa: A002 (the field's word)
        for member in self._members:
            if member.recipe.id == id:
                return member
        known = ", ".join(repr(each.recipe.id) for each in self._members) or "none"
        raise NoStageError(f"supervisor {self.name!r}: there is no child {id!r}; there are: {known}")

    def _find_all(self, id: str) -> list[Member]:  # noqa: A002 (the field's word)
        """Return a child, or all of a group."""
        group = [each for each in self._members if each.group == id]
        return group or [self._find(id)]

    async def _add(self, recipe: Child | Supervisor) -> Any:
        from headgate.supervision.supervisor import check_siblings  # noqa: PLC0415 (recipes know what runs)

        check_siblings(f"supervisor {self.name!r}", [*(each.recipe for each in self._members), recipe])
        members = self._enlist(recipe)
        try:
            for member in members:
                await self._start_for(member)
        except BaseException:
            for member in reversed(members):
                await self._forget(member)
            raise
        return members[0].handle

    async def _take_out(self, id: str, remove: bool) -> None:  # noqa: A002, FBT001 (the caller's options)
        for member in reversed(self._find_all(id)):
            if remove:
                await self._forget(member)
            else:
                await self._stop(member, SHUTDOWN)
                member.state = "stopped"  # its names are waited for: `restart_child` may start it again

    async def _forget(self, member: Member) -> None:
        await self._stop(member, SHUTDOWN)
        self._done(member)
        self._members.remove(member)

    async def _start_again(self, id: str) -> Any:  # noqa: A002 (the field's word)
        member = self._find(id)
        await self._stop(member, SHUTDOWN)
        try:
            await self._start_for(member)
        except BaseException as error:
            member.state, member.reason = "stopped", error
            raise
        return member.handle

    async def _resize(self, id: str, count: int) -> list[Ref]:  # noqa: A002 (the field's word)
        where = f"supervisor {self.name!r}"
        members = [each for each in self._members if each.group == id and isinstance(each.recipe, Child)]
        template = members[0].recipe if members else None
        if not isinstance(template, Child) or template.template is None:
            raise NoStageError(f"{where}: there is no group {id!r} (a Child with count= of at least 2)")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise OptionError(where, "count", "an integer of at least 1", count)
        if template.template.partitioned:
            raise OptionError(where, "count", "left as it is, as each of the group has a partition of its own", count)
        group = template.template.name or ""
        names = list(self.node.awaited.groups.get(group, []))
        for member in members[count:][::-1]:
            await self._let_go(member)
            self._members.remove(member)
            names = [name for name in names if name != member.recipe.name]
            self.node.awaited.change(group, names)
        at = self._members.index(members[0]) + len(members)
        known = {each.recipe.id for each in members}
        possible = [each for each in template.template.members(count + len(members)) if each.id not in known]
        for recipe in possible[: max(0, count - len(members))]:
            member = Member(recipe)
            self._members.insert(at, member)
            at += 1
            names = [*names, *recipe.names()]
            self.node.awaited.change(group, names)
            try:
                await self._start_for(member)
            except BaseException:
                await self._forget(member)
                self.node.awaited.change(group, [name for name in names if name != recipe.name])
                raise
        return [each.handle for each in self._members if each.group == id and isinstance(each.handle, Ref)]

    async def _let_go(self, member: Member) -> None:
        """End one of a group: it gives back what it has not begun, and finishes the rest."""
        handle, member.handle = member.handle, None
        member.state = "done"
        self._unexpect(member)
        if isinstance(handle, Ref) and handle.alive:
            self._leaving = handle
            try:
                await handle.drain(timeout=self._limit(member))
            finally:
                self._leaving = None
