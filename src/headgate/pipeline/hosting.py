"""The inside of a worker: a stage that runs one handler, for a stage of a pipeline elsewhere.

It is given messages as their attributes, and gives back what has become of those. What a handler raises is given back
as well, so that this stage lives as long as its process.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from headgate.errors import HandlerError, short
from headgate.pipeline.crossing import HINT, codes_there, probing
from headgate.pipeline.handling import cancellations, its_own
from headgate.stage import Producer
from headgate.types import Message

if TYPE_CHECKING:
    from headgate.runtime.wire import Codes

STAYS: Final = frozenset({"keeper", "owner", "outcome", "receipt", "step"})
"""What a message has that is for the pipeline alone."""
_ATOMS: Final = frozenset({str, bytes, int, float, bool, type(None)})
_NEEDS: Final = "needs the pipeline, which is in another process (do it in a step that runs there, behind this one)"
THESE: Final = "these"
OTHER: Final = "other"

State = dict[str, Any]
"""Attributes of a message."""


def state_of(message: Message) -> State:
    """Return what of a message goes to its handler."""
    return {name: value for name, value in vars(message).items() if name not in STAYS}


def encoded(codes: Codes, states: list[State], value: Any, *, rich: bool = False) -> Any:
    """Turn something about messages into bytes; with exceptions in it it takes more care.

    Raises:
        Exception: It cannot cross.
    """
    rich = rich or any("reason" in each for each in states)
    return codes.encode(value) if rich else codes.encode_events(value)


class Away:
    """The keeper of messages in a worker: what needs the pipeline is refused, or left for it to do.

    Args:
        stage: The name of the stage, for errors.
        callback: The handler's.
    """

    def __init__(self, stage: str, callback: str) -> None:
        """Begin without wishes."""
        self.stage = stage
        self.callback = callback
        self.messages: list[Message] = []
        self.wishes: list[tuple[int, dict[str, Any]]] = []

    def configure(self, message: Message, options: dict[str, Any]) -> None:
        """Leave it to the pipeline."""
        at = next((at for at, each in enumerate(self.messages) if each is message), None)
        if at is None:
            self._refuse("Message.configure_ack() for a message that it has made", message)
        self.wishes.append((at, options))

    def defer(self, message: Message, timeout: float) -> NoReturn:  # noqa: ARG002 (a keeper's form)
        """Refuse."""
        self._refuse("Message.defer()", message)

    def settle(self, message: Message, outcome: str, delay: float = 0.0, *, counted: bool = True) -> NoReturn:  # noqa: ARG002
        """Refuse."""
        self._refuse("Message.ack_immediately(), or Message.split() into nothing", message)

    def duplicate(self, message: Message, outcome: str) -> NoReturn:  # noqa: ARG002 (a keeper's form)
        """Refuse."""
        self._refuse("Message.ack_immediately()", message)

    def _refuse(self, what: str, message: Message) -> NoReturn:
        expected = f"without a call of {what}, which {_NEEDS}"
        raise HandlerError(self.stage, self.callback, expected, short(message))


class HandlerHost(Producer):
    """Runs a handler. It is only ever called, and never asked for events.

    Args:
        stage: The name of the stage that it works for.
        callback: The handler's name.
    """

    def __init__(self, stage: str, callback: str) -> None:
        """Wait for the handler."""
        self.name = stage
        self.callback = callback
        self.handler: Callable[..., Any] | None = None

    def started(self) -> None:
        """Learn how values cross."""
        exchange = self.stage.ref.driver.node.exchange
        self.codes: Codes = codes_there(exchange.codes(exchange.link(0)))

    async def handle_call(self, request: Any) -> Any:
        """Take in the handler, with the first call, or run it.

        Returns:
            The encoded outcome: what was raised or None, what was returned, the attributes of the messages, and the
            options that were to be set. Or a text: why something could not cross.
        """
        try:
            value = self.codes.decode(*request)
        except Exception as error:  # noqa: BLE001 (a module that is not there, ...)
            return f"what came for {self.callback} cannot be read in a worker: {type(error).__name__}: {error}. {HINT}"
        outcome = await (self._begin(*value) if self.handler is None else self._handle(*value))
        return self._encoded(*outcome)

    async def _begin(self, handler: Callable[..., Any], hook: Callable[[], Any] | None) -> tuple[Any, ...]:
        """Keep the handler, and call what is to be called first."""
        before = cancellations()
        try:
            result = None if hook is None else hook()
            if inspect.isawaitable(result):
                await result
        except BaseException as error:
            if not its_own(error, before):
                raise
            return error, None, [], []
        self.handler = handler
        return None, None, [], []

    async def _handle(self, states: list[State], info: Any) -> tuple[Any, ...]:
        assert self.handler is not None  # noqa: S101 (the caller sees to it)
        away = Away(self.name, self.callback)
        messages = away.messages = [_message(state, away) for state in states]
        error, returned, before = None, None, cancellations()
        try:
            result = self.handler(messages[0]) if info is None else self.handler(messages, info)
            if inspect.isawaitable(result):
                result = await result
            returned = self._returned(result, messages)
        except (SystemExit, KeyboardInterrupt) as end:  # it means this process
            _exit(end)
        except BaseException as raised:
            if not its_own(raised, before):
                raise
            error = raised
        changed = [_changed(message, state) for message, state in zip(messages, states, strict=True)]
        return error, returned, changed, away.wishes

    def _returned(self, result: Any, messages: list[Message]) -> Any:
        """Say what a handler has returned: None, or which of its messages, or something that its stage will refuse."""
        if result is None or result is messages:
            return None
        found = [result] if isinstance(result, Message) else result
        if not isinstance(found, (list, tuple)) or not all(isinstance(each, Message) for each in found):
            try:
                probing(self.codes).encode(result)
            except Exception:  # noqa: BLE001 (whatever it is, it is wrong)
                return OTHER, short(result)
            return OTHER, result
        places = {id(message): at for at, message in enumerate(messages)}
        if not all(id(each) in places for each in found):
            expected = f"None or what it was given: a split, a merge or a new message {_NEEDS}"
            raise HandlerError(self.name, self.callback, expected, short(result))
        return THESE, [places[id(each)] for each in found]

    def _encoded(self, error: Any, returned: Any, changed: list[State], wishes: list[Any]) -> Any:
        outcome = (error, returned, changed, wishes)
        try:
            return encoded(self.codes, changed, outcome, rich=error is not None)
        except Exception as failure:  # noqa: BLE001 (whatever cannot be pickled)
            cannot = failure
        with contextlib.suppress(Exception):  # unless it is something else than an exception's own attribute
            return self.codes.encode(outcome, crude=True)
        for state in changed:
            for name, value in state.items():
                try:
                    probing(self.codes).encode(value)
                except Exception as failure:  # noqa: BLE001 (that is the question)
                    return f"message.{name} cannot come back from a worker: {short(value)} ({failure}). {HINT}"
        return f"what {self.callback} made cannot come back from a worker ({cannot}). {HINT}"


def _exit(end: BaseException) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    code = getattr(end, "code", 1)
    os._exit(code if isinstance(code, int) else int(code is not None))


def _message(state: State, keeper: Away) -> Message:
    message = Message.__new__(Message)
    vars(message).update(state, keeper=keeper)
    return message


def _changed(message: Message, state: State) -> State:
    """Return the attributes that are not surely as they were."""
    return {
        name: value
        for name, value in vars(message).items()
        if name not in STAYS and not (type(value) in _ATOMS and name in state and state[name] is value)
    }
