"""`RateLimiter`, in virtual time: who may pass when, in which order, whoever is cancelled."""

import asyncio
import math
import random
import threading
from typing import Any

import pytest

from headgate.errors import OptionError
from headgate.pipeline.rates import RateLimiter
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


async def passing(limiter, *sizes, key=None):
    """Say when each of these may pass."""
    times = {}

    async def one(index, n):
        await limiter.acquire(n, key)
        times[index] = now()

    async with asyncio.TaskGroup() as group:
        for index, n in enumerate(sizes):
            group.create_task(one(index, n))
    assert list(times) == sorted(times), "in their order"
    return [pytest.approx(time) for time in times.values()]


# -- waiting ----------------------------------------------------------------------------------------------------------


@virtually
async def test_a_burst_at_once_and_then_the_rate():
    assert await passing(RateLimiter(2, burst=3), 1, 1, 1, 1, 1) == [0, 0, 0, 0.5, 1.0]


@virtually
async def test_the_default_burst_is_what_comes_in_that_time():
    limiter = RateLimiter(3, per=60)
    assert (limiter.burst, limiter.rate, limiter.per) == (3, 3, 60)
    assert await passing(limiter, 1, 1, 1, 1) == [0, 0, 0, 20]
    assert RateLimiter(0.2).burst == RateLimiter(math.inf).burst == RateLimiter(0).burst == 1


@virtually
async def test_a_large_one_is_not_overtaken_by_small_ones():
    assert await passing(RateLimiter(1, burst=4), 3, 4, 1, 1) == [0, 3, 4, 5]


@virtually
async def test_a_late_one_gets_what_has_come_meanwhile():
    limiter = RateLimiter(10, burst=5)
    await limiter.acquire(5)
    await asyncio.sleep(0.3)
    assert limiter.available() == 3
    await asyncio.sleep(100)
    assert limiter.available() == 5


@virtually
async def test_nothing_polls():
    limiter = RateLimiter(1, per=3600, burst=1)
    loop: Any = asyncio.get_running_loop()
    before = loop.steps
    assert await passing(limiter, 1, 1, 1) == [0, 3600, 7200]
    assert loop.steps - before < 40


@virtually
async def test_who_is_cancelled_takes_nothing_and_holds_nobody_up():
    limiter = RateLimiter(1, burst=3)
    await limiter.acquire(3)
    large = asyncio.create_task(limiter.acquire(3))
    small = asyncio.create_task(limiter.acquire(1))
    await asyncio.sleep(0.5)
    large.cancel()
    await small
    assert now() == pytest.approx(1)
    assert large.cancelled()
    assert limiter.statistics().admitted == 4


@virtually
async def test_who_is_cancelled_when_it_was_woken_already_holds_nobody_up():
    limiter = RateLimiter(1, burst=1)
    await limiter.acquire()
    loop = asyncio.get_running_loop()
    first, second = (asyncio.create_task(limiter.acquire()) for _ in range(2))
    loop.call_at(1.0, first.cancel)  # right behind the timer that wakes it
    await second
    assert now() == pytest.approx(1)
    assert first.cancelled()
    assert limiter.statistics().admitted == 2


@virtually
async def test_in_the_middle_too():
    limiter = RateLimiter(1, burst=1)
    tasks = [asyncio.create_task(limiter.acquire()) for _ in range(4)]
    await asyncio.sleep(0.1)
    tasks[2].cancel()
    await asyncio.wait(tasks)
    assert now() == pytest.approx(2)
    assert limiter.statistics().waiting == 0


# -- without waiting --------------------------------------------------------------------------------------------------


@virtually
async def test_as_many_as_may():
    limiter = RateLimiter(10, burst=5)
    assert limiter.try_acquire(3) == 3
    assert limiter.try_acquire(30) == 2
    assert limiter.try_acquire(1) == limiter.available() == 0
    assert limiter.next_in() == pytest.approx(0.1)
    await asyncio.sleep(0.25)
    assert limiter.next_in() == 0
    assert limiter.try_acquire(9) == 2
    assert limiter.try_acquire(0) == 0


@virtually
async def test_nobody_who_waits_is_overtaken():
    limiter = RateLimiter(1, burst=5)
    await limiter.acquire(5)
    waiting = asyncio.create_task(limiter.acquire(4))
    await asyncio.sleep(2)
    assert limiter.try_acquire(1) == limiter.available() == 0
    assert limiter.next_in() == pytest.approx(3)
    await waiting
    await asyncio.sleep(1)
    assert limiter.try_acquire(1) == 1


