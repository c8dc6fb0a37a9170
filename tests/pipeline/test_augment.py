"""`augment`, in virtual time: what the outside system sees, and what becomes of the messages."""

import asyncio
import math
import random
import threading
from collections import OrderedDict, deque
from typing import Any

import pytest
import stamina
import tenacity

from headgate.errors import AugmentError, CircuitOpenError, HandlerError, LookupTimeoutError, OptionError
from headgate.pipeline.augment import augment
from headgate.pipeline.rates import RateLimiter
from headgate.protocol.circuits import CircuitBreaker
from headgate.protocol.retries import RetryPolicy
from headgate.testing import run
from headgate.types import Message


def virtually(function):
    """Run an async test in virtual time, without ticks."""

    def test():
        run(function(), tick=0, policy="fifo")

    test.__name__ = function.__name__
    return test


def now():
    return asyncio.get_running_loop().time()


class Service:
    """An outside system that says no when it is asked for more than it stands.

    Args:
        seconds: How long a call takes.
        most: How many it stands at once.
        rate: How many calls a second.
        burst: How many on top of that.
    """

    def __init__(self, seconds: float = 1.0, *, most: float = math.inf, rate: float = math.inf, burst: int = 1) -> None:
        self.seconds = seconds
        self.most = most
        self.rate = rate
        self.burst = burst
        self.asked: list[Any] = []
        self.times: list[float] = []
        self.busy = 0
        self.peak = 0
        self.fail: deque[BaseException | None] = deque()  # what the next calls raise
        self.stubborn = 0.0  # how long it goes on when it is cancelled
        self.broken: list[str] = []

    def begin(self, key):
        self.asked.append(key)
        self.times.append(now())
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        if self.busy > self.most:
            self.broken.append(f"{self.busy} calls at once")
        for index, time in enumerate(self.times):
            if len(self.times) - index > (self.burst + self.rate * (now() - time)) * (1 + 1e-6):
                self.broken.append(f"{len(self.times) - index} calls within {now() - time} s")

    async def __call__(self, key):
        self.begin(key)
        error = self.fail.popleft() if self.fail else None
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            if self.stubborn:
                await asyncio.sleep(self.stubborn)
            raise
        finally:
            self.busy -= 1
        if error is not None:
            raise error
        return [f"<{each}>" for each in key] if isinstance(key, list) else f"<{key}>"


async def results(step, *keys):
    """Look these up all at once; give results, errors by their class."""
    found = await asyncio.gather(*(step(Message(key)) for key in keys), return_exceptions=True)
    return [each.metadata["augmented"] if isinstance(each, Message) else type(each).__name__ for each in found]


# -- what a message gets ----------------------------------------------------------------------------------------------


@virtually
async def test_a_message_comes_back_with_the_result_on_it():
    message = Message(7, {"a": 1})
    step = augment(Service())
    assert await step(message) is message
    assert message.metadata == {"a": 1, "augmented": "<7>"}
    assert message.data == 7
    assert await step.look_up(8) == "<8>"


@virtually
async def test_a_key_of_ones_own_and_a_place_of_ones_own():
    by_name = augment(Service(), key=lambda message: message.data["user"], into="user")
    assert (await by_name(Message({"user": 7}))).metadata == {"user": "<7>"}
    into = augment(Service(), into=lambda message, result: message.put_data((message.data, result)))
    assert (await into(Message(7))).data == (7, "<7>")


@virtually
async def test_a_key_that_cannot_be_hashed_is_looked_up_by_itself():
    service = Service()
    step = augment(service)
    assert await results(step, {"a": 1}, {"a": 1}) == ["<{'a': 1}>"] * 2
    assert len(service.asked) == 2
    step = augment(service, cache=10)
    assert await results(step, {"a": 1}) == ["AugmentError"]


@virtually
async def test_a_failure_is_raised():
    service = Service()
    service.fail.append(ValueError("no such user"))
    with pytest.raises(AugmentError) as caught:
        await augment(service, name="users")(Message(7))
    assert str(caught.value) == "augment 'users': cannot look up 7: ValueError: no such user"
    assert isinstance(caught.value.__cause__, ValueError)
    assert (caught.value.augment, caught.value.key) == ("users", 7)


