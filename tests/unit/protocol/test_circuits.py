"""The pure part of circuit breakers: when a call may be made."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from headgate.protocol.circuits import CLOSED, HALF_OPEN, OPEN, Circuit, CircuitBreaker


def admit(circuit, now):
    ticket = circuit.admit(now)
    assert ticket is not None
    return ticket


def fail(circuit, now, times=1):
    for _ in range(times):
        circuit.failed(admit(circuit, now), now)


def test_failures_in_a_row_open_it():
    circuit = Circuit(CircuitBreaker(failures=3))
    fail(circuit, 0, 2)
    circuit.succeeded(admit(circuit, 0))
    fail(circuit, 0, 2)
    assert circuit.state(0) == CLOSED
    fail(circuit, 0)
    assert (circuit.state(0), circuit.opened) == (OPEN, 1)


def test_nobody_calls_until_the_time_has_passed_and_then_few_do():
    circuit = Circuit(CircuitBreaker(failures=1, seconds=10, trials=2))
    fail(circuit, 0)
    assert (circuit.admit(4), circuit.wait(4)) == (None, 6)
    assert (circuit.state(10), circuit.wait(10)) == (HALF_OPEN, 0)
    first, second = admit(circuit, 10), admit(circuit, 10)
    assert first == second
    assert (circuit.admit(10), circuit.wait(10)) == (None, math.inf)
    circuit.succeeded(first)
    assert circuit.state(10) == CLOSED
    circuit.failed(second, 11)
    assert circuit.state(11) == CLOSED, "it was begun before that"


def test_a_trial_that_fails_opens_it_again():
    circuit = Circuit(CircuitBreaker(failures=5, seconds=10))
    fail(circuit, 0, 5)
    fail(circuit, 10)
    assert (circuit.state(19), circuit.state(20), circuit.opened) == (OPEN, HALF_OPEN, 2)


def test_a_trial_that_was_abandoned_makes_room():
    circuit = Circuit(CircuitBreaker(failures=1, seconds=10))
    fail(circuit, 0)
    ticket = admit(circuit, 10)
    assert circuit.admit(10) is None
    circuit.abandoned(ticket)
    assert circuit.admit(10) is not None


def test_an_abandoned_call_of_a_closed_circuit_changes_nothing():
    circuit = Circuit(CircuitBreaker(failures=1))
    circuit.abandoned(admit(circuit, 0))
    assert circuit.state(0) == CLOSED
    assert circuit.admit(0) is not None


@given(st.integers(1, 4), st.integers(1, 3), st.randoms(use_true_random=False))
def test_whatever_happens_few_try_and_somebody_may_in_the_end(failures, trials, chance: random.Random):
    circuit = Circuit(CircuitBreaker(failures=failures, seconds=5, trials=trials))
    now, out, opened = 0.0, [], -math.inf
    for _ in range(60):
        now += chance.choice((0, 1, 3))
        before = circuit.state(now)
        ticket = circuit.admit(now)
        if before == CLOSED:
            assert ticket is not None
        if ticket is not None:
            assert now >= opened + 5, "it was open"
            out.append((ticket, before))
        mine = [each for each in out if each[0] == circuit._era]
        if circuit._state == HALF_OPEN:
            assert len(mine) == circuit._trying <= trials
        if out and chance.random() < 0.6:
            ticket, _ = out.pop(int(chance.random() * len(out)))
            count = circuit.opened
            how = chance.randrange(3)
            if not how:
                circuit.failed(ticket, now)
            else:
                (circuit.succeeded if how == 1 else circuit.abandoned)(ticket)
            if circuit.opened > count:
                opened = now
    for ticket, _ in out:
        circuit.abandoned(ticket)
    assert circuit.wait(now + 5) == 0
