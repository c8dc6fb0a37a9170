"""How events become balances. The first version has a bug: it forgets the fee of a transfer."""

from typing import Any

from headgate.eventlog import Projection, Recorded

from .events import Deposited, Opened, Received, Sent, Withdrawn

State = dict[str, Any]


def with_fees(state: State, event: Recorded) -> State:
    match event.data:
        case Opened(owner=owner):
            return {"owner": owner, "balance": 0}
        case Deposited(amount=amount) | Received(amount=amount):
            state["balance"] += amount
        case Withdrawn(amount=amount):
            state["balance"] -= amount
        case Sent(amount=amount, fee=fee):
            state["balance"] -= amount + fee
            state["fees"] = state.get("fees", 0) + fee
    return state


def without_fees(state: State, event: Recorded) -> State:
    if isinstance(event.data, Sent):
        state["balance"] -= event.data.amount
        return state
    return with_fees(state, event)


buggy = Projection("balances", without_fees, logic="1")
balances = Projection("balances", with_fees, logic="2")