@virtually
async def test_a_failure_can_be_skipped_or_stood_in_for():
    service = Service()
    service.fail.extend([ValueError("no"), ValueError("no")])
    skipping = augment(service, on_error="skip")
    assert (await skipping(Message(7))).metadata == {}
    standing_in = augment(service, on_error=lambda message, error: (message.data, str(error.error)))
    assert (await standing_in(Message(7))).metadata == {"augmented": (7, "no")}
    assert (skipping.statistics().failed, skipping.statistics().skipped) == (1, 1)
    assert (standing_in.statistics().failed, standing_in.statistics().skipped) == (1, 0)


@virtually
async def test_each_who_waits_gets_an_error_of_its_own():
    service = Service()
    service.fail.append(ValueError("no"))
    step = augment(service)
    one: Any
    two: Any
    one, two = await asyncio.gather(step(Message(7)), step(Message(7)), return_exceptions=True)
    assert one is not two
    assert one.__cause__ is two.__cause__


@virtually
async def test_a_lookup_that_cancels_itself_cancels_nobody():
    async def lookup(key):
        raise asyncio.CancelledError

    assert await results(augment(lookup), 1) == ["AugmentError"]


# -- how many at once -------------------------------------------------------------------------------------------------


@virtually
async def test_no_more_at_once_than_it_stands():
    service = Service(most=3)
    step = augment(service, concurrency=3)
    assert await results(step, *range(10)) == [f"<{number}>" for number in range(10)]
    assert (now(), service.peak, service.broken) == (4, 3, [])
    assert step.statistics().most_in_flight == 3
    assert step.statistics().in_flight == 0


@virtually
async def test_a_call_that_was_given_up_counts_until_it_has_ended():
    service = Service(100, most=2)
    service.stubborn = 10
    step = augment(service, concurrency=2, timeout=1)
    assert await results(step, 1, 2, 3, 4) == ["LookupTimeoutError"] * 4
    assert service.times == [0, 0, 11, 11]
    assert service.broken == []
    await step.close()
    await asyncio.sleep(20)


@virtually
async def test_so_does_one_whose_message_was_cancelled():
    service = Service(100, most=1)
    service.stubborn = 10
    step = augment(service, concurrency=1)
    first = asyncio.create_task(step(Message(1)))
    await asyncio.sleep(1)
    first.cancel()
    service.seconds = 1
    assert await results(step, 2) == ["<2>"]
    assert (now(), service.broken) == (12, [])


@virtually
async def test_one_that_obeys_makes_room_at_once():
    service = Service(100, most=1)
    step = augment(service, concurrency=1, timeout=1)
    assert await results(step, 1, 2, 3) == ["LookupTimeoutError"] * 3
    assert service.times == [0, 1, 2]


@virtually
async def test_a_message_that_is_cancelled_while_it_waits_asks_nobody():
    service = Service(5)
    step = augment(service, concurrency=1)
    first = asyncio.create_task(step(Message(1)))
    second = asyncio.create_task(step(Message(2)))
    await asyncio.sleep(1)
    second.cancel()
    await first
    assert await results(step, 3) == ["<3>"]
    assert service.asked == [1, 3]


# -- how often --------------------------------------------------------------------------------------------------------


@virtually
async def test_no_more_often_than_the_rate():
    service = Service(rate=2, burst=3)
    step = augment(service, rate=RateLimiter(2, burst=3))
    await results(step, *range(7))
    assert service.times == pytest.approx([0, 0, 0, 0.5, 1, 1.5, 2])
    assert service.broken == []


@virtually
async def test_two_steps_share_a_rate():
    service = Service(0.1, rate=1, burst=1)
    limiter = RateLimiter(1, burst=1)
    await asyncio.gather(
        results(augment(service, rate=limiter), 1, 2, 3), results(augment(service, rate=limiter), 4, 5, 6)
    )
    assert service.times == pytest.approx(range(6))
    assert limiter.statistics().admitted == 6


