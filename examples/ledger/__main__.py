"""The story: `python -m examples.ledger`."""

import argparse
import asyncio
from pathlib import Path

from headgate.eventlog import EventLog, compare, fork, reverse_correlation, verify

from .balances import balances, buggy
from .bank import ACCOUNTS, Bank
from .book import policy
from .events import types

MONDAY = 1_767_600_000.0  # 2026-01-05 08:00 UTC; the story has a clock of its own


class Clock:
    """A minute for each event."""

    def __init__(self) -> None:
        self.now = MONDAY

    def __call__(self) -> float:
        self.now += 20
        return self.now


async def story(path: Path) -> None:
    accounts = [f"account-{number:04}" for number in range(1, ACCOUNTS + 1)]
    async with EventLog(str(path), types=types, clock=Clock()) as log:
        bank = Bank(log)
        for number in range(1, ACCOUNTS + 1):
            await bank.open(number)
        await bank.a_day(200)
        await bank.interest(accounts, "interest-monday")
        await bank.interest(accounts, "interest-monday-again")  # somebody has started it twice
        await bank.a_day(40)
        print(f"{await log.head()} events of {len(accounts)} accounts in {path}")

        wrong = log.projector(buggy)
        await wrong.catch_up()
        money = sum(state["balance"] for state in (await wrong.all()).values())
        print(f"the books say {money / 100:.2f}, but the fees are forgotten")

        found = await compare(log, balances)
        print(f"a replay with the corrected logic changes {len(found.changes)} of {found.entities} accounts")
        await log.projector(balances).rebuild()
        right = log.projector(balances)
        money = sum(state["balance"] for state in (await right.all()).values())
        print(f"rebuilt: the books say {money / 100:.2f}")

        undone = await reverse_correlation(log, "interest-monday-again", actor="ada", reason="it was paid twice")
        await right.catch_up()
        money = sum(state["balance"] for state in (await right.all()).values())
        print(f"{len(undone)} payments of interest undone: the books say {money / 100:.2f}")

        copy = path.with_name(f"{path.stem}-test.db")
        copy.unlink(missing_ok=True)
        async with EventLog(str(copy), types=types) as target:
            done = await fork(log, target, sample=2, policy=policy)
        print(f"a test environment: {done.events} of {done.of} events, of {done.streams} accounts, in {copy}")

        checked = await verify(log)
        print("every event is as it was written" if checked.ok else f"damaged: {checked.damages}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.ledger", description="A ledger kept as events.")
    parser.add_argument("file", nargs="?", type=Path, default=Path("ledger.db"))
    path = parser.parse_args().file
    for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        each.unlink(missing_ok=True)
    asyncio.run(story(path))


if __name__ == "__main__":
    main()