# -- changes ----------------------------------------------------------------------------------------------------------


@virtually
async def test_a_new_rate_holds_for_those_who_wait():
    limiter = RateLimiter(1, per=3600, burst=1)
    waiting = asyncio.create_task(passing(limiter, 1, 1, 1))
    await asyncio.sleep(10)
    limiter.update(rate=1, per=1)
    assert await waiting == [0, 10 + (1 - 10 / 3600), 11 + (1 - 10 / 3600)]


@virtually
async def test_closed_and_opened():
    limiter = RateLimiter(0, burst=1)
    waiting = asyncio.create_task(passing(limiter, 1, 1))
    await asyncio.sleep(1000)
    assert limiter.next_in() == math.inf
    limiter.update(rate=math.inf)
    assert await waiting == [0, 1000]
    assert limiter.try_acquire(10**9) == 10**9
    await limiter.acquire(10**9)


@virtually
async def test_the_default_burst_follows_the_rate_and_a_given_one_stays():
    limiter = RateLimiter(5)
    limiter.update(rate=10)
    assert limiter.burst == 10
    limiter.update(burst=3)
    limiter.update(rate=100)
    assert limiter.burst == 3
    limiter.update(per=10)
    assert repr(limiter) == "<RateLimiter 100 per 10 s, burst 3>"


@virtually
async def test_who_waits_for_more_than_the_new_burst_is_told_and_the_others_go_on():
    limiter = RateLimiter(1, burst=5)
    await limiter.acquire(5)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(limiter.acquire(1))
        large = group.create_task(_error(limiter.acquire(5)))
        last = group.create_task(limiter.acquire(1))
        await asyncio.sleep(0.5)
        limiter.update(burst=2)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert "'n' to be at most 2, the burst of the limiter, got: 5" in large.result()
        await first
        assert now() == pytest.approx(4)
        await last
        assert now() == pytest.approx(5)


async def _error(awaitable):
    try:
        await awaitable
    except OptionError as error:
        return str(error)


# -- keys -------------------------------------------------------------------------------------------------------------


@virtually
async def test_each_key_has_a_limit_of_its_own():
    limiter = RateLimiter(1, burst=1, key=lambda message: message.key)
    assert limiter.key_of(Message("hello", key="a")) == "a"
    one = asyncio.create_task(passing(limiter, 1, 1, 1, key="a"))
    two = asyncio.create_task(passing(limiter, 1, 1, key="b"))
    assert await one == [0, 1, 2]
    assert await two == [0, 1]
    assert limiter.available("c") == 1
    assert limiter.next_in("a") == pytest.approx(1)
    assert limiter.statistics().keys == 2


@virtually
async def test_a_new_limit_holds_for_each_key():
    limiter = RateLimiter(0, burst=1, key=True)
    waiting = [asyncio.create_task(passing(limiter, 1, 1, key=key)) for key in "ab"]
    await asyncio.sleep(5)
    limiter.update(rate=1)
    assert await waiting[0] == await waiting[1] == [0, 6]


@virtually
async def test_a_key_where_there_are_none_and_none_where_there_are():
    with pytest.raises(OptionError, match=r"RateLimiter\.acquire: expected option 'key' to be left out"):
        await RateLimiter(1).acquire(key="a")
    with pytest.raises(OptionError, match=r"RateLimiter\.try_acquire: expected option 'key' to be given"):
        RateLimiter(1, key=True).try_acquire()
    with pytest.raises(OptionError, match="a function of a message"):
        RateLimiter(1, key=True).key_of(Message(1))
    assert RateLimiter(1).key_of(Message(1)) is None


# -- statistics and options -------------------------------------------------------------------------------------------


@virtually
async def test_what_it_has_done():
    limiter = RateLimiter(1, burst=2)
    waiting = asyncio.create_task(passing(limiter, 1, 1, 1, 1))
    await asyncio.sleep(0.5)
    seen = limiter.statistics()
    assert (seen.admitted, seen.waited, seen.waiting, seen.keys) == (2, 2, 2, 1)
    await waiting
    seen = limiter.statistics()
    assert (seen.admitted, seen.waited, seen.waiting) == (4, 2, 0)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ({"rate": -1}, "rate"),
        ({"rate": math.nan}, "rate"),
        ({"rate": "10"}, "rate"),
        ({"rate": True}, "rate"),
        ({"rate": 1, "per": 0}, "per"),
        ({"rate": 1, "per": math.inf}, "per"),
        ({"rate": 1, "burst": 0}, "burst"),
        ({"rate": 1, "burst": 1.5}, "burst"),
        ({"rate": 1, "key": "user"}, "key"),
    ],
)
def test_an_option_out_of_range(arguments, option):
    with pytest.raises(OptionError) as caught:
        RateLimiter(**arguments)
    assert caught.value.option == option


