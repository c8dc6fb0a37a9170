"""The families of pipelines: each lays the weight of chance on something else."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final

from headgate import Message
from headgate.testing.shell.pipelines.handlers import BATCH_FAULTS, STEP_FAULTS
from headgate.testing.shell.pipelines.plan import draw_broker, draw_items, draw_plan
from headgate.testing.shell.pipelines.play import ENDS, play
from headgate.testing.shell.pipelines.world import PipelineWorld, SimLimiter

KILLS: Final = ("kill source", "kill processor", "kill batcher", "kill batch")
SOURCES: Final = ("fetch raises", "fetch garbage", "back raises", "back raises late")
USERS: Final = ("key raises", "sizer raises", "prepare raises", "hook raises")

EXPECTED: Final[dict[str, tuple[str, ...]]] = {
    "batching": (*BATCH_FAULTS, "kill batcher", "kill batch", "kill processor", "sizer raises", "key raises", "raise"),
    "retries": (*STEP_FAULTS, "batch raises", "batch hangs", "kill processor", "prepare raises", "requeued"),
    "letters": ("raise", "reject", "fail", "garbage", "unknown batcher", "hook raises", "missing", "dead letter"),
    "joint": ("raise", "die", "skip", "batch raises", "kill processor", "kill source", "deferred"),
    "draining": (*ENDS, "drained in time", "raise", "hang", "batch raises", "drain raises", "close raises"),
    "limits": ("rate", "pause", "quiesce", "resize", "fetch raises", "kill source", "kill processor", "raise"),
    "fairness": ("raise", "die", "kill source", "kill processor", "key raises", "pause", "resize"),
    "leases": (*SOURCES, "extend raises", "lease expired", "hang", "kill source", "raise"),
    "routes": ("raise", "die", "batch raises", "stop", "drain", "pause", "fetch raises"),
}
"""The faults of each family: all of them have to happen."""
UNFORCED: Final = {"requeued", "dead letter", "deferred", "lease expired", "drained in time", *ENDS}


def swarm(world: PipelineWorld, *, budget: int = 6) -> None:
    """Draw which faults may happen, how many, and how eager they are; one run in eight has none."""
    draw = world.draw
    if draw.random() < 0.125:  # noqa: PLR2004 (one in eight)
        return
    kinds = [kind for kind in EXPECTED[world.family] if kind not in UNFORCED]
    share = draw.choice((0.3, 0.6, 1.0))
    world.kinds = [kind for kind in kinds if draw.random() < share] or [draw.choice(kinds)]
    if "kill source" in world.kinds:  # what such a stage has sent is not sent again when its receiver falls as well
        world.kinds = [kind for kind in world.kinds if kind not in ("kill processor", "die")]
    world.budget = 1 + int(draw.random() * budget)
    world.rate = draw.choice((0.02, 0.1, 0.3))


async def _run(world: Any, emphasis: dict[str, Any]) -> None:
    """Draw everything and play it."""
    assert isinstance(world, PipelineWorld)  # noqa: S101 (what the runner makes for these families)
    draw = world.draw
    names = "xy"[: draw.choice((1, 1, 1, 2))]
    world.brokers = [draw_broker(world, name, emphasis) for name in names]
    world.plans = [draw_plan(world, "p0", world.brokers, emphasis)]
    for number in range(draw.choice(emphasis.get("chain", (0,)))):
        world.plans[-1].route = "down"
        plan = draw_plan(world, f"p{number + 1}", world.brokers, emphasis)
        plan.above = world.plans[-1]
        world.plans.append(plan)
    _limit(world, emphasis)
    items = [item for broker in world.brokers for item in draw_items(world, broker, emphasis)]
    draw.shuffle(items)
    items.sort(key=lambda item: item.number)
    swarm(world, budget=emphasis.get("budget", 6))
    endings = [draw.choice(ENDS) for _ in range(draw.choice(emphasis.get("lives", (0, 0, 0, 1))))] + ["end"]
    pushes = draw.choice((1, 3)) if draw.random() < 0.1 and not world.plans[0].route else 0  # noqa: PLR2004 (some)
    await play(world, items, endings=endings, pushes=pushes)


def _limit(world: PipelineWorld, emphasis: dict[str, Any]) -> None:
    draw = world.draw
    if draw.random() < emphasis.get("limits", 0.1):
        world.limiter = SimLimiter(world, draw.choice((5, 20, 200)), burst=draw.choice((None, 1, 3)))
    if draw.random() < emphasis.get("limits", 0.1) / 2:
        world.key_limiter = SimLimiter(world, draw.choice((2, 20, 100)), burst=draw.choice((None, 1, 3)), key=_key)


def _key(message: Message) -> Any:
    return message.key or "none"


async def batching(world: Any) -> None:
    """Batchers with all their options: size, bytes, keys, serial, overflow, isolation, retries."""
    await _run(world, {"batchers": (1, 1, 2, 3), "features": 0.05})


async def retries(world: Any) -> None:
    """Handlers that fail in all ways, and retry policies."""
    await _run(world, {"poison": 0.5, "budget": 12})


async def letters(world: Any) -> None:
    """Messages that have failed for good: hooks, dead letters, discards."""
    await _run(world, {"hooks": (None, "plain", "async"), "poison": 0.7, "deadlines": 0.3, "redelivers": 0.6})


async def joint(world: Any) -> None:
    """One message into many, many into one, deferred and settled early."""
    await _run(world, {"features": 0.5, "steps": (1, 2, 2, 3)})


async def draining(world: Any) -> None:
    """Pipelines end at random moments in all ways, and begin anew."""
    await _run(world, {"lives": (1, 1, 2, 3), "poison": 0.2})


async def limits(world: Any) -> None:
    """Rates that change, pauses, other numbers of stages."""
    await _run(world, {"limits": 0.8})


async def fairness(world: Any) -> None:
    """Order by key, turns of users, priorities."""
    await _run(world, {"choice": 1.0, "rank": 0.6})


async def leases(world: Any) -> None:
    """Sources that fail and dawdle, leases that pass."""
    await _run(world, {"leases": (0.1, 0.3, 1.0), "lives": (0, 0, 1)})


async def routes(world: Any) -> None:
    """Pipelines behind pipelines."""
    await _run(world, {"chain": (1, 1, 2), "lives": (0, 0, 1), "batchers": (0, 0, 1, 2)})


PIPELINES: Final[dict[str, Callable[[Any], Coroutine[Any, Any, None]]]] = {
    "batching": batching,
    "retries": retries,
    "letters": letters,
    "joint": joint,
    "draining": draining,
    "limits": limits,
    "fairness": fairness,
    "leases": leases,
    "routes": routes,
}
