"""Nodes that are started from home: what home knows of one, and how it is ended. Here: worker processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headgate.errors import WorkerLostError
from headgate.runtime import board
from headgate.runtime.far import KILL_SECONDS, FarDriver
from headgate.runtime.link import Link
from headgate.runtime.places import Process, Ray

if TYPE_CHECKING:
    from headgate.runtime.hub import Hub

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from headgate.worker import main; main()"


class Worker:
    """A node that was started from here, as home sees it.

    Attributes:
        number: The number of its node.
        place: What it was started for.
        stages: Those that run there.
        over: It has ended.
        gone: Resolves when nothing of it is left.
        pid: Its process id; None until it is known.
        address: Where others reach it by TCP; None: they are joined with it by descriptors, or it is not up yet.
        link: The link to it.
    """

    distant = False
    """It may be on another machine."""
    at = ""
    """Where it is, in words, if that is not here."""
    machine: str | None = None
    """What Ray calls the machine that it is on; None: that of home."""
    pid: int | None = None
    address: tuple[str, int] | None = None
    link: Link

    def __init__(self, hub: Hub, number: int, place: Process | Ray) -> None:
        """Begin without stages."""
        self.hub = hub
        self.number = number
        self.place = place
        self.stages: dict[int, FarDriver] = {}
        self.over = False
        self.gone: asyncio.Future[None] = hub.loop.create_future()
        self._kills: dict[int, asyncio.TimerHandle] = {}

    def __str__(self) -> str:
        """Name it."""
        return f"worker {self.number}{self.at}{'' if self.pid is None else f' (process {self.pid})'}"

    def insist(self, far: FarDriver, reason: Any) -> None:
        """Kill the worker when a stage of it does not carry out a kill: a handler is in its way."""
        if far.number not in self._kills and not self.over:
            far.killed = (reason,)
            self._kills[far.number] = self.hub.loop.call_later(KILL_SECONDS, self.kill)

    def left(self, far: FarDriver) -> None:
        """Take note that a stage has ended there."""
        self.stages.pop(far.number, None)
        timer = self._kills.pop(far.number, None)
        if timer is not None:
            timer.cancel()

    def lost(self, reason: WorkerLostError, spans: dict[int, board.Held]) -> None:
        """Let everybody know that it has ended."""
        for timer in self._kills.values():
            timer.cancel()
        self.hub.lost(self, reason, spans)

    def rest(self) -> None:
        """Be without stages: others may come."""

    def reached(self, then: Callable[[], None]) -> None:
        """Do something when its address is known."""
        then()

    def exit(self) -> None:
        """Let it end in order: all its stages have."""
        self.link.tell("exit")

    def kill(self) -> None:
        """End it at once."""
        raise NotImplementedError

    def exited(self) -> None:
        """See it end: it was killed."""
        raise NotImplementedError

    def closed(self) -> None:
        """See to its end: it says nothing more."""
        raise NotImplementedError


class ProcessWorker(Worker):
    """A worker process on this machine."""

    def __init__(self, hub: Hub, number: int, place: Process) -> None:
        """Start it."""
        super().__init__(hub, number, place)
        ours, theirs = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        self._board, there = board.make()
        try:
            self.process = subprocess.Popen(  # noqa: S603 (our own interpreter)
                [
                    sys.executable,
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]  # noqa: SLF001
                    "-c",
                    _BOOT,
                    json.dumps(sys.path),
                    json.dumps([number, theirs.fileno(), lifeline, there, place.max_bytes, place.budget]),
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), lifeline, there),
                process_group=0,  # what the terminal sends (Ctrl-C) is for the parent
            )
        except OSError:
            for each in (ours, theirs):
                each.close()
            for descriptor in (lifeline, self._lifeline, there):
                os.close(descriptor)
            raise
        theirs.close()
        os.close(lifeline)
        os.close(there)
        self.pid = self.process.pid
        self._watch(self.process.pid)
        self.link = Link(hub, number, ours, max_bytes=place.max_bytes, budget=place.budget)

    def _watch(self, pid: int) -> None:
        """Be told when the process has ended."""
        loop = self.hub.loop
        try:
            self._handle = os.pidfd_open(pid)
        except (AttributeError, OSError):  # not on this system
            self._handle = -1
            waiting = loop.run_in_executor(None, self.process.wait)
            waiting.add_done_callback(lambda _: self.exited())
            return
        loop.add_reader(self._handle, self.exited)

    def exited(self) -> None:
        """Take note that the process has ended."""
        if self.over:
            return
        self.over = True
        if self._handle >= 0:
            self.hub.loop.remove_reader(self._handle)
            os.close(self._handle)
        code = self.process.wait()
        self.link.drain()  # what it has said before it died counts
        spans = board.read(self._board)
        self._board.close()
        os.close(self._lifeline)
        self.lost(self.reason(code), spans)
        if not self.gone.done():
            self.gone.set_result(None)

    def reason(self, code: int) -> WorkerLostError:
        """Say how it has ended."""
        if code >= 0:
            how = f"has exited with code {code}"
        else:
            try:
                how = f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                how = f"was killed by signal {-code}"
        return WorkerLostError(f"worker {self.number}", self.pid, how)

    def kill(self) -> None:
        """End the process at once."""
        if not self.over:
            self.process.kill()

    def closed(self) -> None:
        """Kill the process, if it does not end by itself."""
        if self.process.poll() is None:
            self.hub.loop.call_later(KILL_SECONDS, self.kill)