@virtually
async def test_a_rate_by_key_of_the_message():
    service = Service(0)
    step = augment(service, rate=RateLimiter(1, burst=1, key=lambda message: message.key))
    await asyncio.gather(*(step(Message(number, key=number % 2)) for number in range(4)))
    assert service.times == [0, 0, 1, 1]
    with pytest.raises(OptionError):
        await step.look_up(1)


@virtually
async def test_a_timeout_does_not_count_the_wait_for_a_turn():
    service = Service(1, most=1)
    step = augment(service, concurrency=1, timeout=2, rate=RateLimiter(0.1, burst=1))
    assert await results(step, 1, 2, 3) == ["<1>", "<2>", "<3>"]
    assert service.times == pytest.approx([0, 10, 20])


# -- once for all -----------------------------------------------------------------------------------------------------


@virtually
async def test_a_key_that_is_looked_up_already_is_not_looked_up_again():
    service = Service()
    step = augment(service)
    assert await results(step, 1, 1, 2, 1) == ["<1>", "<1>", "<2>", "<1>"]
    assert service.asked == [1, 2]
    assert (step.statistics().looked_up, step.statistics().joined) == (2, 2)
    await results(step, 1)
    assert service.asked == [1, 2, 1]


@virtually
async def test_who_joined_goes_on_when_the_first_is_cancelled():
    service = Service()
    step = augment(service)
    first = asyncio.create_task(step(Message(1)))
    second = asyncio.create_task(step(Message(1)))
    await asyncio.sleep(0.5)
    first.cancel()
    assert (await second).metadata == {"augmented": "<1>"}
    assert service.asked == [1]


@virtually
async def test_when_nobody_waits_the_call_ends_and_the_next_one_begins_afresh():
    service = Service()
    step = augment(service)
    tasks = [asyncio.create_task(step(Message(1))) for _ in range(2)]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    assert await results(step, 1) == ["<1>"]
    assert service.asked == [1, 1]
    assert now() == 1.5


# -- a cache ----------------------------------------------------------------------------------------------------------


@virtually
async def test_results_are_remembered_and_failures_are_not():
    service = Service()
    service.fail.append(ValueError("no"))
    step = augment(service, cache=2)
    assert await results(step, 1) == ["AugmentError"]
    assert await results(step, 1) == await results(step, 1) == ["<1>"]
    await results(step, 2)
    await results(step, 3)
    await results(step, 1)
    assert service.asked == [1, 1, 2, 3, 1]
    assert step.statistics().hits == 1


@virtually
async def test_for_so_many_seconds():
    service = Service(0)
    step = augment(service, cache=(10, 60))
    for seconds in (0, 30, 29, 2):
        await asyncio.sleep(seconds)
        await results(step, 1)
    assert service.times == [0, 61]


@virtually
async def test_none_is_a_result():
    asked = []

    async def lookup(key):
        asked.append(key)

    await results(augment(lookup, cache=(10, 60)), 1)
    step = augment(lookup, cache=10)
    assert await results(step, 1) == await results(step, 1) == [None]
    assert asked == [1, 1]


@virtually
async def test_a_cache_of_ones_own():
    mine: OrderedDict[Any, Any] = OrderedDict()
    await results(augment(Service(), cache=mine), 1, 2)
    assert mine == {1: "<1>", 2: "<2>"}


def test_a_cache_that_needs_an_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cachetools", None)
    with pytest.raises(OptionError, match=r"the extra headgate\[augment\] is not installed"):
        augment(Service(), cache=5)


# -- several keys in one call -----------------------------------------------------------------------------------------


@virtually
async def test_keys_share_a_call():
    service = Service()
    step = augment(service, batch=3, linger=0.5)
    assert step.width == 30
    assert await results(step, *range(7)) == [f"<{number}>" for number in range(7)]
    assert service.asked == [[0, 1, 2], [3, 4, 5], [6]]
    assert service.times == [0, 0, 0.5]
    assert (step.statistics().batches, step.statistics().calls, step.statistics().looked_up) == (2, 3, 7)


@virtually
async def test_a_key_is_in_a_call_once():
    service = Service()
    assert await results(augment(service, batch=10), 1, 2, 1, 1) == ["<1>", "<2>", "<1>", "<1>"]
    assert service.asked == [[1, 2]]


