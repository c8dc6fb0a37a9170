"""Random scripts: a source is called this way and that, and does what an obvious model says."""

# ruff: noqa: S311 (chance for tests)
from __future__ import annotations

from random import Random

from headgate.testing.source_kit.driver import Driver
from headgate.testing.source_kit.subject import Subject
from headgate.types import Message

STEPS = 40
"""Calls of one seed."""
_KEYS = 4


class _Model:
    """What is where, by the numbers of the messages."""

    def __init__(self, count: int, *, ordered: bool) -> None:
        self.ordered = ordered
        self.put = count
        self.waiting = set(range(count))
        self.until: dict[int, float] = {}  # of those that wait, some for a while
        self.under_way: dict[int, Message] = {}
        self.ended: set[int] = set()
        self.letters: set[int] = set()
        self.deliveries = dict.fromkeys(range(count), 0)  # that counted
        self.exact = True

    def refusal(self, number: int, now: float) -> str | None:
        """Say why a message must not be handed out now."""
        if number in self.ended:
            return "it has ended already"
        if number in self.under_way:
            return "it is under way already"
        if number not in self.waiting:
            return "nobody has put it"
        if self.until.get(number, 0.0) > now:
            return f"it was given back for {self.until[number] - now:g} s longer"
        if self.ordered:
            earlier = [n for n in (*self.waiting, *self.under_way) if n < number and n % _KEYS == number % _KEYS]
            if earlier:
                return f"{min(earlier)}, an earlier one of its key, has not ended"
        return None


class _Script:
    """One seed."""

    def __init__(self, subject: Subject, driver: Driver, count: int, rng: Random) -> None:
        self.subject = subject
        self.driver = driver
        self.rng = rng
        self.model = _Model(count, ordered=subject.probe.ordered and "order" not in subject.skip)
        self.counts = "nack-counts" not in subject.skip

    async def run(self) -> None:
        """Make random calls, then let everything end."""
        steps = [*[self.fetch] * 4, *[self.ack] * 3, self.nack, self.nack, self.discard]
        if self.subject.put is not None:
            steps += [self.put, self.put]
        if self.subject.probe.keeps_letters:
            steps.append(self.letter)
        if self.reopens:
            steps.append(self.reopen)
        for _ in range(STEPS):
            await self.rng.choice(steps)()
        await self.finish()

    @property
    def reopens(self) -> bool:
        """Whether it is known what comes after it was opened again."""
        probe = self.subject.probe
        plain = probe.lease is None and probe.max_deliveries is None
        return probe.redelivers and plain and "reopen" not in self.subject.skip

    def took(self, messages: list[Message]) -> None:
        """Compare what was handed out."""
        model, driver = self.model, self.driver
        now = driver.loop.time()
        for message in messages:
            number = driver.number(message)
            why = model.refusal(number, now)
            driver.check(why is None, f"message {number} was handed out: {why}")
            model.waiting.discard(number)
            model.until.pop(number, None)
            model.under_way[number] = message
            model.deliveries[number] += 1
            if self.counts and model.exact:
                expected = model.deliveries[number]
                text = f"message {number} has deliveries={message.deliveries}, expected {expected}"
                driver.check(message.deliveries == expected, text)

    async def fetch(self) -> None:
        self.took(await self.driver.fetch(self.rng.choice((1, 2, 5, 50)), self.subject.watch / 10) or [])

    async def put(self) -> None:
        model = self.model
        numbers = range(model.put, model.put + self.rng.randint(1, 6))
        model.put = numbers.stop
        model.waiting.update(numbers)
        model.deliveries.update(dict.fromkeys(numbers, 0))
        await self.subject.add(self.driver, self.subject.payloads(numbers, _KEYS))

    def some(self, most: int = 100) -> list[Message]:
        """Take a few of those that are under way."""
        under_way = self.model.under_way
        numbers = self.rng.sample(sorted(under_way), self.rng.randint(0, min(most, len(under_way))))
        chosen = set(numbers)
        return [under_way.pop(number) for number in list(under_way) if number in chosen]

    async def end(self, method: str, messages: list[Message]) -> None:
        """Settle messages that do not come again."""
        if messages:
            lost = await getattr(self.driver, method)(messages)
            self.driver.check(not lost, f"{method} says that it did not know what was under way")
            self.model.ended.update(self.driver.number(each) for each in messages)

    async def ack(self) -> None:
        await self.end("ack", self.some())

    async def discard(self) -> None:
        await self.end("discard", self.some(1))

    async def letter(self) -> None:
        messages = self.some()
        self.model.letters.update(self.driver.number(each) for each in messages)
        await self.end("dead_letter", messages)

    async def nack(self) -> None:
        messages = self.some()
        model, most = self.model, self.subject.probe.max_deliveries
        if not self.subject.probe.redelivers:
            await self.end("ack", messages)
            return
        counted = self.rng.random() < 0.7  # noqa: PLR2004 (mostly)
        delay = self.subject.delay * self.rng.choice((0.0, 0.0, 0.3, 1.0))
        if "nack-delay" in self.subject.skip or self.subject.sleep is not None:
            delay = 0.0
        if most is not None:
            spent = [each for each in messages if model.deliveries[self.driver.number(each)] >= most]
            await self.end("ack", spent)
            messages = [each for each in messages if all(each is not other for other in spent)]
        if not messages:
            return
        begun = self.driver.loop.time()
        lost = await self.driver.nack(messages, delay=delay, counted=counted)
        self.driver.check(not lost, "nack says that it did not know what was under way")
        for message in messages:
            number = self.driver.number(message)
            model.waiting.add(number)
            model.deliveries[number] -= not counted
            if delay:
                model.until[number] = begun + delay * 0.99

    async def reopen(self) -> None:
        if self.rng.random() < 0.8:  # noqa: PLR2004 (seldom)
            return
        model = self.model
        self.driver = await self.subject.reopened(self.driver)
        model.waiting.update(model.under_way)
        model.under_way.clear()
        model.until.clear()  # whether delays outlive that is up to the source
        model.exact = False  # and so it is whether those deliveries count

    async def finish(self) -> None:
        """Take everything that is left; all of it has to come."""
        model, driver = self.model, self.driver
        if self.subject.finish is not None:
            await self.subject.extern(driver, self.subject.finish)
        await self.end("ack", [model.under_way.pop(number) for number in list(model.under_way)])
        while model.waiting:
            messages = await driver.gather(1, self.subject.delay + self.subject.patience)
            driver.check(messages, f"{sorted(model.waiting)} were put, and never came")
            self.took(messages)
            await self.end("ack", [model.under_way.pop(number) for number in list(model.under_way)])
        await driver.nothing(self.subject.watch, "there came more than was put")
        if self.subject.letters is not None:
            kept = sorted(await self.subject.extern(driver, self.subject.letters))
            driver.check(kept == sorted(model.letters), f"dead letters are {kept}, expected {sorted(model.letters)}")
        await driver.close()


async def script(subject: Subject) -> None:
    """Run one random script, from the subject's seed."""
    rng = Random(subject.seed)
    count = rng.choice((0, 3, 30)) if subject.put is not None else rng.choice((3, 30))
    driver = await subject.opened(count, _KEYS)
    await _Script(subject, driver, count, rng).run()
