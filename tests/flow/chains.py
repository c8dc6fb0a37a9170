"""Operators and what they mean in plain Python. Apart from the tests, so that a worker process imports no more."""

import operator

from headgate.flow import Flow


def halves(x):
    return x // 2


def odd(x):
    return x % 2 == 1


def twice(x):
    return [x, x + 1]


def upto(x):
    return range(x % 3)


PLAIN = {
    "map": lambda events: [halves(x) for x in events],
    "filter": lambda events: [x for x in events if odd(x)],
    "reject": lambda events: [x for x in events if not odd(x)],
    "flat_map": lambda events: [y for x in events for y in twice(x)],
    "shrink": lambda events: [y for x in events for y in upto(x)],
    "batches": lambda events: [x + 7 for x in events],
    "skip": lambda events: [100 // (x % 5) for x in events if x % 5],
    "shuffle": list,
    "partition": list,
    "merge": lambda events: events * 2,
    "tee": list,
    "count": lambda events: [len(events)],
    "sum": lambda events: [sum(events)],
    "sort": sorted,
    "top": lambda events: sorted(events, reverse=True)[:3],
    "fold": lambda events: [sum(events) % 97],
}
IN_FLOW = {
    "map": lambda flow: flow.map(halves),
    "filter": lambda flow: flow.filter(odd),
    "reject": lambda flow: flow.reject(odd),
    "flat_map": lambda flow: flow.flat_map(twice),
    "shrink": lambda flow: flow.flat_map(upto),
    "batches": lambda flow: flow.map_batches(lambda batch: [x + 7 for x in batch]),
    "skip": lambda flow: flow.map(lambda x: 100 // (x % 5), errors="skip"),
    "shuffle": lambda flow: flow.shuffle(),
    "partition": lambda flow: flow.partition(lambda x: x % 7).map(lambda x: x),
    "merge": lambda flow: Flow.merge(flow, flow),
    "tee": lambda flow: flow.tee(lambda branch: branch.map(odd).count()),
    "count": lambda flow: flow.count(),
    "sum": lambda flow: flow.sum(),
    "sort": lambda flow: flow.sort(),
    "top": lambda flow: flow.top(3),
    "fold": lambda flow: flow.reduce(int, operator.add, combine=operator.add).map(lambda x: x % 97),
}