@virtually
async def test_results_by_key():
    async def lookup(keys):
        return {key: key * 10 for key in keys if key != 2}

    assert await results(augment(lookup, batch=10), 1, 2, 3) == [10, "AugmentError", 30]


@virtually
async def test_a_result_that_is_an_exception_is_the_failure_of_that_key():
    async def lookup(keys):
        return [ValueError("odd") if key % 2 else key for key in keys]

    step = augment(lookup, batch=10, cache=10)
    assert await results(step, 1, 2, 3) == ["AugmentError", 2, "AugmentError"]
    assert await results(step, 2) == [2]
    assert step.statistics().hits == 1


@pytest.mark.parametrize("wrong", [None, [1], [1, 2, 3], "ab", {1, 2}, 7])
def test_another_number_of_results_is_an_error(wrong):
    async def lookup(keys):
        return wrong

    async def main():
        found: list[Any] = await asyncio.gather(*(step(Message(key)) for key in (1, 2)), return_exceptions=True)
        for each in found:
            assert isinstance(each.__cause__, HandlerError)
            assert "expected lookup to return a list of 2 results, or a dict of results by key" in str(each)

    step = augment(lookup, batch=10)
    run(main())


@virtually
async def test_a_call_that_fails_fails_all_its_keys_and_is_tried_again_for_all():
    service = Service()
    service.fail.extend([ValueError("no"), ValueError("no"), None])
    step = augment(service, batch=2, retry=RetryPolicy(attempts=2, jitter=0))
    assert await results(step, 1, 2) == ["AugmentError"] * 2
    assert await results(step, 1, 2) == ["<1>", "<2>"]


@virtually
async def test_a_key_that_nobody_wants_any_more_is_not_looked_up():
    service = Service()
    step = augment(service, batch=3, linger=1)
    tasks = [asyncio.create_task(step(Message(number))) for number in range(2)]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    await tasks[1]
    assert service.asked == [[1]]
    last = asyncio.create_task(step(Message(5)))
    await asyncio.sleep(0.5)
    last.cancel()
    await asyncio.sleep(10)
    assert service.asked == [[1]]
    assert await results(step, 6, 7, 8) == ["<6>", "<7>", "<8>"]


@virtually
async def test_a_call_goes_on_as_long_as_somebody_waits_for_one_of_its_keys():
    service = Service()
    step = augment(service, batch=2)
    tasks = [asyncio.create_task(step(Message(number))) for number in range(2)]
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    await tasks[1]
    assert now() == 1


# -- trying again -----------------------------------------------------------------------------------------------------


@virtually
async def test_a_policy_says_whether_and_when_to_call_again():
    service = Service()
    service.fail.extend([OSError("no"), OSError("no"), None, ValueError("bad")])
    step = augment(service, retry=RetryPolicy(attempts=3, first=10, factor=2, jitter=0, on=OSError))
    assert await results(step, 1) == ["<1>"]
    assert service.times == [0, 11, 32]
    assert step.statistics().retries == 2
    assert await results(step, 2) == ["AugmentError"]


@virtually
async def test_a_policy_for_each_class_of_errors():
    service = Service()
    service.fail.extend([TimeoutError("no"), KeyError("no")])
    step = augment(service, retry={OSError: RetryPolicy(attempts=5, jitter=0), KeyError: None})
    assert await results(step, 1) == ["AugmentError"]
    assert len(service.times) == 2


@virtually
async def test_a_call_that_took_too_long_is_made_again():
    service = Service(100)
    step = augment(service, timeout=1, retry=RetryPolicy(attempts=3, first=1, jitter=0, on=TimeoutError))
    with pytest.raises(LookupTimeoutError, match="looking up 7 was not done within 1 s") as caught:
        await step(Message(7))
    assert isinstance(caught.value, TimeoutError)
    assert service.times == [0, 2, 5]
    assert step.statistics().timeouts == 3


@virtually
async def test_it_holds_no_place_while_it_waits_to_try_again():
    service = Service(1, most=1)
    service.fail.append(OSError("no"))
    step = augment(service, concurrency=1, retry=RetryPolicy(first=100, most=100, jitter=0))
    first, second = asyncio.create_task(step(Message(1))), asyncio.create_task(step(Message(2)))
    await second
    assert now() == 2
    await first
    assert now() == 102
    assert service.broken == []


