# mypy: disable-error-code="no-untyped-call,union-attr"
"""`JSONLinesSink` and `CSVSink`: batches are written whole or not at all, files are rotated and get their names."""

import json

import pytest

from headgate.connectors.sinks import CSVSink, JSONLinesSink
from headgate.errors import OptionError


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"path": 5}, "path"),
        ({"sync": 1}, "sync"),
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_seconds": -1}, "max_seconds"),
        ({"atomic": None}, "atomic"),
        ({"clock": 1}, "clock"),
        ({"default": 1}, "default"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(options, option):
    with pytest.raises(OptionError, match=f"JSONLinesSink: expected option '{option}'"):
        JSONLinesSink(**{"path": "x", **options})


@pytest.mark.parametrize("fields", ["abc", [], [1]])
def test_fields_are_names(fields):
    with pytest.raises(OptionError, match="CSVSink: expected option 'fields'"):
        CSVSink("x", fields)


@pytest.mark.parametrize("sync", [False, True])
def test_batches_are_there_when_write_returns(sync, tmp_path):
    sink = JSONLinesSink(tmp_path / "out.jsonl", sync=sync, default=str)
    assert sink.write([{"a": "ä"}, 2]) == tmp_path / "out.jsonl"
    assert lines(tmp_path / "out.jsonl") == [{"a": "ä"}, 2]
    sink.write([tmp_path])
    sink.close()
    sink.write([4])
    sink.close()
    sink.close()
    assert lines(tmp_path / "out.jsonl") == [{"a": "ä"}, 2, str(tmp_path), 4]


def test_csv_has_its_header_once(tmp_path):
    for batch in ([{"b": 2, "a": 1}], [("x", 'say "hi"'), ["y", "a\nb"]]):
        with CSVSink(tmp_path / "out.csv", ["a", "b"]) as sink:
            sink.write(batch)
    assert (tmp_path / "out.csv").read_text() == 'a,b\n1,2\nx,"say ""hi"""\ny,"a\nb"\n'


@pytest.mark.parametrize("payload", [{"a": 1}, {"a": 1, "b": 2, "c": 3}, [1], [1, 2, 3]])
def test_a_payload_without_exactly_the_fields_is_refused_and_nothing_is_written(payload, tmp_path):
    with CSVSink(tmp_path / "out.csv", ["a", "b"]) as sink, pytest.raises((ValueError, KeyError)):
        sink.write([{"a": 1, "b": 2}, payload])
    assert (tmp_path / "out.csv").read_text() == ""


def test_a_batch_that_fails_leaves_nothing(tmp_path, monkeypatch):
    sink = JSONLinesSink(tmp_path / "out.jsonl", sync=True)
    sink.write([1])

    def full(number):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="no space"):
            sink.write([2, 3])
    assert lines(tmp_path / "out.jsonl") == [1]
    sink.write([4])
    sink.close()
    assert lines(tmp_path / "out.jsonl") == [1, 4]


def test_a_line_that_a_crash_has_cut_off_is_ended(tmp_path):
    (tmp_path / "out.jsonl").write_text('1\n{"a": ')
    with JSONLinesSink(tmp_path / "out.jsonl") as sink:
        sink.write([2])
    assert (tmp_path / "out.jsonl").read_text() == '1\n{"a": \n2\n'


def test_files_by_size(tmp_path):
    with JSONLinesSink(tmp_path / "out.jsonl", max_bytes=4) as sink:
        names = [sink.write([number]).name for number in range(5)]
    assert names == ["out-000001.jsonl"] * 2 + ["out-000002.jsonl"] * 2 + ["out-000003.jsonl"]
    with JSONLinesSink(tmp_path / "out.jsonl", max_bytes=4) as sink:
        assert sink.write([5]).name == "out-000004.jsonl"


def test_files_by_time(tmp_path):
    now = [0.0]
    with JSONLinesSink(tmp_path / "out.jsonl", max_seconds=60, clock=lambda: now[0]) as sink:
        names = []
        for now[0] in (0, 59, 60, 100, 121):
            names.append(sink.write([1]).name)
    assert names == ["out-000001.jsonl"] * 2 + ["out-000002.jsonl"] * 2 + ["out-000003.jsonl"]


def test_a_file_gets_its_name_when_it_is_complete(tmp_path):
    sink = CSVSink(tmp_path / "out.csv", ["a"], atomic=True, sync=True)
    assert sink.write([[1]]) == tmp_path / "out.csv"
    assert names_in(tmp_path) == ["out.csv.part"]
    sink.close()
    assert names_in(tmp_path) == ["out.csv"]
    sink.write([[2]])
    sink.close()
    assert names_in(tmp_path) == ["out-000001.csv", "out.csv"]
    assert (tmp_path / "out-000001.csv").read_text() == "a\n2\n"


def test_what_a_crash_has_left_of_an_atomic_file_is_gone_on_with(tmp_path):
    sink = CSVSink(tmp_path / "out.csv", ["a"], atomic=True)
    sink.write([[1]])
    sink._file.close()  # the end of the process
    with CSVSink(tmp_path / "out.csv", ["a"], atomic=True) as again:
        again.write([[2]])
    assert (tmp_path / "out.csv").read_text() == "a\n1\n2\n"
