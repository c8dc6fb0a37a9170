# mypy: disable-error-code="union-attr,misc,arg-type,index,operator,var-annotated"
"""`MemoryQueue`: what goes in, bounds, threads, delays, order, dead letters. What every source does is in the kit."""

import asyncio
import threading

import pytest

from headgate import testing
from headgate.connectors.memory import MemoryQueue
from headgate.errors import OptionError, QueueClosedError, QueueFullError


def data(messages):
    return [message.data for message in messages]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("size", 0),
        ("size", True),
        ("ordered", 1),
        ("key", "team"),
        ("max_deliveries", 0),
        ("letters_size", -1),
        ("clock", 5),
        ("name", None),
    ],
)
def test_a_wrong_option_is_refused(option, value):
    with pytest.raises(OptionError, match=rf"MemoryQueue: expected option '{option}'"):
        MemoryQueue(**{option: value})


@pytest.mark.parametrize(("option", "value"), [("priority", 1.5), ("delay", -1), ("delay", float("nan"))])
def test_a_wrong_option_of_put_is_refused(option, value):
    queue = MemoryQueue()
    with pytest.raises(OptionError, match=f"put: expected option '{option}'"):
        queue.put(1, **{option: value})
    assert queue.statistics()["put"] == 0


def test_a_key_that_cannot_be_one_is_refused_and_nothing_is_put():
    queue = MemoryQueue(ordered=True)
    with pytest.raises(TypeError):
        queue.put(1, key=[])
    queue.close_input()
    assert queue.fetch(10) is None


# -- putting and fetching ---------------------------------------------------------------------------------------------


def test_what_was_put_first_comes_first():
    queue = MemoryQueue([1, 2])
    queue.put(3)
    queue.put_many([4, 5])
    queue.put(None)
    assert data(queue.fetch(4)) == [1, 2, 3, 4]
    assert data(queue.fetch(4)) == [5, None]
    assert queue.fetch(4) == []


def test_more_than_a_chunk_comes_in_order_however_it_is_put_and_fetched():
    queue = MemoryQueue(range(2500))
    for number in range(2500, 4700):
        queue.put(number)
    queue.put_many(range(4700, 7000))
    got = []
    for size in (1, 999, 1, 1000, 1001, 3, 2500, 7000):
        got += data(queue.fetch(size))
        queue.put(7000 + size)
    got += data(queue.fetch(10_000))
    assert got[:7000] == list(range(7000))
    assert got[7000:] == [7000 + size for size in (1, 999, 1, 1000, 1001, 3, 2500, 7000)]


def test_metadata_and_key_go_along_and_a_message_may_change_its_own():
    queue = MemoryQueue()
    queue.put("a", key="k", metadata={"from": "here"})
    [message] = queue.fetch(1)
    assert (message.data, message.key, message.metadata) == ("a", "k", {"from": "here"})
    message.metadata["more"] = 1
    queue.nack([message])
    [again] = queue.fetch(1)
    assert again.metadata == {"from": "here"}
    assert again is not message


def test_higher_priorities_come_first_and_lower_ones_last():
    queue = MemoryQueue()
    for number, priority in enumerate([0, -1, 5, 0, 5]):
        queue.put(number, priority=priority)
    assert data(queue.fetch(3)) == [2, 4, 0]
    queue.put("urgent", priority=1)
    assert data(queue.fetch(3)) == ["urgent", 3, 1]
    queue.put_many("ab")  # the fast way again
    assert data(queue.fetch(3)) == ["a", "b"]


def test_what_comes_back_comes_before_newer_ones_in_order():
    queue = MemoryQueue(range(6))
    messages = queue.fetch(4)
    queue.nack(messages[1:3])
    assert data(queue.fetch(10)) == [1, 2, 4, 5]


def test_the_end():
    queue = MemoryQueue([1])
    queue.close_input()
    messages = queue.fetch(5)
    assert queue.fetch(5) is None
    queue.nack(messages)
    assert data(queue.fetch(5)) == [1]
    with pytest.raises(QueueClosedError, match="MemoryQueue"):
        queue.put(2)
    with pytest.raises(QueueClosedError):
        queue.put_many([2])


