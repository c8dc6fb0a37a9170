"""What the families of the pipelines' machines have in common: a run is a list of steps that a seed draws."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from random import Random
from typing import Any, ClassVar, Final

from headgate.testing.simulation.oracles import Violation
from headgate.types import Message

STEPS: Final = 40


class Play:
    """One run.

    Attributes:
        steps: How many were made.
        faults: How often each of ``kinds`` has happened.
        trace: The last of them.
    """

    kinds: ClassVar[tuple[str, ...]]

    def __init__(self, rng: Random, tail: int) -> None:
        """Draw the options."""
        self.rng = rng
        self.steps = 0
        self.faults: Counter[str] = Counter()
        self.trace: deque[tuple[Any, ...]] = deque(maxlen=tail)
        self.now = 0.0
        self.number = 0

    def run(self) -> None:
        """Make all steps, then bring everything to its end.

        Raises:
            Violation: The machine did something that it must not.
        """
        choices = self.choices()
        names, weights = list(choices), [self.rng.choice((1, 1, 3)) for _ in choices]
        for name in self.rng.choices(names, weights, k=STEPS):
            self.steps += 1
            choices[name]()
            self.check()
        self.end()

    def choices(self) -> dict[str, Callable[[], None]]:
        """Return what may be done."""
        raise NotImplementedError

    def check(self) -> None:
        """Compare."""

    def end(self) -> None:
        """Bring it to its end."""

    def note(self, kind: str, *what: Any) -> None:
        """Put a step into the trace."""
        self.trace.append((kind, *what))

    def happened(self, kind: str, whether: object) -> None:
        """Count something, if it has happened."""
        if whether:
            self.faults[kind] += 1

    @staticmethod
    def same(rule: str, got: Any, expected: Any) -> None:
        """Compare what the machine shows with what the model does."""
        if got != expected:
            raise Violation(rule, f"got {got}, expected {expected}")


class Broken(ValueError):  # noqa: N818 (what a user's function raises here)
    """What functions of the user's raise."""


def numbers(messages: list[Message]) -> list[int]:
    """Return the numbers of messages, which are the first of their data."""
    return [message.data[0] for message in messages]


def start(play: type[Play], seed: int, tail: int) -> Play:
    """Draw the play of a seed."""
    return play(Random(seed * 4 + 1), tail)  # noqa: S311 (chance for tests)