@virtually
async def test_each_try_keeps_to_the_rate():
    service = Service(0, rate=1, burst=1)
    service.fail.extend([OSError("no")] * 5)
    step = augment(service, rate=RateLimiter(1, burst=1), retry=RetryPolicy(attempts=9, first=0.001, jitter=0))
    await results(step, 1, 2)
    assert service.broken == []
    assert len(service.times) == 7


@virtually
async def test_stamina_decides():
    service = Service()
    service.fail.extend([OSError("no"), OSError("no")])
    caller = stamina.AsyncRetryingCaller(attempts=5, wait_initial=10, wait_max=100, wait_jitter=0).on(OSError)
    step = augment(service, retry=caller)
    assert await results(step, 1, 2) == ["<1>", "<2>"]
    assert step.statistics().retries == 2
    assert service.times == [0, 0, 11, 11]
    assert await results(step, 3) == ["<3>"]
    service.fail.append(ValueError("bad"))
    assert await results(step, 3) == ["AugmentError"]


@virtually
async def test_tenacity_decides():
    service = Service()
    service.fail.extend([OSError("no"), OSError("no"), OSError("no")])
    caller = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(5), reraise=True, sleep=asyncio.sleep
    )
    step = augment(service, retry=caller)
    assert await results(step, 1) == ["AugmentError"]
    assert await results(step, 1) == ["<1>"]
    assert service.times == [0, 6, 7, 13]


# -- stopping to ask --------------------------------------------------------------------------------------------------


@virtually
async def test_after_too_many_failures_nobody_asks():
    service = Service(0)
    service.fail.extend([OSError("down")] * 4)
    step = augment(service, breaker=CircuitBreaker(failures=3, seconds=30))
    for _ in range(3):
        assert await results(step, 1) == ["AugmentError"]
    assert step.statistics().circuit == "open"
    with pytest.raises(CircuitOpenError, match=r"7 was not looked up, .* \(next try in 30 s\)"):
        await step(Message(7))
    await asyncio.sleep(30)
    assert step.statistics().circuit == "half_open"
    assert await results(step, 1) == ["AugmentError"], "it is not well yet"
    assert await results(step, 1) == ["CircuitOpenError"]
    await asyncio.sleep(30)
    assert await results(step, 1) == ["<1>"]
    assert step.statistics().circuit == "closed"
    assert step.statistics().rejected == 2
    assert service.times == [0, 0, 0, 30, 60]


@virtually
async def test_one_tries_while_the_others_are_refused():
    service = Service(0)
    service.fail.extend([OSError("down")])
    step = augment(service, breaker=CircuitBreaker(failures=1, seconds=10))
    await results(step, 1)
    await asyncio.sleep(10)
    service.seconds = 1
    found = await results(step, *range(5))
    assert sorted(found) == ["<0>", *["CircuitOpenError"] * 4]


@virtually
async def test_who_waits_for_it_goes_on_when_it_is_well():
    service = Service(0)
    service.fail.extend([OSError("down")] * 2)
    step = augment(service, breaker=CircuitBreaker(failures=1, seconds=10, waits=True))
    await results(step, 0)
    service.seconds = 1
    found = await results(step, *range(5))
    assert sorted(found) == ["<1>", "<2>", "<3>", "<4>", "AugmentError"]
    assert service.times == [0, 10, 21, 22, 22, 22]


@virtually
async def test_some_exceptions_are_answers():
    service = Service(0)
    service.fail.extend([KeyError("unknown")] * 5)
    step = augment(service, breaker=CircuitBreaker(failures=2, errors=OSError))
    assert await results(step, 1, 2, 3, 4, 5, 6) == ["AugmentError"] * 5 + ["<6>"]
    assert step.statistics().circuit == "closed"


@virtually
async def test_a_timeout_is_a_failure_and_a_cancellation_is_none():
    service = Service(100)
    step = augment(service, timeout=1, breaker=CircuitBreaker(failures=1, seconds=10, errors=OSError))
    first = asyncio.create_task(step(Message(1)))
    await asyncio.sleep(0.5)
    first.cancel()
    await asyncio.sleep(0)
    assert await results(step, 1) == ["LookupTimeoutError"]
    assert step.statistics().circuit == "open"