def test_an_entry_of_ours_may_be_a_payload():
    queue = MemoryQueue()
    queue.put("x", key="k")
    [message] = queue.fetch(1)
    entry = queue._lines.under_way[message]
    queue.put(entry)
    [other] = queue.fetch(1)
    assert other.data is entry


def test_what_is_not_under_way_is_lost_and_changes_nothing():
    queue = MemoryQueue([1, 2, 3])
    first, second, third = queue.fetch(3)
    assert queue.ack([first]) is None
    assert queue.ack([first, second]) == [first]
    assert queue.nack([first]) == [first]
    assert queue.dead_letter([first]) == [first]
    assert queue.discard([third]) is None
    counts = queue.statistics()
    assert (counts["acknowledged"], counts["failed"], counts["under_way"], counts["waiting"]) == (2, 1, 0, 0)


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_a_full_queue_takes_all_or_nothing():
    queue = MemoryQueue([1], size=3, name="orders")
    with pytest.raises(QueueFullError, match=r"'orders'.*room for 3 more, it holds at most 3") as caught:
        queue.put_many([2, 3, 4])
    assert (caught.value.size, caught.value.refused) == (3, 3)
    queue.put_many([2, 3])
    with pytest.raises(QueueFullError):
        queue.put(4)
    queue.fetch(1)
    queue.put(4)
    assert data(queue.fetch(9)) == [2, 3, 4]


def test_what_comes_back_is_taken_even_if_there_is_no_room():
    queue = MemoryQueue([1], size=1)
    messages = queue.fetch(1)
    queue.put(2)
    queue.nack(messages)
    assert queue.statistics()["waiting"] == 2
    with pytest.raises(QueueFullError):
        queue.put(3)
    assert data(queue.fetch(5)) == [1, 2]


def test_aput_waits_for_room_and_who_waits_first_is_served_first():
    async def main():
        queue = MemoryQueue([0], size=1)
        puts = []
        for number in (1, 2, 3):
            puts.append(asyncio.create_task(queue.aput(number)))
            await asyncio.sleep(1)
        assert not any(put.done() for put in puts)
        got = data(queue.fetch(5))
        with pytest.raises(QueueFullError):
            queue.put("pushes in")
        while len(got) < 4:
            await asyncio.sleep(1)
            got += data(queue.fetch(5))
        await asyncio.gather(*puts)
        assert got == [0, 1, 2, 3]
        assert queue.fetch(1) == []

    for seed in range(20):
        testing.run(main(), seed=seed)


def test_an_aput_that_is_cancelled_puts_nothing_and_leaves_its_place_to_the_next():
    async def main(moment):
        queue = MemoryQueue([0], size=1)
        first, second = (asyncio.create_task(queue.aput(number)) for number in (1, 2))
        await asyncio.sleep(1)
        if moment == "granted":
            queue.fetch(1)  # it may put now, and has not run yet
            first.cancel()
        else:
            first.cancel()
            await asyncio.sleep(1)
            queue.fetch(1)
        await asyncio.gather(first, second, return_exceptions=True)
        assert data(queue.fetch(5)) == [2]
        assert queue.statistics()["put"] == 2
        queue.put(3)  # no place is left behind
        assert first.cancelled()

    for moment in ("waiting", "granted"):
        for seed in range(10):
            testing.run(main(moment), seed=seed)


def test_whoever_waits_for_room_is_told_when_the_input_is_closed():
    async def main():
        queue = MemoryQueue([0], size=1)
        put = asyncio.create_task(queue.aput(1))
        await asyncio.sleep(1)
        queue.close_input()
        with pytest.raises(QueueClosedError):
            await put
        assert data(queue.fetch(5)) == [0]
        assert queue.fetch(5) is None

    testing.run(main())


# -- threads ----------------------------------------------------------------------------------------------------------


