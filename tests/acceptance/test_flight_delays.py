"""The three answers of the flow about flights, next to those of SQLite."""

import csv
import io
import sqlite3
import zipfile
from pathlib import Path

import pytest

from examples import flight_delays
from examples.flight_delays import Answers, Delays, finder, flow_of
from headgate import Process
from tests.acceptance.programs import example

ROOT = Path(__file__).parents[2]
EVERY = 23
"""One flight of so many is taken: 14,643 of them, still in the order of the file."""
TABLES = ("flights", "airlines", "planes", "weather")
DELAYS = """count(*), count(delay), coalesce(sum(delay), 0), count(case when delay > 15 then 1 end)"""
VIEW = """
create view delays as select *, case when dep_delay = 'NA' then null else cast(dep_delay as integer) end delay
from flights
"""
CARRIERS = f"select airlines.name, {DELAYS} from delays left join airlines using (carrier) group by 1"
HOURS = f"select time_hour, origin, {DELAYS} from delays group by 1, 2"
PLANES = f"""
select coalesce(manufacturer, 'not known'),
    case when visib is null or visib = 'NA' then 'not known' when cast(visib as real) < 1 then 'fog'
        when cast(visib as real) < 10 then 'haze' else 'clear' end,
    {DELAYS}
from delays left join planes using (tailnum) left join weather using (origin, time_hour) group by 1, 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The tables as files; of the flights a part."""
    folder = tmp_path_factory.mktemp("tables")
    find = finder(None)
    for name in TABLES[1:]:
        (folder / f"{name}.csv").write_bytes(find(name).read_bytes())
    with zipfile.ZipFile(find("flights")) as archive, archive.open(archive.namelist()[0]) as raw:
        header, *rows = io.TextIOWrapper(raw, encoding="utf-8")
    (folder / "flights.csv").write_text(header + "".join(rows[::EVERY]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def database(folder):
    database = sqlite3.connect(":memory:")
    for name in TABLES:
        with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        database.execute(f"create table {name} ({', '.join(header)})")
        database.executemany(f"insert into {name} values ({', '.join('?' * len(header))})", rows)
    database.execute("create index of_planes on planes (tailnum)")
    database.execute("create index of_weather on weather (origin, time_hour)")
    database.execute(VIEW)
    yield database
    database.close()


def asked(database, query, keys):
    return {row[:keys]: Delays(*row[keys:]) for row in database.execute(query)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "place"), [(None, None), (2, "inline"), (4, "inline"), (1, Process()), (2, Process()), (4, Process())]
)
def test_it_answers_as_sqlite_does(folder, database, workers, place):
    answers = Answers()
    run = flow_of(finder(folder), answers).options(workers=workers, place=place).run()
    assert {(name,): delays for name, delays in answers.carriers} == asked(database, CARRIERS, 1)
    hours = {(f"{hour.start:%Y-%m-%dT%H:%M:%SZ}", airport): each for hour, airport, each in answers.hours}
    assert hours == asked(database, HOURS, 2)
    assert len(hours) == len(answers.hours)
    assert dict(answers.planes) == asked(database, PLANES, 2)
    assert sum(each.flights for each in hours.values()) == 14_643
    assert run.late == 0


@pytest.mark.slow
def test_as_a_program(folder):
    done = example("flight_delays", folder, "--explain")
    assert (done.returncode, done.stderr) == (0, "")
    assert "source-1: from_csv() at flight_delays.py" in done.stdout
    shown = (flight_delays.__doc__ or "").splitlines()
    for start in ("carrier  ", "worst hours (UTC)", "mean delay by maker", " " * 40):
        [heading] = [line for line in done.stdout.splitlines() if line.startswith(start)]
        assert f"    {heading}" in shown
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "44,096 rows of four tables in " in done.stdout


def test_a_file_that_is_missing(tmp_path, capsys):
    assert flight_delays.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"flight_delays: flights.csv is not in {tmp_path}\n"
