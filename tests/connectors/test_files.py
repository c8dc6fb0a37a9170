# mypy: disable-error-code="union-attr,misc,arg-type,index,operator,var-annotated,no-untyped-call"
"""`FileSource`: formats, bad records, files that grow and rotate, checkpoints, whole files."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from headgate.connectors.files import FileSource
from headgate.errors import OptionError, RecordError


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def data(messages):
    return [message.data for message in messages]


def read_all(source, count=100):
    """Read, acknowledge everything, and close."""
    source.open()
    got = []
    while messages := source.fetch(count):
        got += messages
        source.ack(messages)
    source.close()
    return got


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def follow(tmp_path, clock):
    """Makes sources that follow files, and looks with them."""
    sources = []

    class Followed:
        def __init__(self, path, **options):
            self.source = FileSource(path, watch="poll", poll=1.0, clock=clock, **options)
            sources.append(self.source)
            self.source.open()

        def look(self, count=100, *, ack=True):
            got = []
            clock.now += 1
            while messages := self.source.fetch(count):
                got += messages
                if ack:
                    self.source.ack(messages)
            return data(got)

    yield Followed
    for source in sources:
        source.close()


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"path": 5}, "path"),
        ({"path": []}, "path"),
        ({"path": ""}, "path"),
        ({"format": "xml"}, "format"),
        ({"encoding": "utf-16"}, "encoding"),
        ({"encoding": "no such"}, "encoding"),
        ({"format": "csv", "header": "a,b"}, "header"),
        ({"csv_options": {}}, "csv_options"),
        ({"format": "csv", "csv_options": {"delimiter": "ab"}}, "csv_options"),
        ({"format": "csv", "csv_options": {"separator": ","}}, "csv_options"),
        ({"watch": "always"}, "watch"),
        ({"start": "middle"}, "start"),
        ({"start": "end"}, "start"),
        ({"start": "end", "watch": True, "done": "delete"}, "start"),
        ({"done": "burn"}, "done"),
        ({"done": "move"}, "destination"),
        ({"destination": "there"}, "destination"),
        ({"on_bad": "raise"}, "on_bad"),
        ({"max_line": 0}, "max_line"),
        ({"poll": -1}, "poll"),
        ({"settle": None}, "settle"),
        ({"commit_interval": "1"}, "commit_interval"),
        ({"key": "team"}, "key"),
        ({"clock": 1}, "clock"),
        ({"name": 1}, "name"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(options, option):
    with pytest.raises(OptionError, match=f"FileSource: expected option '{option}'"):
        FileSource(**{"path": "x", **options})


def test_a_file_that_is_not_there_is_an_error_and_a_pattern_without_files_is_not(tmp_path):
    with pytest.raises(FileNotFoundError):
        FileSource(tmp_path / "none").open()
    assert read_all(FileSource(tmp_path / "*.log")) == []
    assert read_all(FileSource(tmp_path)) == []


# -- formats ----------------------------------------------------------------------------------------------------------


def test_lines_with_their_places(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\ntwo\n\n\xc3\xa4\nlast")
    messages = read_all(FileSource(path), 2)
    assert data(messages) == ["one", "two", "", "ä", "last"]
    places = [(each.metadata["line"], each.metadata["offset"]) for each in messages]
    assert places == [(1, 0), (2, 5), (3, 9), (4, 10), (5, 13)]
    assert {each.metadata["path"] for each in messages} == {str(path)}


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\n")
    assert data(read_all(FileSource(path))) == ["one"]
    assert data(read_all(FileSource(path, encoding="utf-8-sig"))) == ["one"]


def test_other_encodings(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("Müller\n".encode("latin-1"))
    assert data(read_all(FileSource(path, encoding="latin-1"))) == ["Müller"]


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n[2]\nnull\n{"a": \n')
    *good, bad = read_all(FileSource(path, format="jsonl", key=lambda each: each and len(each)))
    assert data(good) == [{"a": 1}, [2], None]
    assert [each.key for each in good] == [1, 1, None]
    assert isinstance(bad.reason, RecordError)
    assert str(bad.reason).startswith(f"{path}:5: expected a record: JSONDecodeError")
    assert isinstance(bad.reason.__cause__, ValueError)
    assert bad.data == '{"a": '


def test_csv_with_names_from_the_first_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('name,text\na,"several\nlines, ""quoted"""\n\nb\nc,d,e\nf,g\n')
    messages = read_all(FileSource(path, format="csv"), 1)
    good = [each for each in messages if each.ok]
    assert data(good) == [{"name": "a", "text": 'several\nlines, "quoted"'}, {"name": "f", "text": "g"}]
    assert [each.metadata["line"] for each in messages] == [2, 5, 6, 7]
    short, long = [each for each in messages if not each.ok]
    assert str(short.reason) == f"{path}:5: expected 2 fields (name, text), got 1"
    assert str(long.reason) == f"{path}:6: expected 2 fields (name, text), got 3"
    assert long.data == ["c", "d", "e"]


