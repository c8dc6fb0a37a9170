"""The five kinds of stage: one that reads, one that understands, three that write.

A stage is a class with one handler. It fetches no work and waits for nobody: the library calls it when there
is demand for more rows, or when rows have come.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from headgate import Consumer, Producer, ProducerConsumer

from .flight import Flight, FlightParser, Reject, Row
from .store import add_airports, add_carriers, add_rejects, connect
from .tally import tally

if TYPE_CHECKING:
    from .source import FlightFile


class Reader(Producer):
    """Reads rows as they are asked for. The file is never further ahead of the workers than their demand.

    Args:
        file: The file, opened.
    """

    def __init__(self, file: FlightFile) -> None:
        """Keep the file."""
        self.file = file

    def handle_demand(self, demand: int) -> list[Row]:
        """Read as many rows as the workers have asked for."""
        rows = self.file.take(demand)
        if len(rows) < demand:
            self.stage.finish()  # the file is at its end; each stage ends once all is handled
        return rows


class Worker(ProducerConsumer):
    """Parses and checks rows. Several of them share the rows of one reader.

    Args:
        columns: The header of the file.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        """Prepare for this header."""
        self.parser = FlightParser(columns)

    def handle_events(self, events: Sequence[Row], source: object) -> list[Flight | Reject]:
        """Turn each row into a flight or a reject."""
        parse = self.parser.parse
        return [parse(row) for row in events]


class Writer(Consumer):
    """Has a connection to the database of its own, for as long as it runs.

    Writing a batch is one transaction: a batch is written as a whole or, if that fails, not at all.

    Args:
        database: The SQLite file.
    """

    def __init__(self, database: Path) -> None:
        """Keep where to write."""
        self.database = database
        self.connection: sqlite3.Connection

    def started(self) -> None:
        """Connect, where the stage runs."""
        self.connection = connect(self.database)

    def terminate(self, reason: object) -> None:
        """Disconnect, however the stage ends."""
        self.connection.close()


class CarrierWriter(Writer):
    """Adds each batch of flights to the statistics of the carriers.

    Args:
        database: The SQLite file.
        names: Names of carriers by code.
    """

    def __init__(self, database: Path, names: Mapping[str, str]) -> None:
        """Keep where to write, and the names."""
        super().__init__(database)
        self.names = names

    def handle_events(self, events: Sequence[Flight], source: object) -> None:
        """Sum up the batch and add the sums to the table."""
        add_carriers(self.connection, tally(events, by_carrier), self.names)


class AirportWriter(Writer):
    """Adds each batch of flights to the statistics of the airports, where they start and where they land.

    Args:
        database: The SQLite file.
        names: Names of airports by code.
    """

    def __init__(self, database: Path, names: Mapping[str, str]) -> None:
        """Keep where to write, and the names."""
        super().__init__(database)
        self.names = names

    def handle_events(self, events: Sequence[Flight], source: object) -> None:
        """Sum up the batch and add the sums to the table."""
        add_airports(self.connection, tally(events, by_airport), self.names)


class RejectWriter(Writer):
    """Keeps the rows that make no sense, with line and reason."""

    def handle_events(self, events: Sequence[Reject], source: object) -> None:
        """Write one batch."""
        add_rejects(self.connection, events)


def by_carrier(flight: Flight) -> list[str]:
    """Name the group in `carrier_delays` that a flight counts in."""
    return [flight.carrier]


def by_airport(flight: Flight) -> list[tuple[str, str]]:
    """Name the two groups in `airport_delays` that a flight counts in."""
    return [("origin", flight.origin), ("destination", flight.destination)]


def is_flight(record: Flight | Reject) -> bool:
    """Choose what the statistics get."""
    return type(record) is Flight


def is_reject(record: Flight | Reject) -> bool:
    """Choose what the list of rejects gets."""
    return type(record) is Reject
