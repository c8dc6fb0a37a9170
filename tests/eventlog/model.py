"""The obvious model of an event log: a list. What `test_properties` compares every store with."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Row:
    position: int
    stream: str
    version: int
    type: str
    identity: int
    recorded_at: int
    n: int
    correlation: str | None = None
    reverses: int | None = None
    archived: bool = False


@dataclass
class New:
    """What is to be appended."""

    type: str
    identity: int
    n: int
    correlation: str | None = None
    reverses: int | None = None


class Refused(Exception):
    """What the log refuses, by the name of its error."""


@dataclass
class Model:
    rows: list[Row] = field(default_factory=list)

    def version(self, stream):
        return max((row.version for row in self.rows if row.stream == stream), default=0)

    def last(self):
        return self.rows[-1].position if self.rows else 0

    def append(self, orders, now):
        """Append to streams, all or nothing; gives the new rows of each, or the rows that were there."""
        recorded = max(now, self.rows[-1].recorded_at if self.rows else 0)
        done: list[list[Row]] = []
        rows: list[Row] = []
        backup = list(self.rows)
        try:
            for stream, expected, news in orders:
                known = {row.identity: row for row in self.rows}
                fresh, seen = [], set()
                for new in news:
                    if new.identity in known:
                        if known[new.identity].stream != stream:
                            raise Refused("EventError")
                    elif new.identity not in seen:
                        seen.add(new.identity)
                        fresh.append(new)
                if news and not fresh:
                    done.append([known[new.identity] for new in news])
                    continue
                if expected is not None and expected != self.version(stream):
                    raise Refused("AppendConflictError")
                reversed_ = {row.reverses for row in self.rows if row.reverses is not None and not row.archived}
                rows = []
                for new in fresh:
                    if new.reverses is not None:
                        if new.reverses in reversed_:
                            raise Refused("ReversalError")
                        reversed_.add(new.reverses)
                    version = self.version(stream) + 1
                    row = Row(self.last() + 1, stream, version, new.type, new.identity, recorded, new.n)
                    row.correlation, row.reverses = new.correlation, new.reverses
                    self.rows.append(row)
                    rows.append(row)
                done.append(rows)
        except Refused:
            self.rows = backup
            raise
        return done

    def in_effect(self, chosen):
        """Those that have to be undone so that the chosen rows have no effect."""
        undone_by = {row.reverses: row for row in self.rows if row.reverses is not None and not row.archived}
        reached: set[int] = set()
        result: list[Row] = []
        for row in chosen:
            if row.identity in reached:
                continue
            chain = [row]
            while chain[-1].identity in undone_by:
                chain.append(undone_by[chain[-1].identity])
            reached.update(each.identity for each in chain)
            if len(chain) % 2:
                result.append(chain[-1])
        return result

    def reversal(self, chosen, identities):
        """The orders that undo rows."""
        streams: dict[str, list[New]] = {}
        for row in sorted(chosen, key=lambda each: -each.position):
            if row.archived:
                raise Refused("ReversalError")
            new = New("undo", next(identities), -row.n, None, row.identity)
            streams.setdefault(row.stream, []).append(new)
        return [(stream, self.version(stream), news) for stream, news in streams.items()]

    def select(self, streams=(), start=1, until=None, types=(), correlation=None):
        def fits(row):
            named = not streams or any(
                row.stream.startswith(each[:-1]) if each.endswith("*") else row.stream == each for each in streams
            )
            return (
                named
                and start <= row.position
                and (until is None or row.position <= until)
                and (not types or row.type in types)
                and (correlation is None or row.correlation == correlation)
            )

        return [row for row in self.rows if fits(row)]

    def position_at(self, micros):
        return max((row.position for row in self.rows if row.recorded_at <= micros), default=0)

    def archive(self, until):
        for row in self.rows[:-1]:
            if row.position <= until:
                row.archived = True

    def fold(self, until=None):
        states: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            if until is None or row.position <= until:
                state = states.setdefault(row.stream, {"sum": 0, "events": 0, "last": ""})
                state["sum"] += row.n
                state["events"] += 1
                state["last"] = f"{row.type}{state['last']}"[:6]  # depends on the order
        return states
