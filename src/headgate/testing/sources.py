"""`check_source`: does a source keep what `headgate.types.Source` promises? And `StubSource` for tests of pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from headgate.connectors.memory import MemoryQueue
from headgate.errors import OptionError
from headgate.testing import clock
from headgate.testing.source_kit.rules import RULES, SCRIPT
from headgate.testing.source_kit.script import script
from headgate.testing.source_kit.subject import Payload, Subject
from headgate.types import Message, Source


@dataclass
class SourceReport:
    """What `check_source` has checked.

    Attributes:
        ran: The rules that were checked.
        skipped: Those that were not, and why.
    """

    ran: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Show a line for each rule."""
        lines = [*(f"{rule}: kept" for rule in self.ran), *(f"{rule}: -, {why}" for rule, why in self.skipped.items())]
        return "\n".join(lines)


class StubSource(MemoryQueue):
    """A source without messages of its own, for tests of pipelines. It notes everything that it is told.

    Args:
        *payloads: What it hands out first.
        redelivers: What is given to `nack` is handed out again.
        keeps_letters: It takes dead letters.
        ordered: As of `MemoryQueue`.
        lease: Seconds; it expires nothing, and notes when it is to `extend`.
        **options: The other options of `MemoryQueue`.

    Attributes:
        fetched: For each fetch, how many were asked for.
        acked: The payloads that were acknowledged, in order.
        nacked: Of those that came back: payload, delay, counted.
        discarded: The payloads that were given up.
        lettered: The payloads that became dead letters, and why.
        extended: For each call of `extend`, the payloads and the seconds.
        life: ``"open"``, ``"drain"``, ``"close"`` in the order in which they were called.
    """

    def __init__(
        self,
        *payloads: Any,
        redelivers: bool = True,
        keeps_letters: bool = True,
        ordered: bool = False,
        lease: float | None = None,
        **options: Any,
    ) -> None:
        """Start with empty notes."""
        super().__init__(payloads, ordered=ordered, **options)
        self.redelivers = redelivers
        self.keeps_letters = keeps_letters
        self.lease = lease
        self.fetched: list[int] = []
        self.acked: list[Any] = []
        self.nacked: list[tuple[Any, float, bool]] = []
        self.discarded: list[Any] = []
        self.lettered: list[tuple[Any, Any]] = []
        self.extended: list[tuple[list[Any], float]] = []
        self.life: list[str] = []
        self._failures: list[Exception] = []

    def push(self, *payloads: Any, **options: Any) -> None:
        """Have something to hand out.

        Args:
            *payloads: One or more.
            **options: Those of `MemoryQueue.put`, for each.
        """
        for data in payloads:
            self.put(data, **options)

    def fail_next_fetch(self, error: Exception | None = None, times: int = 1) -> None:
        """Let the next fetch raise.

        Args:
            error: What. Default: an ``OSError``.
            times: How many fetches.
        """
        self._failures += [error or OSError("the source is away")] * times
        self.wake()

    def finish(self) -> None:
        """Say that there is nothing more, once everything is handed out."""
        self.close_input()

    def open(self) -> None:
        """Note it."""
        self.life.append("open")
        super().open()

    def close(self) -> None:
        """Note it."""
        self.life.append("close")
        super().close()

    def drain(self) -> None:
        """Note it."""
        self.life.append("drain")
        super().drain()

    def fetch(self, count: int) -> list[Message] | None:
        """Hand out what was pushed, or fail."""
        self.fetched.append(count)
        if self._failures:
            raise self._failures.pop(0)
        return super().fetch(count)

    def ack(self, messages: Any) -> Any:
        """Note it."""
        self.acked += [message.data for message in messages]
        return super().ack(messages)

    def nack(self, messages: Any, delay: float = 0.0, *, counted: bool = True) -> Any:
        """Note it."""
        self.nacked += [(message.data, delay, counted) for message in messages]
        return super().nack(messages, delay, counted=counted) if self.redelivers else super().ack(messages)

    def discard(self, messages: Any) -> Any:
        """Note it."""
        self.discarded += [message.data for message in messages]
        return super().discard(messages)

    def dead_letter(self, messages: Any) -> Any:
        """Note it."""
        self.lettered += [(message.data, message.reason) for message in messages]
        return super().dead_letter(messages)

    def extend(self, messages: Any, seconds: float) -> None:
        """Note it."""
        self.extended.append(([message.data for message in messages], seconds))


