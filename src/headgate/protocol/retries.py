"""Whether a message that has failed is tried again, and how soon. Pure: chance comes in.

`RetryPolicy` says it for one kind of error, `Retries` chooses the policy by the class of the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headgate.errors import OptionError
from headgate.protocol.children import Backoff

Errors = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True)
class RetryPolicy:
    """When a message is tried again.

    Attributes:
        attempts: How often handlers try it after one fetch, the first time included. Default 3; 1: it is never tried
            again; None: any number of times.
        first: Seconds to wait before the second attempt. Default 0.1.
        factor: By how much each further wait is longer. Default 2.
        most: Seconds of the longest wait. Default 30.
        jitter: Share by which a wait is shortened at random, 0 to 1. Default 0.25.
        on: The class of exceptions after which it is tried again, or a tuple of them. Default: every `Exception`. A
            reason that is no exception counts as a plain `Exception`.
        ordered: While it waits, later messages of its key wait as well (default); False: they pass.

    Raises:
        OptionError: An option is of the wrong type or out of range.
    """

    attempts: int | None = 3
    first: float = 0.1
    factor: float = 2.0
    most: float = 30.0
    jitter: float = 0.25
    on: Errors = Exception
    ordered: bool = True
    _backoff: Backoff = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the options."""
        if self.attempts is not None and (type(self.attempts) is not int or self.attempts < 1):
            raise OptionError("RetryPolicy", "attempts", "an integer of at least 1, or None", self.attempts)
        classes: Any = self.on if isinstance(self.on, tuple) else (self.on,)
        if not all(map(_is_error, classes)):
            raise OptionError("RetryPolicy", "on", "a class of exceptions, or a tuple of them", self.on)
        if type(self.ordered) is not bool:
            raise OptionError("RetryPolicy", "ordered", "True or False", self.ordered)
        try:
            backoff = Backoff(self.first, self.factor, self.most, self.jitter)
        except OptionError as error:
            raise OptionError("RetryPolicy", error.option, error.expected, error.got) from None
        object.__setattr__(self, "_backoff", backoff)

    def decide(self, error: Any, failed_attempts: int, chance: float) -> float | None:
        """Say whether a message is tried again.

        Args:
            error: Why it has failed: an exception, or anything else.
            failed_attempts: How many attempts have failed since it was fetched, this one included: at least 1.
            chance: A random number, 0 to 1.

        Returns:
            The seconds to wait before that, or None if it is given up.
        """
        if self.attempts is not None and failed_attempts >= self.attempts:
            return None
        if not issubclass(class_of(error), self.on):
            return None
        return self._backoff.delay(failed_attempts, chance)


class Retries:
    """Chooses the policy for an error.

    Args:
        policies: One policy for all; or a mapping from classes of exceptions to policies, of which the one for the most
            specific class counts (in the order in which Python looks for a method); None in place of a policy: it is
            never tried again. Errors of other classes are never tried again either, and None instead of it all means
            that none is.
        where: What errors call it.

    Raises:
        OptionError: It is something else.
    """

    __slots__ = ("_policies",)

    def __init__(
        # The keys are classes; a Mapping says exactly of which kind, so that {ValueError: ...} would not do.
        self,
        policies: RetryPolicy | Mapping[Any, RetryPolicy | None] | None,
        *,
        where: str = "Retries",
    ) -> None:
        """Check and keep them."""
        expected = "a RetryPolicy, a mapping from classes of exceptions to RetryPolicy or None, or None"
        if policies is None or isinstance(policies, RetryPolicy):
            chosen: Any = {Exception: policies}
        elif isinstance(policies, Mapping):
            chosen = dict(policies)
        else:
            raise OptionError(where, "retry", expected, policies)
        for error, policy in chosen.items():
            if not _is_error(error) or not (policy is None or isinstance(policy, RetryPolicy)):
                raise OptionError(where, "retry", expected, policies)
        self._policies: dict[type, RetryPolicy | None] = chosen

    def policy(self, error: Any) -> RetryPolicy | None:
        """Return the policy for an error (or for a reason that is none); None: it is never tried again."""
        policies = self._policies
        for each in class_of(error).__mro__:
            if each in policies:
                return policies[each]
        return None

    def decide(self, error: Any, failed_attempts: int, chance: float) -> float | None:
        """Say whether a message is tried again; as `RetryPolicy.decide`."""
        policy = self.policy(error)
        return None if policy is None else policy.decide(error, failed_attempts, chance)


def class_of(error: Any) -> type[BaseException]:
    """Return the class of an exception; what is none counts as a plain `Exception`."""
    return type(error) if isinstance(error, BaseException) else Exception


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)
