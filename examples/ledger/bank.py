"""What the bank does: every action is an append, and checks the version that it has seen."""

import random
import uuid

from headgate.eventlog import Append, Event, EventLog

from .balances import balances
from .events import Deposited, Opened, Received, Sent, Withdrawn

FEE = 25
ACCOUNTS = 120


class Bank:
    def __init__(self, log: EventLog, seed: int = 7) -> None:
        self.log = log
        self.random = random.Random(seed)

    async def open(self, number: int) -> None:
        name = f"account-{number:04}"
        opened = Event(Opened(f"Customer {number}", f"customer{number}@example.com"), event_id=self.identity())
        first = Event(Deposited(self.random.randint(10, 900) * 100), event_id=self.identity())
        await self.log.append(name, [opened, first], expected_version=0, actor="branch")

    async def transfer(self, source: str, target: str, amount: int) -> bool:
        """Move money if there is enough: both accounts, or none."""
        state, version, _ = await self.log.fold(balances, source)
        if source == target or state["balance"] < amount + FEE:
            return False
        sent = Event(Sent(target, amount, FEE), event_id=self.identity())
        received = Event(Received(source, amount), event_id=self.identity())
        transfer = [Append(source, [sent], version), Append(target, [received])]
        await self.log.append_all(transfer, actor="online", correlation_id=f"transfer-{self.random.randrange(10**6)}")
        return True

    async def withdraw(self, account: str, amount: int) -> None:
        await self.log.append(account, [Event(Withdrawn(amount), event_id=self.identity())], actor="machine")

    async def interest(self, accounts: list[str], command: str) -> None:
        """The nightly job that pays interest. One night it is started twice."""
        payments = [Append(name, [Event(Deposited(150), event_id=self.identity())]) for name in accounts]
        await self.log.append_all(payments, actor="nightly", reason="interest", correlation_id=command)

    async def a_day(self, count: int) -> None:
        accounts = [f"account-{number:04}" for number in range(1, ACCOUNTS + 1)]
        for _ in range(count):
            source, target = self.random.choice(accounts), self.random.choice(accounts)
            if self.random.random() < 0.7:
                await self.transfer(source, target, self.random.randint(1, 200) * 100)
            else:
                await self.withdraw(source, self.random.randint(1, 5) * 1000)

    def identity(self) -> uuid.UUID:
        """The same ids in each run, so that the guide can show them; leave `event_id` out otherwise."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)
