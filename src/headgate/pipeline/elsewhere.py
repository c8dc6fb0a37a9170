"""Handlers in worker processes, as the stages of a pipeline see them.

The stage stays here, with the messages, their outcomes, retries and limits of time; only the handler runs elsewhere, in
a worker of its own. A worker that dies under a message is replaced, and the message handled again; at the third death
it has failed, as its next handling would kill as well.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from headgate.errors import CrossingError, HandlerTimeoutError, NoStageError, StageCrashed, WorkerLostError
from headgate.pipeline.crossing import HINT, codes_of, hook_of, refuse_first
from headgate.pipeline.handling import NoWorkerError, within
from headgate.pipeline.hosting import THESE, HandlerHost, encoded, state_of
from headgate.runtime.options import Child

if TYPE_CHECKING:
    from headgate.pipeline.run import Run
    from headgate.runtime.places import Process
    from headgate.runtime.reference import Ref
    from headgate.runtime.wire import Codes
    from headgate.types import Message

DEATHS: Final = 3
"""So many workers may die under a message."""


class Elsewhere:
    """The handler of one stage, in a worker of its own.

    Args:
        run: The run of its pipeline.
        stage: The context of the stage. When that ends, so does the handler.
        handler: The user's function.
        callback: Its name, for errors.
        place: Where it runs.
    """

    def __init__(self, run: Run, stage: Any, handler: Any, callback: str, place: Process) -> None:
        """Begin to start a worker; who needs it waits for it."""
        self.run = run
        self.stage = stage
        self.name: str = stage.name
        self.handler = handler
        self.callback = callback
        self.place = place
        self._there: tuple[Ref, Codes] | None = None
        self._starting: asyncio.Task[None] | None = None
        stage.ref.driver.monitors.append(self._ended)
        self._begin()

    async def handle(self, messages: list[Message], info: Any, timeout: float | None) -> Any:  # noqa: ASYNC109 (ours)
        """Let messages be handled, and change them as their handler has.

        Args:
            messages: One, or those of a batch.
            info: What the handler is told of the batch; None: it is a handler of one message.
            timeout: Seconds for each try; starting a worker does not count.

        Returns:
            What the handler has: None, some of the messages, or something that it must not.

        Raises:
            WorkerLostError: Too many workers have died under them.
            HandlerTimeoutError: It took too long; its worker is killed.
            CrossingError: Something cannot go there or come back.
            NoWorkerError: No worker can be started: that is the stage's end, and no fault of the messages.
            Exception: What the handler has raised.
        """
        lost: Any = None
        for _ in range(DEATHS):
            ref, codes = await self._worker()
            request = self._request(codes, messages, info)
            try:
                call = ref.call(request, timeout=None)
                answer = await (call if timeout is None else within(call, timeout, self.name, self.callback))
            except NoStageError:
                lost = ref.reason
                self._forget()
                continue
            except BaseException as error:  # the time is over, or the stage is: whoever is at it is of no use any more
                self.close()
                self.run.replaced += isinstance(error, HandlerTimeoutError)
                raise
            return self._outcome(codes, messages, answer)
        raise lost_worker(lost) or StageCrashed(self.name, lost)

    def _request(self, codes: Codes, messages: list[Message], info: Any) -> Any:
        states = [state_of(message) for message in messages]
        try:
            return encoded(codes, states, (states, info))
        except Exception as error:
            parts = ((f"message.{name}", value) for state in states for name, value in state.items())
            refuse_first(f"stage {self.name!r}", parts, codes)
            raise CrossingError(f"stage {self.name!r}: a message cannot go to another process: {error}") from error

    def _outcome(self, codes: Codes, messages: list[Message], answer: Any) -> Any:
        """Take in what a worker has said."""
        if isinstance(answer, str):
            self.close()  # perhaps one side knows of code that the other does not
            raise CrossingError(f"stage {self.name!r}: {answer}")
        try:
            error, returned, changed, wishes = codes.decode(*answer)
        except Exception as failure:
            self.close()
            text = f"what {self.callback} made in a worker cannot be read here: {type(failure).__name__}: {failure}"
            raise CrossingError(f"stage {self.name!r}: {text}. {HINT}") from failure
        for message, state in zip(messages, changed, strict=True):
            vars(message).update(state)
        for at, options in wishes:
            messages[at].configure_ack(**options)
        if error is not None:
            raise error
        if returned is None:
            return None
        kind, value = returned
        return [messages[at] for at in value] if kind == THESE else value

    # -- the worker ---------------------------------------------------------------------------------------------------

    async def _worker(self) -> tuple[Ref, Codes]:
        """Return who runs the handler, started anew if need be.

        Raises:
            NoWorkerError: Nobody could be started.
        """
        if self._there is not None and not self._there[0].alive:  # it was at nothing when it died
            self._forget()
        if self._there is None:
            if self._starting is None:
                self._begin()
            assert self._starting is not None  # noqa: S101 (it was begun)
            try:
                await asyncio.shield(self._starting)
            except Exception as error:
                text = f"stage {self.name!r}: no worker can be started for {self.callback}: {error}"
                raise NoWorkerError(text) from error
        assert self._there is not None  # noqa: S101 (it was started)
        return self._there

    def _begin(self) -> None:
        self._starting = self.run.node.job(self._start(), f"start {self.name} elsewhere")
        self._starting.add_done_callback(self._begun)

    def _begun(self, starting: asyncio.Task[None]) -> None:
        """End the stage when nobody could be started: its supervisor decides."""
        if self._starting is starting:
            self._starting = None
        error = None if starting.cancelled() else starting.exception()
        if error is not None and self.stage.ref.alive:
            self.stage.stop(error)

    async def _start(self) -> None:
        for last in (False, False, True):
            ref: Ref | None = None
            try:
                ref = await self._host()
                self._there = ref, await self._send_handler(ref)
            except (StageCrashed, NoStageError) as error:
                if last or lost_worker(error if ref is None else ref.reason) is None:
                    if ref is not None:
                        ref.kill()
                    raise
                self.run.replaced += 1
            except BaseException:
                if ref is not None:
                    ref.kill()
                raise
            else:
                return

    async def _host(self) -> Ref:
        child = Child(HandlerHost, self.name, self.callback, id=f"{self.name}.{self.callback}", place=self.place)
        ref: Ref = await self.run.node.starter(child)
        return ref

    async def _send_handler(self, ref: Ref) -> Codes:
        """Let the handler go there, and whatever belongs to it."""
        pipeline = self.run.pipeline
        exchange: Any = self.run.node.exchange
        driver: Any = ref.driver
        codes = codes_of(pipeline, exchange.codes(exchange.link(driver.where)))
        answer = await ref.call(codes.encode((self.handler, hook_of(pipeline))), timeout=None)
        if isinstance(answer, str):
            raise CrossingError(f"stage {self.name!r}: {answer}")
        error = codes.decode(*answer)[0]
        if error is not None:
            raise error
        return codes

    def _forget(self) -> None:
        self._there = None
        self.run.replaced += 1

    def _ended(self, reason: Any) -> None:  # noqa: ARG002 (a monitor's form)
        self.close()

    def close(self) -> None:
        """End it at once, whatever it is at."""
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        there, self._there = self._there, None
        if there is not None and there[0].alive:
            there[0].kill()


def lost_worker(reason: Any) -> WorkerLostError | None:
    """Return how a worker has ended, if that is why a stage has."""
    while isinstance(reason, StageCrashed):
        reason = reason.reason
    return reason if isinstance(reason, WorkerLostError) else None
