"""What the scenarios of flows are made of."""

import operator

from headgate import Consumer, Flow, ProducerConsumer
from tests.parity.stages import Log

LISTS = [[1, 2, 3], [4, 5, 6]]
HUNDRED = range(1, 101)


def two():
    """Two lists, two workers."""
    return Flow.from_iterables(LISTS).options(workers=2)


def four():
    """Two lists, four workers."""
    return Flow.from_iterables(LISTS).options(workers=4)


def parted():
    """The numbers from 1 to 10, in four partitions."""
    return Flow.from_iterables([*LISTS, range(7, 11)]).options(workers=4).partition(workers=4)


def total(flow):
    """Add all up."""
    return flow.reduce(int, operator.add)


def states(flow):
    """Give accumulators as they are, and go on with them."""
    return flow.on_trigger(lambda state: ([state], state))


def resets(flow):
    """Give accumulators as they are, and begin anew."""
    return flow.on_trigger(lambda state: ([state], 0))


def named(flow):
    """Give (window, trigger, accumulator), and go on with it."""
    return flow.on_trigger(lambda state, _, occasion: ([(occasion.id, occasion.name, state)], state))


def even(number):
    """Say whether a number is even."""
    return number % 2 == 0


class Batches(Consumer):
    """Writes down the batches that it gets."""

    def __init__(self, log):
        self.log = log

    def handle_events(self, events, source):
        self.log.append(list(events))


class Twice(ProducerConsumer):
    """Gives every event twice, and writes down the batches that it gets."""

    def __init__(self, log=None):
        self.log = Log() if log is None else log

    def handle_events(self, events, source):
        self.log.append(list(events))
        return [event for event in events for _ in range(2)]