@virtually
async def test_a_trial_that_was_cancelled_lets_another_try():
    service = Service(0)
    service.fail.extend([OSError("down")])
    step = augment(service, breaker=CircuitBreaker(failures=1, seconds=10, waits=True))
    await results(step, 1)
    service.seconds = 5
    await asyncio.sleep(10)
    trial = asyncio.create_task(step(Message(2)))
    other = asyncio.create_task(step(Message(3)))
    await asyncio.sleep(1)
    trial.cancel()
    await other
    assert now() == 16


@virtually
async def test_what_was_begun_before_it_opened_says_nothing():
    service = Service(0)
    step = augment(service, breaker=CircuitBreaker(failures=1, seconds=10))
    service.seconds = 12
    service.fail.extend([None])
    late = asyncio.create_task(step(Message(1)))
    await asyncio.sleep(1)
    service.seconds = 0
    service.fail.extend([OSError("down")])
    await results(step, 2)
    await late
    assert step.statistics().circuit == "half_open", "not closed by it"


# -- plain functions --------------------------------------------------------------------------------------------------


@virtually
async def test_a_plain_function_runs_in_threads():
    assert await results(augment(lambda key: key * 2), 1, 2, 3) == [2, 4, 6]
    assert await results(augment(lambda keys: [key * 2 for key in keys], batch=3), 1, 2, 3) == [2, 4, 6]


@virtually
async def test_a_plain_function_around_an_async_one():
    service = Service()
    assert await results(augment(lambda key: service(key + 1)), 1) == ["<2>"]


def test_a_thread_that_was_given_up_keeps_its_place():
    """In real time, without waiting: the threads are let go one by one."""
    running, peak, lock = [0], [0], threading.Lock()
    gates: dict[int, threading.Event] = {number: threading.Event() for number in range(4)}
    began: dict[int, threading.Event] = {number: threading.Event() for number in range(4)}

    def lookup(key):
        with lock:
            running[0] += 1
            peak[0] = max(peak[0], running[0])
        began[key].set()
        gates[key].wait(20)
        with lock:
            running[0] -= 1
        return key

    async def main():
        step = augment(lookup, concurrency=2)
        tasks = [asyncio.create_task(step(Message(number))) for number in range(2)]
        for number in range(2):
            await asyncio.to_thread(began[number].wait, 20)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert step.statistics().in_flight == 2
        tasks = [asyncio.create_task(step(Message(number))) for number in range(2, 4)]
        for number in range(4):
            gates[number].set()
        found = await asyncio.gather(*tasks)
        assert [each.metadata["augmented"] for each in found] == [2, 3]
        assert step.statistics().most_in_flight == 2
        await step.close()

    asyncio.run(main())
    assert peak[0] == 2


@virtually
async def test_a_plain_function_may_raise_anything():
    assert await results(augment(lambda key: next(iter(()))), 1) == ["AugmentError"]


# -- opening and closing ----------------------------------------------------------------------------------------------


@virtually
async def test_closing_ends_what_is_under_way():
    service = Service(100)
    step = augment(service, concurrency=1)
    await step.open()
    await step.open()
    waiting = asyncio.gather(*(step(Message(number)) for number in range(3)), return_exceptions=True)
    await asyncio.sleep(1)
    await step.close()
    await asyncio.sleep(1)
    assert not waiting.done(), "somebody else has it open"
    await step.close()
    assert [str(each) for each in await waiting] == [
        f"augment 'Service': cannot look up {number}: it was closed" for number in range(3)
    ]
    assert service.busy == 0
    service.seconds = 1
    assert await results(step, 5) == ["<5>"]


def test_one_loop_after_the_other():
    service = Service()
    step = augment(service, cache=(10, 60), breaker=CircuitBreaker())
    for _ in range(2):
        assert run(results(step, 1, 2)) == ["<1>", "<2>"]
    assert len(service.asked) == 4


# -- options ----------------------------------------------------------------------------------------------------------


async def fetch(key):
    return key


