"""What handlers return and raise, and how long they may take: the same for processors and batch processors."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from headgate.errors import HandlerError, HandlerTimeoutError
from headgate.types import Joint, Message

if TYPE_CHECKING:
    from headgate.pipeline.run import Run


def parts_of(message: Message, result: Any) -> list[Message] | None:
    """Return the messages that a handler wants to go on in place of one; None: it has returned what it must not.

    Each of them is the message itself, a new one, or made of it by `Message.split` or `headgate.merge`. Of the parts of
    a split all have to be there: what nobody sees again would never end.
    """
    if result is None or result is message:
        return [message]
    if isinstance(result, Message):
        result = [result]
    found: list[Any] = list(result) if isinstance(result, (list, tuple)) else [None]
    if not all(isinstance(each, Message) for each in found) or len(set(map(id, found))) < len(found):
        return None
    splits: dict[Joint, int] = {}
    for each in found:
        keeper = each.keeper
        if each is message or keeper is None:
            continue
        if not isinstance(keeper, Joint) or not _stems(keeper, message):
            return None
        splits[keeper] = splits.get(keeper, 0) + (each.outcome is None)
    if any(count < joint.left for joint, count in splits.items()):
        return None
    return found


def _stems(joint: Joint, message: Message) -> bool:
    """Say whether a message is among those that end as the parts of a joint do."""
    return any(
        each is message or (isinstance(each.keeper, Joint) and _stems(each.keeper, message)) for each in joint.parents
    )


def same(messages: list[Message], value: Any) -> bool:
    """Say whether something is a list of exactly these messages, in any order."""
    return isinstance(value, list) and sorted(map(id, value)) == sorted(map(id, messages))


def wrong(stage: str, callback: str, expected: str, value: Any) -> HandlerError:
    """Return the error of a callback that has returned something wrong; a coroutine is not awaited any more."""
    if inspect.iscoroutine(value):
        value.close()
    return HandlerError(stage, callback, expected, value)


class NoWorkerError(Exception):
    """No worker can be started for a handler: that ends the stage, and the message is for its successor."""


def cancellations() -> int:
    """Return how often the task that runs was told to end: TaskGroups count it up, and do not always take it back."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def its_own(error: BaseException, before: int) -> bool:
    """Say whether a handler has failed with it: by an exception, or as something that it waited for was cancelled.

    Args:
        error: What it has raised.
        before: The number of `cancellations` when it began; more of them: its stage is to end.
    """
    if isinstance(error, asyncio.CancelledError):
        return cancellations() <= before
    return isinstance(error, Exception) and not isinstance(error, NoWorkerError)


def limit_of(message: Message, timeout: float | None, run: Run) -> float | None:
    """Return the seconds that a message may take: its handler's limit, or what is left until its deadline."""
    if message.deadline is None:
        return timeout
    left = message.deadline - run.wall()
    return left if timeout is None else min(left, timeout)


async def within(awaitable: Any, seconds: float, stage: str, callback: str) -> Any:
    """Await something, for so many seconds at most.

    Raises:
        HandlerTimeoutError: It took longer, and was cancelled.
    """
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await awaitable
    except TimeoutError as error:
        if not scope.expired():  # it is the handler's own
            raise
        raise HandlerTimeoutError(stage, callback, seconds) from error
