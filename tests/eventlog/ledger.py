"""A small ledger for the tests: accounts, and what is to be known about them."""

from dataclasses import dataclass

from headgate.eventlog import Projection, Types


@dataclass
class Opened:
    owner: str


@dataclass
class Deposited:
    amount: int


@dataclass
class Withdrawn:
    amount: int


@dataclass
class Moved:
    """Between two accounts; in a stream of its own."""

    source: str
    target: str
    amount: int


types = Types(Opened, Deposited, Withdrawn, Moved)


@types.inverse(Deposited)
def undo_deposit(event):
    return Withdrawn(event.data.amount)


@types.inverse(Withdrawn)
def undo_withdrawal(event):
    return Deposited(event.data.amount)


@types.inverse(Moved)
def undo_move(event):
    return Moved(event.data.target, event.data.source, event.data.amount)


def accounts_of(event):
    if event.type == "Moved":
        return [event.data.source, event.data.target]
    return event.stream


def apply(state, event, entity):
    data = event.data
    match data:
        case Opened():
            state["owner"] = data.owner
        case Deposited():
            state["balance"] = state.get("balance", 0) + data.amount
        case Withdrawn():
            state["balance"] = state.get("balance", 0) - data.amount
        case Moved():
            sign = 1 if data.target == entity else -1
            state["balance"] = state.get("balance", 0) + sign * data.amount
    return state


def apply_without_withdrawals(state, event, entity):
    """The bug: what is withdrawn is forgotten."""
    return state if event.type == "Withdrawn" else apply(state, event, entity)


balances = Projection("balances", apply, entity=accounts_of, logic="2")
wrong_balances = Projection("balances", apply_without_withdrawals, entity=accounts_of, logic="1")
