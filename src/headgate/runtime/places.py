"""Places: where a stage runs. Some are words (``"inline"``, ``"task"``, ``"thread"``), others have options."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from headgate.errors import OptionError


class Place:
    """A place outside of this process. The stage itself is the same everywhere."""

    word = ""
    """What statistics and pictures call it."""


@dataclass(frozen=True)
class Process(Place):
    """A worker process on this machine, for handlers that keep a core busy.

    Workers are fresh interpreters (``spawn``: nothing is inherited but the environment). One whose stages have ended is
    used again. The stage's class, its arguments and the events have to be such that pickle or cloudpickle can take them
    across. Needs ``headgate[process]``.

    Args:
        group: Stages of the same group share one worker; events between them do not leave it. Default None: this stage
            has a worker of its own.
        max_bytes: The most that one message of events may weigh, in bytes; a larger batch goes in several messages.
            A single event that is larger crashes the stage that sends it. Default 64 MiB.
        budget: Bytes of events that may be on the way to one stage and not handled yet, beside its ``max_demand``.
            At least one batch is always let through. Default 256 MiB.
    """

    group: str | None = None
    max_bytes: int = 64 << 20
    budget: int = 256 << 20

    word = "process"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            OptionError: One is of the wrong type or out of range.
        """
        _check(self, "group", _is_name, "a string that is not empty, or None")
        for option in ("max_bytes", "budget"):
            _check(self, option, _is_size, "a number of bytes of at least 1")


@dataclass(frozen=True)
class Ray(Place):
    """An actor on a Ray cluster, for stages that are to run on other machines.

    Ray gives the actor a machine, starts it and sees when it dies; the events go from node to node over links of our
    own (TCP), not through Ray's calls (unless ports are closed, see ``ports``) and not through this process. Actors are
    not detached: they end with this program. One whose stages have ended is used again for a few seconds, then it gives
    back what it holds. Every machine of the cluster needs the same headgate. Needs ``headgate[ray]``.

    Args:
        group: Stages of the same group share one actor; events between them do not leave it. Default None: this stage
            has an actor of its own.
        address: The cluster: ``"host:port"`` or ``"auto"`` as for ``ray.init`` (but no ``ray://``, as this program is a
            part of it), or ``"local"`` to start one on this machine, which ends with the last `System` that uses it.
            Default None: the one that this program is connected to already; else that of the environment variable
            ``RAY_ADDRESS``; else ``"local"``.
        num_cpus: Cores that the actor holds. Default 1.
        num_gpus: GPUs that it holds. Default 0.
        memory: Bytes that it holds. Default None: this is not looked at.
        resources: Other resources that it holds, by name. Default: none.
        scheduling_strategy: As Ray takes it: ``"DEFAULT"``, ``"SPREAD"``, a ``NodeAffinitySchedulingStrategy``, a
            ``PlacementGroupSchedulingStrategy``, ... Default None: Ray's own default.
        runtime_env: As Ray takes it: packages, environment variables, ... Default: none.
        name: The actors are called this and a number in Ray's lists. Default: they have no names.
        namespace: The names' namespace, for the actors and, where this connects to a cluster, for the connection.
        ports: The first and the last port at which a node may listen, here and there. Default None: any free one. Nodes
            listen at the address that Ray knows their machine by. False: none may be opened. What goes between
            machines is then carried by Ray's own calls, which is slower; so it is, after some seconds and with a
            warning, between any two machines where a port turns out to be closed.
        start_timeout: Seconds that the cluster may take to find a place and to start the actor. Default 60.
        max_bytes: As for `Process`.
        budget: As for `Process`.
    """

    group: str | None = None
    address: str | None = None
    num_cpus: float = 1
    num_gpus: float = 0
    memory: float | None = None
    resources: dict[str, float] | None = None
    scheduling_strategy: Any = None
    runtime_env: dict[str, Any] | None = None
    name: str | None = None
    namespace: str | None = None
    ports: tuple[int, int] | Literal[False] | None = None
    start_timeout: float = 60.0
    max_bytes: int = 64 << 20
    budget: int = 256 << 20

    word = "ray"

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            OptionError: One is of the wrong type or out of range, or ``headgate[ray]`` is not installed.
        """
        _check(self, "address", _is_address, "'host:port' of the cluster itself (no 'ray://'), 'auto', 'local' or None")
        for option in ("group", "name", "namespace"):
            _check(self, option, _is_name, "a string that is not empty, or None")
        for option in ("num_cpus", "num_gpus"):
            _check(self, option, _is_amount, "a number of at least 0")
        _check(self, "memory", lambda it: it is None or _is_amount(it), "a number of bytes, or None")
        _check(self, "resources", _are_resources, "numbers of at least 0 by name, or None")
        _check(self, "runtime_env", lambda it: it is None or isinstance(it, dict), "a dict, or None")
        _check(self, "ports", _are_ports, "two ports between 1 and 65535, in order, False or None")
        _check(self, "start_timeout", lambda it: _is_amount(it) and it > 0, "a number of seconds above 0")
        for option in ("max_bytes", "budget"):
            _check(self, option, _is_size, "a number of bytes of at least 1")
        if importlib.util.find_spec("ray") is None:
            raise OptionError("Ray", "place", "headgate[ray] to be installed (ray)", "no module named 'ray'")


def _check(place: Place, option: str, fits: Callable[[Any], bool], expected: str) -> None:
    value = getattr(place, option)
    if not fits(value):
        raise OptionError(type(place).__name__, option, expected, value)


def _is_name(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(value))


def _is_address(value: Any) -> bool:
    return _is_name(value) and not (value or "").startswith("ray://")


def _is_amount(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_resources(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(name, str) and _is_amount(each) for name, each in value.items())
    )


def _are_ports(value: Any) -> bool:
    if value is None or value is False:
        return True
    if not isinstance(value, tuple) or len(value) != len(("first", "last")):
        return False
    return all(_is_size(port) and port < 1 << 16 for port in value) and value[0] <= value[1]


def cores() -> int:
    """Return how many cores this process may use, at least 1: the number of workers that keeps them busy."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has it
        return os.cpu_count() or 1