async def in_background(message, result):
    pass


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"batch": 0}, "batch"),
        ({"batch": "10"}, "batch"),
        ({"linger": -1}, "linger"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"cache": 0}, "cache"),
        ({"cache": (10, 0)}, "cache"),
        ({"cache": (10, 5, 1)}, "cache"),
        ({"cache": "big"}, "cache"),
        ({"key": "user"}, "key"),
        ({"key": fetch}, "key"),
        ({"into": ""}, "into"),
        ({"into": in_background}, "into"),
        ({"rate": 10}, "rate"),
        ({"rate": RateLimiter(1, key=True), "batch": 2}, "rate"),
        ({"breaker": 5}, "breaker"),
        ({"retry": 5}, "retry"),
        ({"retry": {OSError: 5}}, "retry"),
        ({"on_error": "ignore"}, "on_error"),
        ({"on_error": in_background}, "on_error"),
        ({"ordered": 1}, "ordered"),
        ({"name": ""}, "name"),
    ],
)
def test_an_option_out_of_range(options, option):
    with pytest.raises(OptionError) as caught:
        augment(fetch, **options)
    assert (caught.value.where, caught.value.option) == ("augment(fetch)", option)


@pytest.mark.parametrize(
    "options", [{"failures": 0}, {"seconds": 0}, {"trials": 0}, {"errors": "OSError"}, {"errors": (OSError, 1)}]
)
def test_an_option_of_the_breaker_out_of_range(options):
    with pytest.raises(OptionError) as caught:
        CircuitBreaker(**options)
    assert caught.value.option == next(iter(options))


def test_what_is_no_function():
    with pytest.raises(OptionError, match="augment: expected option 'lookup' to be a function of a key, got: 5"):
        augment(5)  # type: ignore[arg-type]


def test_what_it_shows():
    step = augment(fetch, concurrency=3, ordered=False)
    assert repr(step) == "<Augment 'fetch'>"
    assert (step.concurrency, step.width, step.ordered) == (3, 3, False)


# -- whatever happens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(80))
def test_the_outside_system_never_sees_more_than_it_stands(seed):
    """Random latencies, failures, time-outs, cancellations, stubborn calls, batches, retries, breakers."""
    chance = random.Random(seed)
    most, rate, burst = chance.randint(1, 4), chance.choice((1, 5, 50, 1e4)), chance.randint(1, 5)
    service = Service(most=most, rate=rate, burst=burst)

    async def lookup(key):
        service.seconds = chance.choice((0, 0.01, 0.5, 3))
        service.stubborn = chance.choice((0, 0, 0.2, 2))
        service.fail.append(OSError("no") if chance.random() < 0.3 else None)
        return await service(key)

    async def client(step, number):
        await asyncio.sleep(chance.random() * 5)
        try:
            async with asyncio.timeout(chance.choice((None, None, 0.001, 0.5, 2))):
                message = await step(Message(number % 25))
                assert message.metadata["augmented"] == f"<{number % 25}>"
                return "done"
        except AugmentError:
            return "failed"
        except TimeoutError:
            return "cancelled"

    async def main():
        step = augment(
            lookup,
            concurrency=most,
            rate=RateLimiter(rate, burst=burst),
            batch=chance.choice((1, 1, 4)),
            linger=chance.choice((0, 0.1)),
            cache=chance.choice((None, 5, (5, 1))),
            timeout=chance.choice((None, 0.4, 1)),
            retry=chance.choice((None, RetryPolicy(attempts=3, first=0.05))),
            breaker=chance.choice((None, CircuitBreaker(2, 0.5), CircuitBreaker(2, 0.5, waits=True))),
        )
        step._chance = chance.random
        found = await asyncio.gather(*(client(step, number) for number in range(60)))
        await asyncio.sleep(100)  # until stubborn calls have ended
        return found, step.statistics(), step._flights, step._trips, step._calls.slots._value

    found, seen, flights, trips, free = run(main(), seed=seed)
    assert service.broken == []
    assert len(found) == 60
    assert (seen.calls, seen.most_in_flight) == (len(service.asked), service.peak)
    assert (flights, trips, free, service.busy) == ({}, set(), most, 0)
