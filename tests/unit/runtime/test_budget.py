# mypy: disable-error-code="var-annotated"
"""The byte budget: bounded, and never stuck, whatever the messages weigh."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from headgate.runtime.budget import Inflow, Outflow

BUDGET = 1000


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3 * BUDGET)), max_size=60),
    st.lists(st.sampled_from(["send", "arrive", "handle", "credit"]), max_size=200),
)
def test_everything_arrives_and_what_is_on_the_way_is_bounded(messages, schedule):
    outflow = Outflow(BUDGET)
    credit = deque()
    inflow = Inflow(BUDGET, credit.append)
    todo, wire, waiting, on_the_way = deque(messages), deque(), deque(), deque()
    handled = 0

    def step(what):
        nonlocal handled
        if what == "send" and todo and not outflow.full:
            count, weight = todo.popleft()
            assert len(on_the_way) < 2 or sum(on_the_way) <= BUDGET // 2
            outflow.sent(weight)
            wire.append((count, weight))
            on_the_way.append(weight)
        elif what == "arrive" and wire:
            count, weight = wire.popleft()
            inflow.received(count, weight)
            waiting.append(count)
        elif what == "handle" and waiting:
            inflow.begin(handled)
            handled += waiting.popleft()
            on_the_way.popleft()
        elif what == "credit" and credit:
            outflow.done(credit.popleft())
        else:
            return False
        return True

    for what in schedule:
        step(what)
    going = True
    while going:
        going = any(step(what) for what in ("credit", "handle", "arrive", "send"))
    assert not todo, "it is stuck"
    assert handled == sum(count for count, _ in messages)