def check_source(  # noqa: PLR0913 (each is a choice of its own)
    make: Callable[..., Source],
    *,
    put: Callable[[Any, list[Payload]], Any] | None = None,
    number: Callable[[Message], int] | None = None,
    finish: Callable[[Any], Any] | None = None,
    peer: Callable[[Any], Source] | None = None,
    letters: Callable[[Any], Iterable[int]] | None = None,
    fail: Callable[[Any], Any] | None = None,
    reopen: Callable[[Any], Source] | None = None,
    sleep: Callable[[float], Any] | None = None,
    delay: float | None = None,
    patience: float | None = None,
    quiet: float | None = None,
    virtual: bool | None = None,
    skip: Iterable[str] = (),
    seeds: Iterable[int] = range(20),
) -> SourceReport:
    """Check a source against what `Source` promises, rule by rule, and then by random scripts against a model.

    It is driven as a pipeline does it: one fetch at a time, in a thread if it blocks, again after `wake` or ``poll``.
    What a source does not promise by its attributes (``redelivers``, ``ordered``, ``lease``, ...) is not checked.

    Args:
        make: Makes a fresh source on a fresh, empty queue. Without ``put`` it is called with a list of payloads, and
            makes a source that has them and no others.
        put: Puts payloads into the queue of a source, plain or async: ``put(source, payloads)``. A payload is a dict
            ``{"number": 7, "key": "b"}``; a source that keeps order by key is to take its ``"key"`` as key.
        number: A function of a message: the ``"number"`` of its payload. Default: ``message.data["number"]``.
        finish: Says that nothing more will be put, where there is such a thing; the source has to come to its end.
        peer: Makes a second source on the queue of a source, for what competing consumers must not do.
        letters: Lists the numbers of the dead letters of a source.
        fail: Makes the next fetch of a source raise.
        reopen: Returns what is opened after a source was closed. Default: the same one.
        sleep: Lets time pass for the source (seconds), where it goes by a clock of its own.
        delay: Seconds, for tests of delays. Default 10 on the virtual clock, else 0.2.
        patience: Seconds to wait for what has to come. Default 300 on the virtual clock, else 5.
        quiet: Seconds to watch that nothing comes. Default 30 on the virtual clock, else 0.1.
        virtual: Whether to run on a virtual clock. Default: unless the source blocks. False for one that uses sockets.
        skip: Rules that the source is known not to keep.
        seeds: Of the random scripts.

    Returns:
        Which rules were checked, and which were not and why.

    Raises:
        ConformanceError: A promise is broken; it names the rule and shows the calls.
        OptionError: ``skip`` names a rule that there is not.
    """
    skipped = frozenset(skip)
    unknown = sorted(skipped - set(RULES) - {SCRIPT})
    if unknown:
        raise OptionError("check_source", "skip", f"some of the rules {', '.join([*RULES, SCRIPT])}", unknown[0])
    probe = make() if put is not None else make([])
    if virtual is None:
        virtual = not probe.blocking
    subject = Subject(
        make=make,
        put=put,
        number=number or _number,
        finish=finish,
        peer=peer,
        letters=letters,
        fail=fail,
        reopen=reopen or _same,
        sleep=sleep,
        delay=delay or (10.0 if virtual else 0.2),
        patience=patience or (300.0 if virtual else 5.0),
        quiet=quiet or (30.0 if virtual else 0.1),
        skip=skipped,
        probe=probe,
    )
    report = SourceReport()
    run: Callable[..., Any] = clock.run if virtual else asyncio.run
    for rule, (check, condition) in RULES.items():
        why = "left out" if rule in skipped else condition(subject)
        if why is not None:
            report.skipped[rule] = why
            continue
        subject.rule = rule
        run(check(subject))
        report.ran.append(rule)
    if SCRIPT in skipped:
        report.skipped[SCRIPT] = "left out"
        return report
    for seed in seeds:
        subject.rule, subject.seed = SCRIPT, seed
        run(script(subject), **({"seed": seed} if virtual else {}))
    report.ran.append(SCRIPT)
    return report


def _number(message: Message) -> int:
    found: int = message.data["number"]
    return found


def _same(source: Source) -> Source:
    return source
