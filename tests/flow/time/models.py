"""Slow, obvious models: event by event, every window looked for among all there could be, everything kept in lists."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Marks:
    """The watermark by its definition. Sources: name -> [watermark, idle, heard]."""

    bound: float
    idle_after: float = math.inf
    sources: dict[Any, list[Any]] = field(default_factory=dict)
    value: float = -math.inf

    def open(self, source, now):
        self.sources.setdefault(source, [-math.inf, False, now])

    def event(self, source, time, now):
        self.open(source, now)
        entry = self.sources[source]
        entry[:] = [max(entry[0], time - self.bound), False, now]
        self.look()

    def idle(self, source, now):
        self.open(source, now)
        self.sources[source][1] = True
        self.look()

    def end(self, source):
        self.sources.pop(source, None)
        self.look()

    def tick(self, now):
        for entry in self.sources.values():
            if now - entry[2] >= self.idle_after:
                entry[1] = True
        self.look()

    def look(self):
        active = [mark for mark, idle, _ in self.sources.values() if not idle]
        everyone = [mark for mark, _, _ in self.sources.values()]
        if active:
            self.value = max(self.value, min(active))
        elif everyone:
            self.value = max(self.value, *everyone)


class Grid:
    """Fixed and sliding windows: every window is tried."""

    def __init__(self, size, every, offset=0):
        self.size, self.every, self.offset = size, every, offset

    def windows(self, time):
        k = math.floor((time - self.offset - self.size) / self.every) - 2
        found = []
        while self.offset + k * self.every <= time:
            start = self.offset + k * self.every
            if start <= time < start + self.size:
                found.append((start, start + self.size))
            k += 1
        return found


class GridModel:
    """Windows of a grid: {(start, end, key): [values]} while they are open."""

    def __init__(self, grid, lateness, marks):
        self.grid, self.lateness, self.marks = grid, lateness, marks
        self.open, self.results, self.late, self.clipped = {}, [], [], 0

    def event(self, time, key, value):
        found = self.grid.windows(time)
        mine = [span for span in found if span[1] + self.lateness > self.marks.value]
        if not mine:
            self.late.append(value)
        elif len(mine) < len(found):
            self.clipped += 1
        for span in mine:
            self.open.setdefault((*span, key), []).append(value)

    def close(self, mark=None):
        mark = self.marks.value if mark is None else mark
        for place in sorted(self.open, key=lambda place: place[:2]):
            if place[1] + self.lateness <= mark:
                self.results.append((*place, tuple(self.open.pop(place))))


class SessionModel:
    """Sessions: a list of (key, [times], [values]), looked through from end to end."""

    def __init__(self, gap, lateness, marks):
        self.gap, self.lateness, self.marks = gap, lateness, marks
        self.open, self.results, self.late, self.clipped = [], [], [], 0

    def event(self, time, key, value):
        if time + self.gap + self.lateness <= self.marks.value:
            self.late.append(value)
            return
        times, values, others = [time], [value], []
        for session in self.open:
            its_key, its_times, its_values = session
            if its_key == key and min(its_times) < time + self.gap and time < max(its_times) + self.gap:
                times, values = times + its_times, values + its_values
            else:
                others.append(session)
        self.open = [*others, (key, times, values)]

    def close(self, mark=None):
        mark = self.marks.value if mark is None else mark
        kept = []
        for key, times, values in self.open:
            end = max(times) + self.gap
            if end + self.lateness <= mark:
                self.results.append((min(times), end, key, tuple(sorted(values))))
            else:
                kept.append((key, times, values))
        self.open = kept
