"""Where handlers are that run: in tasks, in threads, as children."""

from __future__ import annotations

import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from headgate.observe.blocked import format_frames, frame_of

if TYPE_CHECKING:
    from headgate.runtime.driver import Driver


def stack_of(driver: Driver) -> str | None:
    """Return where a handler is that runs: in a task, in a thread, or on the loop."""
    coroutine = getattr(getattr(driver, "_suspended", None), "_coroutine", None)
    if coroutine is not None:
        return _coroutine_stack(coroutine)
    thread = getattr(driver, "_thread", None)
    if thread is not None:
        return _frames_within(frame_of(thread.ident), "_work")
    if not is_spawner(driver):
        return None
    busy = [worker.suspended for worker in driver.instance._workers if worker.suspended is not None]  # noqa: SLF001
    stacks = [_coroutine_stack(each._coroutine) for each in busy]  # noqa: SLF001
    for each in threading.enumerate():
        if each.name.startswith(f"headgate: {driver.name} child "):
            stack = _frames_within(frame_of(each.ident), "_work")
            stacks += [] if stack is None else [stack]
    counts = {stack: stacks.count(stack) for stack in stacks}
    return "\n".join(f"{count_of(count, 'child', 'children')}:\n{stack}" for stack, count in counts.items()) or None


def is_spawner(driver: Driver) -> bool:
    """Say whether it is a `ConsumerSupervisor`, which this layer does not know."""
    return driver.child.ref_class.__name__ == "ConsumerSupervisorRef"


def _coroutine_stack(coroutine: Any) -> str:
    """Return the stack of a coroutine that waits, the outermost frame first."""
    frames: list[FrameType] = []
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is None:
            break
        frames.append(frame)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return format_frames(frames)


def _frames_within(frame: FrameType | None, outer: str) -> str | None:
    """Return the stack inside of a function, the outermost frame first."""
    frames: list[FrameType] = []
    while frame is not None and frame.f_code.co_name != outer:
        frames.append(frame)
        frame = frame.f_back
    return format_frames(frames[::-1]) if frames else None


def count_of(count: int, one: str, many: str | None = None) -> str:
    """Say how many: ``1 event``, ``2,000 events``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
