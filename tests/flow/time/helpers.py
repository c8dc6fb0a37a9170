"""What the tests of windows share."""

from __future__ import annotations

from headgate.flow.panes import Reduce
from headgate.flow.windowing import Windowing

LIST = Reduce(list, lambda acc, event: [*acc, event], combine=lambda one, other: one + other)
COUNT = Reduce(int, lambda acc, _: acc + 1, tally=lambda acc, n: acc + n, combine=lambda one, other: one + other)
SUM = Reduce(int, lambda acc, event: acc + event)


def named(key, acc, window, firing):
    """An ``on_trigger`` that says everything and keeps the accumulator."""
    return [(window.id, key, firing.name, acc)], acc


def emptied(key, acc, window, firing):
    """An ``on_trigger`` that says everything and begins anew."""
    return [(window.id, firing.name, acc)], type(acc)()


def run(engine: Windowing, events, size=None, source=None, now=0.0, done=True):
    """Add events in batches of a size, and end."""
    out = []
    for start in range(0, len(events), size or max(1, len(events))):
        out += engine.add(events[start : start + (size or len(events))], source, now)
    return out + (engine.done(now) if done else [])


def split(draw_sizes, items):
    """Cut items into batches of the given sizes, the rest into one."""
    batches, start = [], 0
    for size in draw_sizes:
        batches.append(items[start : start + size])
        start += size
    batches.append(items[start:])
    return [batch for batch in batches if batch]