def test_threads_may_put_while_it_is_read():
    queue = MemoryQueue(size=100)
    woken = threading.Semaphore(0)
    queue.wake = woken.release

    def put(numbers):
        for number in numbers:
            while True:
                try:
                    queue.put(number)
                    break
                except QueueFullError:
                    threading.Event().wait(0.0005)

    threads = [threading.Thread(target=put, args=(range(start, 3000, 3),)) for start in range(3)]
    for thread in threads:
        thread.start()
    got = []
    while len(got) < 3000:
        assert woken.acquire(timeout=10)
        messages = queue.fetch(1000)
        queue.ack(messages)
        got += data(messages)
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(3000))
    assert all([n for n in got if n % 3 == start] == list(range(start, 3000, 3)) for start in range(3))


# -- delays -----------------------------------------------------------------------------------------------------------


def test_delays_by_a_clock_of_ones_own():
    clock = Clock()
    queue = MemoryQueue(clock=clock)
    queue.put("late", delay=5)
    queue.put("now")
    assert data(queue.fetch(5)) == ["now"]
    assert queue.fetch(5) == []
    assert queue.statistics()["delayed"] == 1
    clock.now = 5
    assert data(queue.fetch(5)) == ["late"]


def test_a_closed_queue_is_not_at_its_end_while_something_is_delayed():
    clock = Clock()
    queue = MemoryQueue(clock=clock)
    queue.put("late", delay=5)
    queue.close_input()
    assert queue.fetch(5) == []
    clock.now = 5
    assert data(queue.fetch(5)) == ["late"]
    assert queue.fetch(5) is None


def test_it_wakes_whoever_reads_when_a_delay_is_over():
    async def main():
        loop = asyncio.get_running_loop()
        queue = MemoryQueue()
        woken = []
        queue.wake = lambda: woken.append(loop.time())
        queue.open()
        queue.put("second", delay=20)
        queue.put("first", delay=10)
        del woken[:]
        assert queue.fetch(5) == []
        await asyncio.sleep(10.5)
        assert woken == [10]
        assert data(queue.fetch(1)) == ["first"]
        assert queue.fetch(1) == []
        await asyncio.sleep(10.5)
        assert woken == [10, 20]
        queue.close()

    testing.run(main(), tick=0)


def test_a_delay_that_began_before_it_was_opened_goes_on():
    queue = MemoryQueue()
    queue.put("late", delay=1000)

    async def main():
        queue.open()
        assert queue.fetch(1) == []
        await asyncio.sleep(990)
        assert queue.fetch(1) == []
        await asyncio.sleep(11)
        assert data(queue.fetch(1)) == ["late"]
        queue.close()

    testing.run(main(), tick=0)


def test_closing_it_leaves_no_alarm_behind():
    async def main():
        queue = MemoryQueue()
        queue.open()
        queue.put("late", delay=10)
        queue.fetch(1)
        queue.close()
        queue.wake = lambda: pytest.fail("woken")
        await asyncio.sleep(20)

    testing.run(main())


# -- order ------------------------------------------------------------------------------------------------------------


def test_keys_take_turns_and_each_keeps_its_order():
    queue = MemoryQueue(ordered=True, key=lambda text: text[0])
    queue.put_many(["a1", "a2", "a3", "b1", "c1", "b2"])
    first = queue.fetch(10)
    assert data(first) == ["a1", "b1", "c1"]
    assert queue.fetch(10) == []
    queue.ack([first[1]])
    assert data(queue.fetch(10)) == ["b2"]
    queue.nack([first[0]])
    [again] = queue.fetch(10)
    assert again.data == "a1"
    assert again.deliveries == 2
    queue.discard([again])
    [second] = queue.fetch(10)
    assert second.data == "a2"
    queue.dead_letter([second])
    assert data(queue.fetch(10)) == ["a3"]


