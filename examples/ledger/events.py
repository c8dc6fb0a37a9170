"""What can happen to an account, and what undoes it."""

from dataclasses import dataclass

from headgate.eventlog import Recorded, Types

types = Types()


@types.add
@dataclass
class Opened:
    owner: str
    email: str


@types.add
@dataclass
class Deposited:
    amount: int  # cents, as everywhere here


@types.add
@dataclass
class Withdrawn:
    amount: int


@types.add
@dataclass
class Sent:
    to: str
    amount: int
    fee: int


@types.add
@dataclass
class Received:
    sender: str
    amount: int


@types.inverse(Deposited)
def undo_deposit(event: Recorded) -> Withdrawn:
    return Withdrawn(event.data.amount)


@types.inverse(Withdrawn)
def undo_withdrawal(event: Recorded) -> Deposited:
    return Deposited(event.data.amount)
