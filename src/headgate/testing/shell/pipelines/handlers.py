"""What users' functions do in a simulated pipeline: their work, and everything that they should not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from headgate import BatchInfo, DeadLetter, Message, Reject, Retry, Skip, merge
from headgate.testing.shell.pipelines.plan import BatchPlan, Plan
from headgate.testing.shell.world import Boom

if TYPE_CHECKING:
    from headgate.testing.shell.pipelines.broker import Delivery
    from headgate.testing.shell.pipelines.world import PipelineWorld

STEP_FAULTS: Final = (
    "raise",
    "fail",
    "garbage",
    "hang",
    "reject",
    "retry",
    "skip",
    "unknown batcher",
    "die",
    "cancelled",
)
BATCH_FAULTS: Final = ("batch raises", "batch garbage", "missing", "batch hangs", "fail in batch", "batch dies")


class Fatal(BaseException):
    """What ends the stage whose handler raises it."""


class Functions:
    """The functions of one pipeline's user.

    Args:
        world: The run.
        plan: What the pipeline is like.
    """

    def __init__(self, world: PipelineWorld, plan: Plan) -> None:
        """Begin with nothing done."""
        self.world = world
        self.plan = plan
        self.batches: Counter[str] = Counter()
        self.serial: set[Any] = set()

    # -- small ones ---------------------------------------------------------------------------------------------------

    def _blame(self, messages: list[Message], fault: str) -> bool:
        """Draw whether a function fails for these messages."""
        if not self.world.fault(fault):
            return False
        for message in messages:
            self._failed(message)
        return True

    def _failed(self, message: Message) -> None:
        delivery = self.world.find(message)
        if delivery is not None:
            delivery.failures += 1

    def key(self, message: Message) -> Any:
        """Return the key for order and fairness."""
        if self._blame([message], "key raises"):
            raise Boom("key")
        return message.key

    def priority(self, message: Message) -> int:
        """Return the class."""
        return len(str(message.key)) + ord(str(message.key)[-1]) % 3

    def sizer(self, message: Message) -> int:
        """Return the bytes."""
        if self._blame([message], "sizer raises"):
            raise Boom("sizer")
        delivery = self.world.find(message)
        return 1 if delivery is None else delivery.item.size

    def batch_key(self, message: Message) -> Any:
        """Return the key of a batch."""
        if self._blame([message], "key raises"):
            raise Boom("batch key")
        return message.key

    def splitter(self, plan: BatchPlan) -> Callable[[Message, int], tuple[bool, int]]:
        """Return a function that closes a batch after so many messages."""

        def split(message: Message, state: int) -> tuple[bool, int]:
            if self._blame([message], "sizer raises"):
                raise Boom("splitter")
            return (True, 0) if state + 1 >= plan.size else (False, state + 1)

        return split

    # -- prepare_messages ---------------------------------------------------------------------------------------------

    def prepare(self, messages: list[Message]) -> Any:
        """Prepare messages, or fail for all of them."""
        if self._blame(messages, "prepare raises"):
            raise Boom("prepare")
        return self.world.user.choice((None, messages, messages[::-1]))

    async def prepare_slowly(self, messages: list[Message]) -> Any:
        """Prepare messages after a while."""
        await asyncio.sleep(self.world.user.random() * 0.02)
        return self.prepare(messages)

    # -- steps --------------------------------------------------------------------------------------------------------

    def step(self, number: int) -> Callable[..., Any]:
        """Return the handler of a step."""
        kind = self.plan.steps[number].kind

        def handle(message: Message) -> Any:
            delivery = self.world.begin(self.plan, number, message)
            try:
                if kind == "thread":
                    self._be_slow_in_thread(number, delivery)
                return self._act(number, message, delivery, self.world.fault(*STEP_FAULTS))
            finally:
                self.world.end(self.plan, number)

        async def handle_async(message: Message) -> Any:
            world = self.world
            delivery = world.begin(self.plan, number, message)
            try:
                fault = world.fault(*STEP_FAULTS)
                pace = self.plan.steps[number].pace
                if fault == "hang":
                    pace = 4 * (self.plan.steps[number].timeout or 0.5)
                if pace:
                    await asyncio.sleep(world.user.random() * pace)
                return self._act(number, message, delivery, fault)
            except asyncio.CancelledError:  # it takes too long, or the stage ends
                if delivery is not None:
                    delivery.excuses += 1
                    delivery.failures += 1
                raise
            finally:
                world.end(self.plan, number)

        return handle if kind in ("plain", "thread") else handle_async

    def _be_slow_in_thread(self, number: int, delivery: Delivery | None) -> None:
        if delivery is not None and self.plan.steps[number].timeout is not None:  # nobody may wait for what it returns
            delivery.failures += 1
            delivery.excuses += 1
        worker = self.world.loop.worker
        if worker is not None:
            worker.time = max(worker.time, self.world.loop.time()) + self.world.user.random() * (
                self.plan.steps[number].pace
            )

    def _act(self, number: int, message: Message, delivery: Delivery | None, fault: str | None) -> Any:
        """Do the work of a step, or not."""
        if delivery is None:
            return self._pass_on(number, message, None)
        if number == 0 and delivery.item.poison == number and not self.world.calm:
            fault = "poison"
        if fault in ("raise", "poison", "reject", "retry", "fail", "garbage", "cancelled"):
            delivery.failures += 1
        if fault in ("raise", "poison"):
            raise self.world.user.choice((Boom, OSError, ValueError))(fault)
        if fault == "cancelled":
            raise asyncio.CancelledError
        if fault == "fail":
            return message.fail("on purpose")
        if fault == "garbage":
            return self.world.user.choice((42, "message", [message, 3], {}))
        if fault == "reject":
            raise Reject("on purpose")
        if fault == "retry":
            raise Retry(after=self.world.user.choice((None, 0.0, 0.1)))
        if fault == "skip":
            delivery.finished.add(message.data)
            self._leaves(delivery, message)
            raise Skip
        if fault == "die" and self.world.may_fall(self.plan, number):
            delivery.excuses += 1
            delivery.failures += self.plan.steps[number].kind.startswith("wide")  # such a stage goes on
            self.world.fatal += 1
            raise Fatal
        return self._pass_on(number, message, delivery, astray=fault == "unknown batcher")

    def _leaves(self, delivery: Delivery, message: Message) -> None:
        self.world.leave(self.plan, delivery, message)

    def _pass_on(self, number: int, message: Message, delivery: Delivery | None, *, astray: bool = False) -> Any:
        """Send a message on, perhaps as several others."""
        plan, user = self.plan, self.world.user
        last = number == len(plan.steps) - 1
        if last and plan.outlets:
            message.put_batcher(user.choice(plan.outlets))
            if "flush" in plan.features and user.random() < 0.2:  # noqa: PLR2004 (some)
                message.put_batch_mode("flush")
            if user.random() < 0.2:  # noqa: PLR2004 (some)
                message.put_batch_key(user.choice((None, 1, 2)))
        if delivery is None:
            return user.choice((None, message))
        if astray and last and plan.outlets:
            delivery.failures += 1
            return message.put_batcher("nowhere")
        parts = [message]
        result: Any = user.choice((None, message, [message]))
        if user.random() < 0.3:  # noqa: PLR2004 (some)
            result, parts = self._special(number, message, delivery, result)
        if last:
            self._leaves(delivery, message)
            for part in parts:
                delivery.through.add(part.data)
                if plan.exits:
                    delivery.finished.add(part.data)
        return result

    def _special(self, number: int, message: Message, delivery: Delivery, result: Any) -> tuple[Any, list[Message]]:
        """Do one of the rarer things."""
        plan, user = self.plan, self.world.user
        kinds = sorted(plan.features & {"split", "defer", "ack", "new", "beside", "empty"})
        if not kinds or len(message.data) > 5:  # noqa: PLR2004 (deep enough)
            return result, [message]
        kind = user.choice(kinds)
        unit = message.data
        if kind == "split":
            parts = message.split([(*unit, f"{plan.tag}s{number}{part}") for part in range(1 + unit[1] % 3)])
            delivery.replace(unit, [part.data for part in parts])
            return parts, parts
        if kind in ("new", "beside"):
            made = Message((*unit, f"{plan.tag}n{number}"), None, message.key)
            made.batcher = message.batcher
            delivery.replace(unit, [made.data], keep=kind == "beside")
            return ([message, made], [message, made]) if kind == "beside" else (made, [made])
        if kind == "empty":
            delivery.finished.add(unit)
            self.world.stay_out(delivery)
            return [], []
        if kind == "ack":
            delivery.finished.add(unit)
            self.world.stay_out(delivery)
            message.ack_immediately()
            return result, [message]
        self._defer(message, delivery)
        return result, []

    def _defer(self, message: Message, delivery: Delivery) -> None:
        """Let a message be settled later, or never, or twice."""
        world = self.world
        unit = message.data
        handle = message.defer(timeout=world.user.choice((0.1, 1.0)))
        way = world.user.choice(("ack", "ack", "ack", "fail", "requeue", "twice", "never"))
        if (world.calm and way != "never") or (way == "requeue" and not delivery.item.broker.redelivers):
            way = "ack"
        world.note("deferred", unit, way)
        world.count_event("deferred")
        delivery.failures += way != "ack"  # its outcome may be any now
        delivery.excuses += way != "ack"

        def settle() -> None:
            if way in ("ack", "twice"):
                delivery.finished.add(unit)
                handle.ack()
            elif way == "fail":
                handle.fail("later")
            elif way == "requeue":
                handle.requeue(0.01)
            if way == "twice":
                world.duplicates_allowed = True
                handle.ack()

        delay = world.user.random() * 0.2
        delivery.failures += 1  # it may take longer than its time limit
        delivery.excuses += 1
        world.duplicates_allowed = True
        world.later(delay, settle, threaded=world.user.random() < 0.3)  # noqa: PLR2004 (some)

    # -- batches ------------------------------------------------------------------------------------------------------

    def batch(self, plan: BatchPlan) -> Callable[..., Any]:
        """Return the handler of a batcher."""

        def handle(messages: list[Message], info: BatchInfo) -> Any:
            self._begin_batch(plan, messages, info)
            try:
                return self._act_batch(plan, messages, self.world.fault(*BATCH_FAULTS))
            finally:
                self._end_batch(plan, info)

        async def handle_async(messages: list[Message], info: BatchInfo) -> Any:
            self._begin_batch(plan, messages, info)
            try:
                fault = self.world.fault(*BATCH_FAULTS)
                pace = 4 * (plan.run_timeout or 0.5) if fault == "batch hangs" else plan.pace
                if pace:
                    await asyncio.sleep(self.world.user.random() * pace)
                return self._act_batch(plan, messages, fault)
            except asyncio.CancelledError:
                self._fault(plan, messages, fatal=True)
                raise
            finally:
                self._end_batch(plan, info)

        return handle_async if plan.kind == "async" else handle

    def _begin_batch(self, plan: BatchPlan, messages: list[Message], info: BatchInfo) -> None:
        world, place = self.world, (self.plan.tag, plan.name)
        world.note("batch", *place, info.trigger, [message.data for message in messages])
        self.batches[plan.name] += 1
        if self.batches[plan.name] > plan.most:
            text = f"{self.batches[plan.name]} batches at once at {place}, {plan.most} allowed"
            raise world.break_rule("concurrency", text)
        if not messages or info.size != len(messages) or info.batcher != plan.name or len(messages) > plan.size:
            raise world.break_rule("batch", f"{place} was given {len(messages)} of {plan.size}, {info}")
        if plan.serial:
            if (plan.name, info.key) in self.serial and not world.forced:
                raise world.break_rule("serial", f"two batches of {info.key!r} at once at {place}")
            self.serial.add((plan.name, info.key))
        if len({self._key(plan, message) for message in messages} | {info.key}) > 1:
            raise world.break_rule("batch", f"{place} was given several keys, {info}")
        self._check_bytes(plan, messages)
        for message in messages:
            self._check_in_batch(place, message)

    @staticmethod
    def _key(plan: BatchPlan, message: Message) -> Any:
        return message.key if plan.keyed else message.batch_key

    def _check_bytes(self, plan: BatchPlan, messages: list[Message]) -> None:
        deliveries = [self.world.find(message) for message in messages]
        size = sum(1 if each is None else each.item.size for each in deliveries)
        if plan.max_bytes is not None and size > plan.max_bytes and len(messages) > 1:
            raise self.world.break_rule("batch", f"{size} bytes in {len(messages)} messages, {plan.max_bytes} allowed")

    def _check_in_batch(self, place: Any, message: Message) -> None:
        world, delivery = self.world, self.world.find(message)
        if delivery is None:
            return
        if delivery.told is not None and not (delivery.excuses or world.forced):  # a thread goes on with what it has
            raise world.break_rule("handled late", f"{message.data} is in a batch, it was {delivery.told}")
        if message.data not in delivery.through and not delivery.failures and delivery.deadline is None:
            raise world.break_rule("batch", f"{message.data} is in a batch and was not processed")
        delivery.runs[place, message.data] += 1
        most = 1 + delivery.failures + delivery.excuses + delivery.tries
        if delivery.runs[place, message.data] > most:
            raise world.break_rule("doubled", f"{message.data} was in {place} more than {most} times")

    def _end_batch(self, plan: BatchPlan, info: BatchInfo) -> None:
        self.batches[plan.name] -= 1
        self.serial.discard((plan.name, info.key))

    def _fault(self, plan: BatchPlan, messages: list[Message], *, fatal: bool = False) -> None:
        """Take note that a handler has failed with all of these; alone, or if nobody looks further, for good."""
        for message in messages:
            delivery = self.world.find(message)
            if delivery is not None:
                delivery.tries += 1
                if not plan.isolate or len(messages) == 1 or fatal:
                    delivery.failures += 1

    def _act_batch(self, plan: BatchPlan, messages: list[Message], fault: str | None) -> Any:
        world = self.world
        deliveries = [(message, self.world.find(message)) for message in messages]
        poisoned = [each for _, each in deliveries if each is not None and each.item.poison == -1]
        if (poisoned and not world.calm) or fault == "batch raises":
            self._fault(plan, messages)
            raise world.user.choice((Boom, OSError, ValueError))("batch")
        if fault == "batch dies":
            self._fault(plan, messages, fatal=True)
            world.fatal += 1
            raise Fatal
        if fault == "batch garbage":
            for message in messages:
                self._failed(message)
            return world.user.choice((42, "batch", [1]))
        good = list(messages)
        bad: list[Message] = []
        if fault in ("missing", "fail in batch"):
            bad = [good.pop(int(world.user.random() * len(good)))]
            self._failed(bad[0])
        if fault == "fail in batch":
            bad[0].fail("in a batch")
        return self._conclude(good, bad, missing=fault == "missing")

    def _conclude(self, good: list[Message], bad: list[Message], *, missing: bool) -> Any:
        world, features = self.world, self.plan.features
        deferred: list[Message] = []
        for message in good:
            delivery = world.find(message)
            if delivery is None:
                continue
            if "defer" in features and world.user.random() < 0.1:  # noqa: PLR2004 (some)
                self._defer(message, delivery)
                deferred.append(message)
            else:
                delivery.finished.add(message.data)
        if missing:
            return good
        rest = [message for message in good if message not in deferred]
        if "merge" in features and len(rest) > 1 and not bad and not deferred and world.user.random() < 0.5:  # noqa: PLR2004
            return [merge(rest, ("merged",))]
        return world.user.choice((None, [*bad, *good]))

    # -- hooks --------------------------------------------------------------------------------------------------------

    def failed(self, messages: list[Message]) -> Any:
        """Look at messages that have failed."""
        world, user = self.world, self.world.user
        world.note("failed", [(message.data, message.reason) for message in messages])
        for message in messages:
            if message.reason is None and "defer" not in self.plan.features:  # whose handle may be used too early
                world.break_rule("failed", f"{message!r} has no reason in handle_failed")
            delivery = world.find(message)
            if delivery is None:
                continue
            way = user.random()
            if way < 0.25:  # noqa: PLR2004 (as below)
                delivery.forget_parts(message.data)
            if way < 0.15:  # noqa: PLR2004 (some)
                delivery.finished.add(message.data)
                message.recover()
            elif way < 0.25 and self.plan.batchers:  # noqa: PLR2004 (some)
                delivery.through.add(message.data)
                delivery.finished.add(message.data)  # if it comes from there it goes nowhere
                message.recover(user.choice(list(self.plan.batchers)))
            elif way < 0.4:  # noqa: PLR2004 (some)
                message.configure_ack(on_failure=user.choice(("discard", "dead_letter", "retry")))
        if world.fault("hook raises"):
            raise Boom("handle_failed")
        return user.choice((None, messages))

    async def failed_slowly(self, messages: list[Message]) -> Any:
        """Look at them for a while."""
        await asyncio.sleep(self.world.user.random() * 0.05)
        return self.failed(messages)

    def letter(self, letter: DeadLetter) -> None:
        """Take a dead letter."""
        self.world.bury(letter)
        if self.world.fault("hook raises"):
            raise Boom("dead_letters")

    async def letter_slowly(self, letter: DeadLetter) -> None:
        """Take one after a while."""
        await asyncio.sleep(self.world.user.random() * 0.05)
        self.letter(letter)