def test_a_delayed_one_holds_up_its_key_and_no_other():
    clock = Clock()
    queue = MemoryQueue(ordered=True, clock=clock)
    queue.put("a1", key="a", delay=5)
    queue.put("a2", key="a")
    queue.put("b1", key="b")
    queue.put("free")
    assert data(queue.fetch(10)) == ["b1", "free"]
    clock.now = 5
    [first] = queue.fetch(10)
    assert first.data == "a1"
    queue.ack([first])
    assert data(queue.fetch(10)) == ["a2"]


def test_without_key_there_is_no_order():
    queue = MemoryQueue([1, 2, 3], ordered=True)
    assert data(queue.fetch(3)) == [1, 2, 3]


def test_a_key_that_is_through_is_forgotten():
    queue = MemoryQueue(ordered=True)
    for number in range(100):
        queue.put(number, key=number)
    queue.ack(queue.fetch(100))
    assert not queue._lines._held


# -- dead letters -----------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_and_sent_back():
    queue = MemoryQueue()
    queue.put("a", key="k", metadata={"n": 1}, priority=2)
    [message] = queue.fetch(1)
    message.put_data("changed").fail(ValueError("bad"))
    queue.dead_letter([message])
    [letter] = queue.dead_letters
    assert (letter.data, letter.key, letter.metadata, letter.priority, letter.deliveries) == ("a", "k", {"n": 1}, 2, 1)
    assert isinstance(letter.reason, ValueError)
    assert "ValueError: bad" in letter.traceback
    assert queue.send_back() == 1
    assert queue.dead_letters == []
    [again] = queue.fetch(1)
    assert (again.data, again.key, again.metadata, again.deliveries) == ("a", "k", {"n": 1}, 1)


def test_some_letters_are_sent_back_once():
    queue = MemoryQueue([1, 2, 3], size=3)
    messages = queue.fetch(3)
    queue.dead_letter([message.fail("no") for message in messages])
    first, second, _ = queue.dead_letters
    queue.put_many("abc")
    assert queue.send_back([second]) == 1  # full or not
    assert queue.send_back([second]) == 0
    assert queue.send_back([first, first]) == 1
    assert data(queue.fetch(9)) == ["a", "b", "c", 2, 1]


def test_of_too_many_letters_the_oldest_are_dropped_and_counted():
    queue = MemoryQueue(range(5), letters_size=2)
    queue.dead_letter([message.fail("no") for message in queue.fetch(5)])
    assert [letter.data for letter in queue.dead_letters] == [3, 4]
    assert queue.statistics()["dropped"] == 3


def test_who_was_handed_out_too_often_is_a_dead_letter():
    queue = MemoryQueue(["a"], max_deliveries=2)
    queue.nack(queue.fetch(1), counted=False)
    queue.nack(queue.fetch(1))
    [message] = queue.fetch(1)
    assert message.deliveries == 2
    queue.nack([message])
    assert queue.fetch(1) == []
    [letter] = queue.dead_letters
    assert letter.reason == "it was handed out 2 times"
    assert letter.deliveries == 2


def test_opened_again_it_has_what_was_under_way_in_order():
    queue = MemoryQueue(range(5))
    queue.open()
    messages = queue.fetch(3)
    queue.drain()
    assert queue.fetch(3) == []
    queue.close()
    queue.open()
    assert data(queue.fetch(5)) == [0, 1, 2, 3, 4]
    assert queue.ack(messages) == messages, "they are others by now"


def test_statistics_add_up():
    queue = MemoryQueue(range(10))
    queue.put("late", delay=1000)
    messages = queue.fetch(8)
    queue.ack(messages[:3])
    queue.discard(messages[3:4])
    queue.dead_letter([message.fail("no") for message in messages[4:6]])
    queue.nack(messages[6:7])
    assert queue.statistics() == {
        "waiting": 4,
        "delayed": 1,
        "under_way": 1,
        "letters": 2,
        "put": 11,
        "acknowledged": 3,
        "failed": 1,
        "dead_lettered": 2,
        "requeued": 1,
        "dropped": 0,
    }
