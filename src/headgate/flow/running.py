"""Running a flow: as an app, collected, iterated; from plain programs and from async ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from typing import Any, Final, Self, TypeVar

from headgate.errors import FlowError, FlowInterruptedError, OptionError
from headgate.flow.app import FlowApp, FlowRun, FlowStatistics
from headgate.flow.graph import Node, ReduceNode, walk
from headgate.flow.progress import Progress
from headgate.flow.windows import WindowSpec
from headgate.streaming import stream
from headgate.system import System

RESTARTS: Final = 3
"""How often a flow is done again from its sources when a worker is lost, and nobody has had results yet."""

_T = TypeVar("_T")


class Running:
    """The part of `Flow` that runs it."""

    __slots__ = ()

    _node: Node
    _workers: int | None
    _place: Any
    _window: WindowSpec | None

    def _described(self) -> Node:
        """Return the description, which can be run.

        Raises:
            OptionError: There are windows for the reduces that follow, but none follows.
        """
        spec = self._window
        if spec is not None and not any(
            isinstance(each, ReduceNode) and each.window is spec for each in walk(self._node)
        ):
            raise OptionError("Flow.window", "spec", "followed by a reduce, which is done within it", spec)
        return self._node

    def app(
        self,
        *,
        name: str | None = None,
        id: str | None = None,  # noqa: A002 (the field's word)
        restart: str = "permanent",
        shutdown: float = 30.0,
        demand: str = "forward",
        consume: str | Callable[[Any], Any] | None = None,
        watch: float | None = None,
    ) -> FlowApp:
        """Return the flow as an app: for `headgate.run`, for ``async with``, or as a child of a supervisor.

        ::

            app = Flow.from_stages(["orders"]).map(parse).app(name="parsed")
            Supervisor([orders, app, Child(Write, subscribe_to=["parsed"])], strategy="rest_for_one")

        Args:
            name: Its results can be subscribed to by this name, if they go nowhere else (`into`).
            id: Names it among its siblings. Default: the name, or ``"flow"``.
            restart: For the supervisor above: ``"permanent"`` (default), ``"transient"`` or ``"temporary"``.
            shutdown: Seconds for stopping it.
            demand: ``"forward"`` (default), or ``"accumulate"``: nothing flows before `FlowRun.forward`.
            consume: ``"drain"``: the results go where the flow says (`into`), or nowhere; ``"stages"``: they wait for
                consumers that subscribe; or a function of a batch of results. Default: ``"stages"`` with a name, else
                ``"drain"``.
            watch: Seconds between two reports of each worker, as events come: what it has read, what was late, what it
                holds. `FlowRun.flow_statistics` has them. Default None: they come at the end.

        Raises:
            OptionError: An option is wrong.
        """
        if consume is None:
            consume = "stages" if name is not None else "drain"
        return FlowApp(
            self._described(),
            workers=self._workers,
            place=self._place,
            name=name,
            id=id,
            restart=restart,
            shutdown=shutdown,
            demand=demand,
            consume=consume,
            watch=watch,
        )

    # -- async programs -----------------------------------------------------------------------------------------------

    async def run_async(self, *, progress: bool = False) -> FlowStatistics:
        """Run it to its end; results go where the flow says, or nowhere.

        Args:
            progress: Show rows, rate and the share done on the terminal (stderr).

        Raises:
            OperatorError: A function of yours raised.
            FlowError: It did not get to its end for another reason.
        """
        return await self._to_the_end(lambda: "drain", progress=progress)

    async def collect(self, *, progress: bool = False) -> list[Any]:
        """Run it to its end, and return the results.

        Args:
            progress: As of `run_async`.

        Raises:
            OperatorError: A function of yours raised.
            FlowError: It did not get to its end for another reason.
        """
        results: list[Any] = []

        def begin() -> Callable[[Any], None]:
            results.clear()
            return results.extend

        await self._to_the_end(begin, progress=progress)
        return results

    def __await__(self) -> Generator[Any, Any, FlowStatistics]:
        """Run it to its end: ``await flow`` is ``await flow.run_async()``."""
        return self.run_async().__await__()

    async def _to_the_end(self, begin: Callable[[], Any], *, progress: bool) -> FlowStatistics:
        restarts = 0
        while True:
            app = FlowApp(
                self._described(),
                workers=self._workers,
                place=self._place,
                consume=begin(),
                watch=0.2 if progress else None,
                shutdown=5.0,
            )
            try:
                async with System() as system:
                    run: FlowRun = await system.start(app)
                    shown = Progress(run) if progress else None
                    try:
                        await run.wait()
                    finally:
                        if shown is not None:
                            await shown.close()
            except FlowInterruptedError:
                restarts += 1
                if restarts > RESTARTS or not app.plan.repeatable or app.plan.ends[-1][2] or len(app.plan.ends) > 1:
                    raise
            else:
                numbers = run.flow_statistics()
                numbers.restarts = restarts
                return numbers

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        """Run it, and yield its results as they come; it ends when nobody wants more."""
        app = FlowApp(
            self._described(),
            workers=self._workers,
            place=self._place,
            consume="stages",
            demand="accumulate",
            shutdown=5.0,
        )
        if app.plan.ends[-1][2]:
            raise FlowError("a flow whose results go somewhere (into) has none to iterate over; use run or run_async")
        async with System() as system:
            run: FlowRun = await system.start(app)
            outlet = run.outlet
            results = stream([outlet])
            began = False
            try:
                while True:
                    pending = asyncio.ensure_future(anext(results))
                    if not began:
                        began = True
                        # It may fail, or be through, as soon as it may begin: whoever wants its results comes first.
                        while not pending.done() and not outlet.statistics().consumers:  # noqa: ASYNC110 (a few turns)
                            await asyncio.sleep(0)
                        run.forward()
                    try:
                        event = await pending
                    except StopAsyncIteration:
                        break
                    yield event
            finally:
                await results.aclose()
                if run.failure is None:
                    await run.stop()
            await run.wait()

    # -- plain programs -----------------------------------------------------------------------------------------------

    def run(self, *, progress: bool = False) -> FlowStatistics:
        """Run it to its end, and wait for that. Also where an event loop runs already, as in a notebook.

        Args:
            progress: Show rows, rate and the share done on the terminal (stderr).

        Raises:
            OperatorError: A function of yours raised.
            FlowError: It did not get to its end for another reason.
        """
        return _run(self.run_async(progress=progress))

    def to_list(self, *, progress: bool = False) -> list[Any]:
        """Run it to its end, and return the results.

        Args:
            progress: As of `run`.

        Raises:
            OperatorError: A function of yours raised.
            FlowError: It did not get to its end for another reason.
        """
        return _run(self.collect(progress=progress))

    def __iter__(self) -> Iterator[Any]:
        """Run it, and yield its results as they come; it ends when nobody wants more."""
        results = self.__aiter__()
        with _Loop() as loop:
            try:
                while True:
                    try:
                        event = loop.run(anext(results))
                    except StopAsyncIteration:
                        return
                    yield event
            finally:
                loop.run(results.aclose())


class _Loop:
    """An event loop of one's own: here, or in a thread where one runs here already."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._runner = asyncio.Runner()
            return self
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="headgate: flow", daemon=True)
        self._thread.start()
        return self

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        if self._runner is not None:
            return self._runner.run(coroutine)
        assert self._loop is not None  # noqa: S101 (one of the two)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            self._runner.close()
        elif self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    with _Loop() as loop:
        return loop.run(coroutine)