def test_csv_with_given_names_without_names_and_with_options(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1;2\n3;4\n")
    options = {"delimiter": ";"}
    named = read_all(FileSource(path, format="csv", header=["a", "b"], csv_options=options))
    assert data(named) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    bare = read_all(FileSource(path, format="csv", header=False, csv_options=options))
    assert data(bare) == [["1", "2"], ["3", "4"]]


def test_a_quote_that_is_never_closed_spoils_one_line_only(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"2\n' + "".join(f"{n},{n}\n" for n in range(20_000)))
    messages = read_all(FileSource(path, format="csv"), 1000)
    bad, *good = messages
    assert str(bad.reason).startswith(f"{path}:2: expected a row of CSV")
    assert bad.data == '1,"2\n'
    assert data(good) == [{"a": str(n), "b": str(n)} for n in range(20_000)]
    assert good[0].metadata["line"] == 3


def test_a_header_that_cannot_be_read_spoils_its_file_only(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff,b\n1,2\n")
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    bad, good = read_all(FileSource(tmp_path, format="csv"))
    assert "a.csv:1: its header: expected text in utf-8" in str(bad.reason)
    assert good.data == {"a": "1", "b": "2"}


def test_a_function_makes_the_payload(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("1\nx\n3\n")
    one, bad, three = read_all(FileSource(path, format=int))
    assert (one.data, three.data) == (1, 3)
    assert "ValueError" in str(bad.reason)
    assert bad.metadata["line"] == 2


def test_a_key_function_that_raises_fails_the_message(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}\n")
    [message] = read_all(FileSource(path, format="jsonl", key=lambda each: each["team"]))
    assert isinstance(message.reason, KeyError)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\nb\xffd\ngood\n")
    first, bad, last = read_all(FileSource(path))
    assert (first.data, last.data) == ("good", "good")
    assert str(bad.reason) == f"{path}:2: expected text in utf-8, got byte 0xff at column 2"
    assert bad.data == b"b\xffd\n"


def test_a_line_that_is_too_long(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"short\n" + b"x" * 200_000 + b"\nshort\n")
    first, bad, last = read_all(FileSource(path, max_line=100))
    assert (first.data, last.data) == ("short", "short")
    assert "expected a line of at most 100 bytes" in str(bad.reason)
    assert last.metadata["line"] == 3
    assert len(bad.data) <= 1000


def test_bad_records_can_be_skipped_and_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("1\n" + "{\n" * 500 + "2\n")
    source = FileSource(path, format="jsonl", on_bad="skip")
    assert data(read_all(source, 10)) == [1, 2]
    assert source.counts == {"records": 502, "bad": 500, "files": 1}


def test_one_fetch_does_not_skip_for_ever(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{\n" * 25_000 + "1\n")
    source = FileSource(path, format="jsonl", on_bad="skip")
    woken = []
    source.wake = lambda: woken.append(True)
    source.open()
    assert source.fetch(5) == []
    assert woken
    while (messages := source.fetch(5)) == []:
        pass
    assert data(messages) == [1]
    assert len(woken) >= 2
    source.ack(messages)
    assert source.fetch(5) is None
    source.close()


# -- gzip -------------------------------------------------------------------------------------------------------------


def test_gzip(tmp_path):
    path = tmp_path / "a.log.gz"
    with gzip.open(path, "wt") as file:
        file.write("one\ntwo\n")
    messages = read_all(FileSource(path))
    assert data(messages) == ["one", "two"]
    assert messages[1].metadata["offset"] == 4


def test_a_gzip_file_that_is_cut_off_fails_at_the_end(tmp_path):
    path = tmp_path / "a.log.gz"
    with gzip.open(path, "wb") as file:
        file.write(os.urandom(50_000).hex().encode() + b"\n")
        for number in range(20_000):
            file.write(os.urandom(10).hex().encode() + b" %d\n" % number)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    *good, bad = read_all(FileSource(path), 1000)
    assert len(good) > 100
    assert all(each.ok for each in good)
    assert "expected a gzip file" in str(bad.reason)
    path.write_bytes(b"no gzip at all")
    [bad] = read_all(FileSource(path))
    assert "a.log.gz:1: expected a gzip file" in str(bad.reason)


# -- several files ----------------------------------------------------------------------------------------------------


def test_files_come_in_the_order_of_their_names(tmp_path):
    for name in ("b.log", "a.log", ".hidden", "c.txt"):
        (tmp_path / name).write_text(f"{name}\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.log").write_text("d.log\n")
    assert data(read_all(FileSource(tmp_path))) == ["a.log", "b.log", "c.txt"]
    assert data(read_all(FileSource(f"{tmp_path}/*.log"))) == ["a.log", "b.log"]
    assert data(read_all(FileSource(f"{tmp_path}/**/*.log"))) == ["a.log", "b.log", "d.log"]
    assert data(read_all(FileSource([tmp_path / "c.txt", tmp_path / "a.log"]))) == ["c.txt", "a.log"]


@pytest.mark.parametrize("done", ["move", "delete"])
def test_a_file_goes_when_all_of_it_is_settled(done, tmp_path):
    (tmp_path / "a.log").write_text("1\n2\n")
    (tmp_path / "b.log").write_text("3\n")
    there = {"destination": tmp_path / "done"} if done == "move" else {}
    source = FileSource(tmp_path, done=done, **there)
    source.open()
    first, second, third = source.fetch(10)
    assert source.fetch(10) is None
    source.ack([first])
    assert (tmp_path / "a.log").exists()
    source.ack([third])
    assert not (tmp_path / "b.log").exists()
    source.nack([second])
    [second] = source.fetch(10)
    assert (tmp_path / "a.log").exists()
    source.discard([second])
    assert not (tmp_path / "a.log").exists()
    source.close()
    if done == "move":
        assert sorted(each.name for each in (tmp_path / "done").iterdir()) == ["a.log", "b.log"]


def test_an_empty_file_is_settled_at_once_and_a_taken_name_is_not_overwritten(tmp_path):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "a.log").write_text("from yesterday\n")
    (tmp_path / "a.log").write_text("")
    assert read_all(FileSource(tmp_path, done="move", destination=tmp_path / "done")) == []
    assert (tmp_path / "done" / "a.log").read_text() == "from yesterday\n"
    assert (tmp_path / "done" / "a-1.log").read_text() == ""


# -- whole files ------------------------------------------------------------------------------------------------------


def test_whole_files(tmp_path):
    for name in ("b.pdf", "a.pdf"):
        (tmp_path / name).write_bytes(b"12345")
    source = FileSource(
        tmp_path, format="files", done="move", destination=tmp_path / "done", letters=tmp_path / "letters"
    )
    source.open()
    good, bad = source.fetch(10)
    assert (good.data, bad.data) == (tmp_path / "a.pdf", tmp_path / "b.pdf")
    assert good.metadata["size"] == 5
    source.ack([good])
    source.dead_letter([bad.fail(ValueError("no invoice"))])
    source.close()
    assert (tmp_path / "done" / "a.pdf").exists()
    assert (tmp_path / "letters" / "b.pdf").exists()
    why = json.loads((tmp_path / "letters" / "b.pdf.reason.json").read_text())
    assert why["reason"] == "ValueError: no invoice"
    assert why["path"] == str(tmp_path / "b.pdf")
    assert "Traceback" not in why["reason"]


def test_a_whole_file_is_taken_when_it_is_settled(tmp_path, clock):
    source = FileSource(tmp_path, format="files", watch="poll", settle=3600, done="delete", clock=clock)
    source.open()
    path = tmp_path / "a.pdf"
    path.write_text("half of i")
    clock.now += 1
    assert source.fetch(5) == []
    os.utime(path, (1e9, 1e9))
    clock.now += 1
    [message] = source.fetch(5)
    source.ack([message])
    assert not path.exists()
    path.write_text("another of that name")
    os.utime(path, (1e9, 1e9))
    clock.now += 1
    assert len(source.fetch(5)) == 1
    source.close()


def test_a_whole_file_that_somebody_else_has_taken_is_no_error(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b").write_text("")
    source = FileSource(tmp_path, format="files")
    source.open()
    (tmp_path / "a").unlink()
    assert data(source.fetch(5)) == [tmp_path / "b"]
    source.close()


# -- dead letters of records ------------------------------------------------------------------------------------------


def test_dead_letters_of_records_are_lines_of_json(tmp_path):
    path = tmp_path / "a.log"
    path.write_bytes(b"good\nbad\nb\xffd\n")
    source = FileSource(path, letters=tmp_path / "letters")
    assert source.keeps_letters
    source.open()
    messages = source.fetch(10)
    assert source.dead_letter(messages[1:]) is None
    source.ack(messages[:1])
    source.close()
    lines = (tmp_path / "letters" / "a.log.letters.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["line"], first["offset"], first["record"], first["path"]) == (2, 5, "bad", str(path))
    assert second["record"] == "b\\xffd\n"
    assert "0xff" in second["reason"]


def test_without_a_place_for_letters_it_keeps_none(tmp_path):
    assert not FileSource(tmp_path).keeps_letters


# -- files that grow --------------------------------------------------------------------------------------------------


def test_what_is_added_is_read_when_its_line_is_complete(tmp_path, follow):
    path = tmp_path / "a.log"
    path.write_text("one\ntw")
    followed = follow(path)
    assert followed.look() == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\nfou")
    assert followed.look() == ["two", "three"]
    assert followed.look() == []
    with path.open("a") as file:
        file.write("r\n")
    assert followed.look() == ["four"]


def test_a_row_of_csv_is_read_when_it_is_complete(tmp_path, follow):
    path = tmp_path / "a.csv"
    path.write_text("a,")
    followed = follow(path, format="csv")
    assert followed.look() == []
    for text, rows in [
        ('b\n1,"2\n', []),
        ("3", []),
        ('"\n4,5', [{"a": "1", "b": "2\n3"}]),
        ("\n", [{"a": "4", "b": "5"}]),
    ]:
        with path.open("a") as file:
            file.write(text)
        assert followed.look() == rows


def test_from_the_end_on(tmp_path, follow):
    path = tmp_path / "a.log"
    path.write_text("x" * 100_000 + "\nold\nol")
    followed = follow(tmp_path, start="end")
    assert followed.look() == []
    with path.open("a") as file:
        file.write("d, but not complete\nnew\n")
    (tmp_path / "b.log").write_text("of a new file\n")
    assert followed.look() == ["old, but not complete", "new", "of a new file"]


def test_a_file_may_come_later_and_others_too(tmp_path, follow):
    followed = follow([tmp_path / "a.log", tmp_path / "logs" / "*.log"])
    assert followed.look() == []
    (tmp_path / "a.log").write_text("a\n")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "b.log").write_text("b\n")
    assert followed.look() == ["a", "b"]


def test_a_log_that_is_renamed_is_read_to_its_end_before_the_new_one(tmp_path, follow):
    path = tmp_path / "app.log"
    path.write_text("1\n2\n")
    followed = follow(path)
    assert followed.look() == ["1", "2"]
    writer = path.open("a")
    writer.write("3\n")
    path.rename(tmp_path / "app.log.1")
    path.write_text("5\n")
    writer.write("4\nunfinished")
    writer.close()
    got = followed.look()
    for _ in range(4):
        got += followed.look()
    assert [each for each in got if each != "5"] == ["3", "4", "unfinished"]
    assert got.index("3") < got.index("5")
    with path.open("a") as file:
        file.write("6\n")
    assert followed.look() == ["6"]
    assert len(followed.source._tails) == 1, "no books about the old one are left"


def test_a_renamed_log_that_is_meant_as_well_is_not_read_twice(tmp_path, follow):
    path = tmp_path / "app.log"
    path.write_text("1\n")
    followed = follow(f"{tmp_path}/app.log*")
    assert followed.look() == ["1"]
    for number in range(2, 5):
        for old in sorted(tmp_path.glob("app.log.*"), reverse=True):
            old.rename(tmp_path / f"app.log.{int(old.suffix[1:]) + 1}")
        path.rename(tmp_path / "app.log.1")
        path.write_text(f"{number}\n")
        assert followed.look() == [str(number)]


def test_a_log_that_is_cut_off_begins_again(tmp_path, follow):
    path = tmp_path / "app.log"
    path.write_text("1\n2\n3\n")
    followed = follow(path)
    assert followed.look() == ["1", "2", "3"]
    path.write_text("4\n")  # in place, shorter
    assert followed.look() == ["4"]
    path.write_text("5\n6\n7\n8\n")  # in place, and longer by the next look
    assert followed.look() == ["5", "6", "7", "8"]


def test_a_file_that_is_deleted_is_forgotten_and_may_come_again(tmp_path, follow):
    path = tmp_path / "app.log"
    path.write_text("1\n")
    followed = follow(path)
    assert followed.look() == ["1"]
    path.unlink()
    for _ in range(4):
        assert followed.look() == []
    assert not followed.source._tails
    path.write_text("2\n")
    assert followed.look() == ["2"]


def test_of_many_files_only_some_are_held_open(tmp_path, follow):
    for number in range(100):
        (tmp_path / f"{number:03}.log").write_text(f"{number}\n")
    followed = follow(tmp_path)
    assert followed.look(7) == [str(number) for number in range(100)]
    held = [tail for tail in followed.source._tails.values() if tail._file is not None]
    assert len(held) == 32
    for number in range(100):
        with (tmp_path / f"{number:03}.log").open("a") as file:
            file.write(f"more {number}\n")
    assert followed.look(7) == [f"more {number}" for number in range(100)]


def test_gzip_files_among_those_that_grow_are_read_once(tmp_path, follow):
    with gzip.open(tmp_path / "old.log.gz", "wt") as file:
        file.write("x" * 1000 + "\n")
    followed = follow(tmp_path)
    assert followed.look() == ["x" * 1000]
    assert followed.look() == []
    assert followed.look() == []


class Watched:
    """Stands for the library."""

    def __init__(self):
        self.change = threading.Semaphore(0)
        self.stopped = threading.Event()
        self.directories = None

    def watch(self, *directories, stop_event, **options):
        self.directories = directories
        while not stop_event.is_set():
            if self.change.acquire(timeout=0.01):
                yield {("added", "x")}
        self.stopped.set()


def test_the_library_tells_at_once(tmp_path, monkeypatch, clock):
    library = Watched()
    monkeypatch.setattr("importlib.import_module", lambda name: library)
    source = FileSource(f"{tmp_path}/*.log", watch=True, poll=3600, clock=clock)
    woken = threading.Event()
    source.wake = woken.set
    source.open()
    assert source.fetch(5) == []
    (tmp_path / "a.log").write_text("1\n")
    library.change.release()
    assert woken.wait(10)
    assert data(source.fetch(5)) == ["1"]
    assert library.directories == (tmp_path,)
    source.close()
    assert library.stopped.is_set()


def test_without_the_library_it_looks_by_time(tmp_path, monkeypatch, clock):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    source = FileSource(tmp_path, watch=True, poll=2, clock=clock)
    source.open()
    (tmp_path / "a.log").write_text("1\n")
    clock.now += 1
    assert source.fetch(5) == []
    clock.now += 1
    assert data(source.fetch(5)) == ["1"]
    assert source.poll == 2
    source.close()


@pytest.mark.slow
def test_the_real_library_tells_at_once(tmp_path):
    pytest.importorskip("watchfiles")
    source = FileSource(tmp_path, watch=True, poll=3600)
    woken = threading.Event()
    source.wake = woken.set
    source.open()
    for number in range(50):  # until the library has begun to look
        with (tmp_path / "a.log").open("a") as file:
            file.write(f"{number}\n")
        if woken.wait(0.2):
            break
    else:
        pytest.fail("nobody was woken")
    assert data(source.fetch(1)) == ["0"]
    source.close()


# -- checkpoints ------------------------------------------------------------------------------------------------------


def test_only_what_is_not_acknowledged_is_read_again(tmp_path):
    path, checkpoint = tmp_path / "a.log", tmp_path / "checkpoint"
    path.write_text("".join(f"{number}\n" for number in range(20)))
    source = FileSource(path, checkpoint=checkpoint)
    source.open()
    messages = source.fetch(12)
    source.ack([messages[number] for number in (0, 1, 3, 4, 7)])
    # no close: it was killed
    for tail in source._tails.values():
        tail.close()
    again = read_all(FileSource(path, checkpoint=checkpoint))
    assert data(again) == [str(number) for number in range(20) if number not in (0, 1, 3, 4, 7)]
    assert [each.metadata["line"] for each in again] == [int(each.data) + 1 for each in again]
    assert read_all(FileSource(path, checkpoint=checkpoint)) == []


def test_gaps_outlive_several_lives(tmp_path):
    path, checkpoint = tmp_path / "a.log", tmp_path / "checkpoint"
    path.write_text("".join(f"{number}\n" for number in range(10)))
    left = set(range(10))
    for number in (5, 1, 8, 0, 2, 9):
        source = FileSource(path, checkpoint=checkpoint)
        source.open()
        messages = source.fetch(20)
        assert {int(each.data) for each in messages} == left
        source.ack([each for each in messages if each.data == str(number)])
        left.discard(number)
        source.close()


def test_a_checkpoint_with_csv_and_gzip(tmp_path):
    path, checkpoint = tmp_path / "a.csv.gz", tmp_path / "checkpoint"
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["a", "b"], *([n, f"two\nlines {n}"] for n in range(10))])
    for number in range(0, 10, 2):
        source = FileSource(path, format="csv", checkpoint=checkpoint)
        source.open()
        messages = source.fetch(2)
        assert [each.data["a"] for each in messages] == [str(number), str(number + 1)]
        assert messages[0].metadata["line"] == 2 + 2 * number
        source.ack(messages)
        source.close()
    assert read_all(FileSource(path, format="csv", checkpoint=checkpoint)) == []


def test_a_log_that_was_renamed_while_nobody_looked_is_read_to_its_end(tmp_path, follow):
    path, checkpoint = tmp_path / "app.log", tmp_path / "checkpoint"
    path.write_text("1\n2\n")
    followed = follow(path, checkpoint=checkpoint)
    assert followed.look() == ["1", "2"]
    followed.source.close()
    with path.open("a") as file:
        file.write("3\n")
    path.rename(tmp_path / "app.log.1")
    path.write_text("4\n")
    followed = follow(path, checkpoint=checkpoint)
    assert followed.look() == ["3", "4"]
    followed.source.close()
    assert follow(path, checkpoint=checkpoint).look() == []


def test_another_file_at_the_same_path_is_read_from_its_beginning(tmp_path, follow):
    path, checkpoint = tmp_path / "app.log", tmp_path / "checkpoint"
    path.write_text("1\n2\n")
    followed = follow(path, checkpoint=checkpoint)
    assert followed.look() == ["1", "2"]
    followed.source.close()
    path.write_text("3\n4\n5\n")  # in place: the same inode
    assert follow(path, checkpoint=checkpoint).look() == ["3", "4", "5"]


def test_the_checkpoint_is_written_now_and_then_if_that_is_wanted(tmp_path, clock):
    path, checkpoint = tmp_path / "a.log", tmp_path / "checkpoint"
    path.write_text("".join(f"{number}\n" for number in range(10)))
    source = FileSource(path, checkpoint=checkpoint, commit_interval=60, clock=clock)
    source.open()
    source.ack(source.fetch(1))
    written = checkpoint.read_text()
    source.ack(source.fetch(1))
    assert checkpoint.read_text() == written
    clock.now += 60
    source.ack(source.fetch(1))
    assert checkpoint.read_text() != written
    source.ack(source.fetch(1))
    source.close()
    assert data(read_all(FileSource(path, checkpoint=checkpoint)))[0] == "4"


def test_a_checkpoint_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.log").write_text("")
    for text in ("", "{}", '{"files": [{"path": 1}]}'):
        (tmp_path / "checkpoint").write_text(text)
        with pytest.raises(ValueError, match="expected a checkpoint of headgate"):
            FileSource(tmp_path / "a.log", checkpoint=tmp_path / "checkpoint").open()


READER = """
import sys, time
from headgate.connectors.files import FileSource

directory, seed = sys.argv[1], int(sys.argv[2])
source = FileSource(directory + "/logs/*.log*", checkpoint=directory + "/checkpoint", watch="poll", poll=0.0)
source.open()
handled = open(directory + "/handled", "a")
kept = []
turn = seed
while True:
    messages = source.fetch(7)
    turn += 1
    for message in messages:
        handled.write(message.data + "\\n")
    handled.flush()
    kept += messages
    now = [each for index, each in enumerate(kept) if (index + turn) % 3]  # leave gaps
    for word in ("acks ", "acked "):
        for message in now:
            handled.write(word + message.data + "\\n")
        handled.flush()
        if word == "acks ":
            source.ack(now)
    kept = [each for index, each in enumerate(kept) if not (index + turn) % 3]
    if len(kept) > 20:
        source.nack(kept)
        kept = []
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_and_only_what_was_not_acknowledged_comes_again(tmp_path):
    """A reader is killed again and again, while its log grows and is rotated."""
    logs = tmp_path / "logs"
    logs.mkdir()
    handled = tmp_path / "handled"
    number = 0
    for life in range(12):
        if life and life % 3 == 0:
            for old in sorted(logs.glob("app.log.*"), reverse=True):
                old.rename(logs / f"app.log.{int(old.suffix[1:]) + 1}")
            (logs / "app.log").rename(logs / "app.log.1")
        with (logs / "app.log").open("a") as file:
            for _ in range(300):
                file.write(f"line {number}\n")
                number += 1
        reader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(READER), str(tmp_path), str(life)])
        size = handled.stat().st_size if life else 0
        wanted = size + 1000 * (life % 4 + 1)
        pause = threading.Event()
        for _ in range(1000):  # or it has nothing to do any more
            if handled.exists() and handled.stat().st_size >= wanted:
                break
            assert reader.poll() is None
            pause.wait(0.005)
        reader.send_signal(signal.SIGKILL)
        reader.wait()
    source = FileSource(f"{logs}/*.log*", checkpoint=tmp_path / "checkpoint")
    rest = data(read_all(source))
    lines = [each for each in handled.read_text().splitlines(keepends=True) if each.endswith("\n")]
    acks, acked = (
        {each[len(word) :].strip() for each in lines if each.startswith(word)} for word in ("acks ", "acked ")
    )
    lost = {f"line {each}" for each in range(number)} - acked - set(rest)
    assert lost <= acks, "something was lost"
    assert len(lost) <= 12 * 30, "more than what was being acknowledged when it was killed"
    assert len(rest) == len(set(rest))
    again = acked & set(rest)
    assert not again, "what was acknowledged, and said to be, came again"


@pytest.mark.slow
def test_a_huge_file_takes_no_more_memory_than_a_small_one(tmp_path):
    program = """
        import resource, sys
        from headgate.connectors.files import FileSource

        source = FileSource(sys.argv[1], format="jsonl", checkpoint=sys.argv[1] + ".checkpoint", commit_interval=1e9)
        source.open()
        count = 0
        stuck = source.fetch(1)  # never acknowledged: what comes after it must not pile up
        while messages := source.fetch(500):
            count += len(messages)
            source.ack(messages)
        source.close()
        print(count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """
    used = {}
    for lines in (1_000, 1_000_000):
        path = tmp_path / f"{lines}.jsonl"
        with path.open("w") as file:
            for start in range(0, lines, 1000):
                file.write("".join(f'{{"number": {n}, "text": "{"x" * 60}"}}\n' for n in range(start, start + 1000)))
        run = [sys.executable, "-c", textwrap.dedent(program), str(path)]
        count, kilobytes = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
        assert int(count) == lines - 1
        used[lines] = int(kilobytes)
    assert (tmp_path / "1000000.jsonl").stat().st_size > 80e6
    assert used[1_000_000] - used[1_000] < 4000, used