@virtually
async def test_a_wrong_change_changes_nothing():
    limiter = RateLimiter(1, burst=2)
    with pytest.raises(OptionError):
        limiter.update(rate=5, per=-1)
    assert (limiter.rate, limiter.per, limiter.burst) == (1, 1, 2)


@virtually
async def test_more_than_the_burst_is_refused_at_once():
    limiter = RateLimiter(1, burst=2)
    with pytest.raises(OptionError, match="at most 2, the burst of the limiter, got: 3"):
        await limiter.acquire(3)
    with pytest.raises(OptionError, match="an integer of at least 1"):
        await limiter.acquire(0)


# -- several loops and threads ----------------------------------------------------------------------------------------


def test_threads_share_a_limit():
    limiter = RateLimiter(0, burst=500)
    taken = []

    def take():
        taken.append(sum(limiter.try_acquire(3) for _ in range(200)))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == limiter.statistics().admitted == 500


def test_loops_share_a_limit_and_wake_each_other():
    limiter = RateLimiter(0, burst=1)
    assert limiter.try_acquire() == 1
    passed = []

    def loop_of_its_own():
        async def main():
            await asyncio.gather(*(limiter.acquire() for _ in range(20)))
            passed.append(20)

        asyncio.run(main())

    threads = [threading.Thread(target=loop_of_its_own) for _ in range(3)]
    for thread in threads:
        thread.start()
    while limiter.statistics().waiting < 60:
        pass
    limiter.update(rate=math.inf)
    for thread in threads:
        thread.join(20)
    assert passed == [20, 20, 20]


def test_who_waits_in_a_loop_that_was_closed_holds_nobody_up():
    limiter = RateLimiter(0, burst=1)
    assert limiter.try_acquire() == 1
    lost = limiter.acquire()

    async def begin():
        lost.send(None)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()

    async def main():
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(limiter.acquire())
            await asyncio.sleep(0)
            assert limiter.statistics().waiting == 3
            limiter.update(rate=math.inf)

    asyncio.run(main())
    lost.close()
    assert limiter.statistics().waiting == 0


# -- whatever happens -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_no_window_is_over_the_limit_and_nobody_is_stalled(seed):
    """Clients ask for random numbers, give up at random moments, and the limit is changed now and then."""
    chance = random.Random(seed)
    rate, burst = chance.choice((0.5, 3, 50, 1000)), chance.choice((1, 2, 10))
    used, most_rate, order, ended = [], [rate], [], []

    async def client(limiter, number):
        await asyncio.sleep(chance.random() * 3)
        n = chance.randint(1, burst)
        order.append(number)
        try:
            async with asyncio.timeout(chance.choice((0, 0.01, 1, 5, None, None))):
                await limiter.acquire(n)
                used.append((now(), n, number))
        except TimeoutError:
            order.remove(number)

    async def main():
        limiter = RateLimiter(rate, burst=burst)
        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(client(limiter, number))
            for _ in range(chance.choice((0, 0, 3))):
                await asyncio.sleep(chance.random())
                most_rate.append(chance.choice((0.5, 10, 200)))
                limiter.update(rate=most_rate[-1])
        ended.append(limiter.statistics())

    run(main(), seed=seed)
    assert [number for *_, number in used] == order, "in the order in which they asked"
    assert ended[0].admitted == sum(n for _, n, _ in used)
    assert ended[0].waiting == 0
    for first, (begin, _, _) in enumerate(used):
        for last in range(first, len(used)):
            total = sum(n for _, n, _ in used[first : last + 1])
            assert total <= (burst + max(most_rate) * (used[last][0] - begin)) * (1 + 1e-6)


def test_a_rate_of_nothing_lets_nothing_pass_until_it_is_changed():
    limiter = RateLimiter(0)
    assert limiter.try_acquire(5) == 0
    assert limiter.next_in() == math.inf
    limiter.update(rate=3)
    assert limiter.burst == 3
    assert limiter.next_in() < math.inf
