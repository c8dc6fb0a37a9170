"""The rules that a source keeps, one function each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from headgate.testing.source_kit.driver import Driver
from headgate.testing.source_kit.subject import Subject
from headgate.types import Message

Condition = Callable[[Subject], str | None]
Rule = Callable[[Subject], Awaitable[None]]

SCRIPT: Final = "script"
"""The name of what is checked by random scripts."""
RULES: Final[dict[str, tuple[Rule, Condition]]] = {}
"""For each rule what checks it, and a function that tells why it cannot be checked (or None)."""


def _always(subject: Subject) -> str | None:  # noqa: ARG001 (a condition's form)
    return None


def _promised(attribute: str) -> Condition:
    return lambda subject: None if getattr(subject.probe, attribute) else f"{attribute} is not set"


def _given(option: str) -> Condition:
    return lambda subject: None if getattr(subject, option) is not None else f"{option}= was not given"


def _finite(subject: Subject) -> str | None:
    return None if subject.put is None or subject.finish is not None else "finish= was not given"


def _both(*conditions: Condition) -> Condition:
    return lambda subject: next((why for condition in conditions if (why := condition(subject)) is not None), None)


def _rule(name: str, condition: Condition = _always) -> Callable[[Rule], Rule]:
    """Add a rule to the list."""

    def add(check: Rule) -> Rule:
        RULES[name] = (check, condition)
        return check

    return add


def _deliveries(driver: Driver, messages: list[Message], expected: int) -> None:
    """Check how often messages say that they were handed out."""
    for message in messages:
        text = f"message {driver.number(message)} has deliveries={message.deliveries}, expected {expected}"
        driver.check(message.deliveries == expected, text)


# -- fetch ------------------------------------------------------------------------------------------------------------


@_rule("fetch-all")
async def fetch_all(subject: Subject) -> None:
    """Everything that is there is handed out once, however many are asked for at a time."""
    for size in (1, 3, 10, 1000):
        driver = await subject.opened(10)
        messages = await driver.expect(10, size=size)
        numbers = sorted(driver.number(each) for each in messages)
        driver.check(numbers == list(range(10)), f"expected the messages 0 to 9, there came {numbers}")
        _deliveries(driver, messages, 1)
        await driver.ack(messages)
        await driver.nothing(subject.watch, "there came more than was put")
        await driver.close()


@_rule("fetch-count")
async def fetch_count(subject: Subject) -> None:
    """Never more than was asked for."""
    driver = await subject.opened(10)
    for count in (1, 2, 3):
        got = await driver.fetch(count, subject.patience)  # the driver checks it
        await driver.ack(got or [])
    await driver.close()


@_rule("fetch-once")
async def fetch_once(subject: Subject) -> None:
    """What is under way is not handed out again."""
    driver = await subject.opened(5)
    messages = await driver.expect(5)
    await driver.nothing(subject.watch, "what is under way was handed out a second time")
    await driver.ack(messages)
    await driver.close()


@_rule("fetch-empty", _given("put"))
async def fetch_empty(subject: Subject) -> None:
    """An empty queue is no end."""
    driver = await subject.opened(0)
    got = await driver.fetch(5)
    driver.check(got == [], f"expected an empty list, fetch returned {got!r}")
    await driver.close()


@_rule("fetch-wakes", _given("put"))
async def fetch_wakes(subject: Subject) -> None:
    """After there was nothing, what is put is fetched: by `wake`, by ``poll`` or by a fetch that waits."""
    driver = await subject.opened(0)
    for number in range(3):
        await driver.nothing(0.0, "there came something that nobody has put")
        coming = driver.loop.create_task(driver.expect(1))
        await asyncio.sleep(subject.quiet / 10)  # it has found nothing by now, and rests
        await subject.add(driver, subject.payloads([number]))
        await driver.ack(await coming)
    await driver.close()


@_rule("fetch-recovers", _given("fail"))
async def fetch_recovers(subject: Subject) -> None:
    """A fetch that fails loses nothing."""
    driver = await subject.opened(5)
    await driver.ack(await driver.expect(2))
    await subject.extern(driver, subject.fail)
    try:
        early = await driver.fetch(3)
    except Exception:  # noqa: BLE001 (that is what was asked for)
        early = []
    messages = [*(early or []), *await driver.expect(3 - len(early or []))]
    numbers = sorted(driver.number(each) for each in messages)
    driver.check(len(set(numbers)) == len(numbers), f"after a failure there came {numbers}")
    await driver.ack(messages)
    await driver.close()


@_rule("fetch-end", _finite)
async def fetch_end(subject: Subject) -> None:
    """At the end fetch returns None; what is settled after that is settled."""
    driver = await subject.opened(5)
    messages = await driver.expect(4)
    if subject.finish is not None:
        await subject.extern(driver, subject.finish)
    driver.check(not driver.ended, "fetch has returned None while there was something")
    last = await driver.expect(1)
    await driver.ack(messages)
    await driver.ack(last)
    await driver.nothing(subject.patience / 10, "there came something after the end")
    driver.check(driver.ended, "everything is handed out and settled, and fetch does not return None")
    await driver.close()


# -- outcomes ---------------------------------------------------------------------------------------------------------


@_rule("ack-forgets")
async def ack_forgets(subject: Subject) -> None:
    """What was acknowledged is never handed out again."""
    driver = await subject.opened(5)
    lost = await driver.ack(await driver.expect(5))
    driver.check(not lost, "ack says that it could not acknowledge what was just fetched")
    await driver.nothing(subject.watch, "what was acknowledged came again")
    driver = await subject.reopened(driver)
    await driver.nothing(subject.watch, "what was acknowledged came again after it was opened again")
    await driver.close()


@_rule("discard-forgets")
async def discard_forgets(subject: Subject) -> None:
    """What was given up is never handed out again."""
    driver = await subject.opened(5)
    messages = await driver.expect(5)
    await driver.discard(messages[:2])
    await driver.ack(messages[2:])
    await driver.nothing(subject.watch, "what was given up came again")
    driver = await subject.reopened(driver)
    await driver.nothing(subject.watch, "what was given up came again after it was opened again")
    await driver.close()


@_rule("nack-returns", _promised("redelivers"))
async def nack_returns(subject: Subject) -> None:
    """What is given back is handed out again, once, and before long."""
    driver = await subject.opened(5)
    messages = await driver.expect(5)
    numbers = sorted(driver.number(each) for each in messages[1:3])
    await driver.nack(messages[1:3])
    again = await driver.expect(2)
    came = sorted(driver.number(each) for each in again)
    driver.check(came == numbers, f"{numbers} were given back, {came} came")
    await driver.nothing(subject.watch, "what was given back once came twice")
    await driver.ack([messages[0], *messages[3:], *again])
    await driver.close()


@_rule("nack-original", _promised("redelivers"))
async def nack_original(subject: Subject) -> None:
    """What is handed out again is what it was, whatever a handler has put into the message."""
    driver = await subject.opened(1)
    first = (await driver.expect(1))[0]
    payload, key = first.data, first.key
    await driver.nack([first])  # the driver changes both
    again = (await driver.expect(1))[0]
    driver.check(again.data == payload, f"the payload was {payload!r}, and is {again.data!r} when it comes again")
    driver.check(again.key == key, f"the key was {key!r}, and is {again.key!r} when it comes again")
    await driver.ack([again])
    await driver.close()


@_rule("nack-counts", _promised("redelivers"))
async def nack_counts(subject: Subject) -> None:
    """Deliveries are counted, but those that nobody has tried to handle."""
    driver = await subject.opened(1)
    most = subject.probe.max_deliveries or 3
    expected = 1
    for counted in (False, True, False, True):
        messages = await driver.expect(1)
        _deliveries(driver, messages, expected)
        if counted and expected == most:
            break
        expected += counted
        await driver.nack(messages, counted=counted)
    else:
        messages = await driver.expect(1)
        _deliveries(driver, messages, expected)
    await driver.ack(messages)
    await driver.close()


@_rule("nack-delay", _promised("redelivers"))
async def nack_delay(subject: Subject) -> None:
    """What is given back for a while comes after that, by itself, and not before."""
    driver = await subject.opened(2)
    first, second = await driver.expect(2)
    begun = driver.loop.time()
    await driver.nack([first], delay=subject.delay)
    early = min(subject.watch, subject.delay / 4)
    await driver.nothing(early, f"given back for {subject.delay:g} s, it came at once")
    if subject.sleep is not None:
        await subject.pass_time(subject.delay)
    again = await driver.expect(1, subject.delay + subject.patience)
    driver.check(driver.number(again[0]) == driver.number(first), "another message came")
    passed = driver.loop.time() - begun
    if subject.sleep is None:
        early = subject.delay * 0.99
        driver.check(passed >= early, f"given back for {subject.delay:g} s, it came after {passed:g} s")
    await driver.ack([second, *again])
    await driver.close()


@_rule("nack-after-end", _both(_promised("redelivers"), _finite))
async def nack_after_end(subject: Subject) -> None:
    """What is given back after fetch has returned None is handed out again."""
    driver = await subject.opened(2)
    messages = await driver.expect(2)
    if subject.finish is not None:
        await subject.extern(driver, subject.finish)
    await driver.nothing(subject.watch, "there came something after the end")
    await driver.nack(messages)
    await driver.ack(await driver.expect(2))
    await driver.close()


@_rule("max-deliveries", _both(_promised("redelivers"), _promised("max_deliveries")))
async def max_deliveries(subject: Subject) -> None:
    """A message is handed out no more often than that."""
    driver = await subject.opened(1)
    for number in range(1, (subject.probe.max_deliveries or 0) + 1):
        messages = await driver.expect(1)
        _deliveries(driver, messages, number)
        await driver.nack(messages)
    await driver.nothing(subject.watch, "it was handed out once too often")
    if subject.letters is not None:
        kept = list(await subject.extern(driver, subject.letters))
        driver.check(kept == [0], f"the dead letters are {kept}, expected [0]")
    await driver.close()


@_rule("letter-kept", _promised("keeps_letters"))
async def letter_kept(subject: Subject) -> None:
    """A dead letter is kept, and not handed out."""
    driver = await subject.opened(4)
    messages = await driver.expect(4)
    numbers = sorted(driver.number(each) for each in messages[:2])
    await driver.dead_letter(messages[:2])
    await driver.ack(messages[2:])
    await driver.nothing(subject.watch, "a dead letter was handed out")
    if subject.letters is not None:
        kept = sorted(await subject.extern(driver, subject.letters))
        driver.check(kept == numbers, f"the dead letters are {kept}, expected {numbers}")
    await driver.close()


@_rule("options")
async def options(subject: Subject) -> None:
    """An option of a message that the source does not have is refused."""
    driver = await subject.opened(1)
    messages = await driver.expect(1)
    try:
        driver.source.configure(messages[0], {"no_such_option": 1})
    except TypeError:
        await driver.ack(messages)
        await driver.close()
        return
    raise driver.broken("configure took the option 'no_such_option'; expected a TypeError")


# -- order ------------------------------------------------------------------------------------------------------------


@_rule("order", _promised("ordered"))
async def order(subject: Subject) -> None:
    """Messages of one key come in order, and none of them while an earlier one is under way."""
    driver = await subject.opened(9, keys=3)
    for number in range(3):
        messages = await driver.expect(3)
        numbers = sorted(driver.number(each) for each in messages)
        expected = [3 * number, 3 * number + 1, 3 * number + 2]
        driver.check(numbers == expected, f"expected the next of each key, {expected}, there came {numbers}")
        await driver.nothing(subject.watch, "it came while an earlier one of its key was under way")
        await driver.ack(messages)
    await driver.close()


@_rule("order-nack", _both(_promised("ordered"), _promised("redelivers")))
async def order_nack(subject: Subject) -> None:
    """What is given back comes before the later ones of its key, delayed or not; other keys go on."""
    for delay in (0.0, subject.delay):
        driver = await subject.opened(4, keys=2)
        first, other = sorted(await driver.expect(2), key=driver.number)
        await driver.nack([first], delay=delay)
        await driver.ack([other])
        got = [driver.number(each) for each in await driver.gather(2, subject.watch if not delay else delay / 4)]
        expected = [3] if delay else [0, 3]
        driver.check(sorted(got) == expected, f"0 of 0, 2 was given back, 1 of 1, 3 acknowledged: {got} came")
        await driver.close()


# -- leases -----------------------------------------------------------------------------------------------------------


@_rule("lease-expires", _promised("lease"))
async def lease_expires(subject: Subject) -> None:
    """After its lease a message is handed out again, and whoever had it before cannot acknowledge it."""
    lease = subject.probe.lease or 0.0
    driver = await subject.opened(2)
    messages = await driver.expect(2)
    await subject.pass_time(lease * 1.1)
    again = await driver.expect(2, lease + subject.patience)
    _deliveries(driver, again, 2)
    lost = await driver.ack(messages)
    driver.check(len(lost) == len(messages), f"the leases of 2 messages were over, ack returned {len(lost)} of them")
    lost = await driver.ack(again)
    driver.check(not lost, "what was handed out again could not be acknowledged")
    await driver.nothing(lease / 4, "what was acknowledged came again")
    await driver.close()


@_rule("lease-extended", _promised("lease"))
async def lease_extended(subject: Subject) -> None:
    """A lease that is extended is not over."""
    lease = subject.probe.lease or 0.0
    driver = await subject.opened(2)
    kept, left = await driver.expect(2)
    for _ in range(3):
        await subject.pass_time(lease * 0.6)
        driver.calls.append(f"extend [{driver.number(kept)}]")
        lost = await driver.call("extend", [kept], lease)
        driver.check(not lost, "extend says that a lease is over that is not")
    again = await driver.expect(1, subject.patience)
    driver.check(driver.number(again[0]) == driver.number(left), "it was handed out although its lease was extended")
    lost = await driver.ack([kept, *again])
    driver.check(not lost, "what was extended could not be acknowledged")
    await driver.close()


# -- its life ---------------------------------------------------------------------------------------------------------


@_rule("drain")
async def drain(subject: Subject) -> None:
    """After drain a fetch that waits returns; what is under way is settled as before."""
    driver = await subject.opened(3)
    messages = await driver.expect(3)
    await driver.fetch(1)  # of a source that waits, it waits
    late = await driver.drain()
    driver.check(not late, "drain made a fetch return what is under way")
    lost = await driver.ack(messages)
    driver.check(not lost, "after drain it could not be acknowledged")
    await driver.close()
    driver = await subject.opened(1)  # and without any fetch
    await driver.close()


@_rule("reopen", _promised("redelivers"))
async def reopen(subject: Subject) -> None:
    """Opened again, it hands out what was under way, and what it still had."""
    driver = await subject.opened(6)
    messages = await driver.expect(4)
    settled = driver.number(messages[0])
    await driver.ack(messages[:1])
    driver = await subject.reopened(driver)
    if subject.probe.lease is not None:
        await subject.pass_time(subject.probe.lease * 1.1)
    again = await driver.expect(5)
    numbers = sorted(driver.number(each) for each in again)
    expected = sorted(set(range(6)) - {settled})
    driver.check(numbers == expected, f"expected {expected}, there came {numbers}")
    await driver.ack(again)
    await driver.nothing(subject.watch, "it was handed out once too often")
    await driver.close()


@_rule("rivals", _given("peer"))
async def rivals(subject: Subject) -> None:
    """Of two sources on one queue each message goes to one."""
    driver = await subject.opened(20)
    other = subject.drive(await subject.extern(driver, subject.peer))
    await other.open()
    held: dict[int, Driver] = {}
    taken: list[tuple[Driver, list[Message]]] = []
    until = driver.loop.time() + subject.patience
    while len(held) < 20 and driver.loop.time() < until:  # noqa: PLR2004 (all)
        for each in (driver, other):
            messages = await each.gather(3, subject.watch / 10)
            for message in messages:
                number = each.number(message)
                each.check(number not in held, f"message {number} went to both, or twice")
                held[number] = each
            taken.append((each, messages))
    driver.check(len(held) == 20, f"20 messages were put, {sorted(held)} came")  # noqa: PLR2004 (all)
    for each, messages in taken:
        lost = await each.ack(messages)
        each.check(not lost, "it could not be acknowledged by whom it was handed to")
    await driver.nothing(subject.watch, "what was acknowledged came again")
    await other.close()
    await driver.close()
