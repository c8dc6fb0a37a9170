"""The delivery example: as a program, stopped again and again, and whether its check finds what is wrong."""

import asyncio
import re
import sqlite3
from contextlib import closing
from statistics import median

import pytest

from examples.delivery import chat, check, sink
from tests.running.delivery_storm import storm
from tests.running.helpers import app, ended


@pytest.mark.slow
def test_stopped_and_started_again_it_delivers_every_message_once_and_in_order():
    """A share of what ``python -m tests.running.delivery_storm --stops 50`` does."""
    result = storm(6, seed=1)
    assert not result.faults, str(result)
    assert result.delivered == result.written > 600
    assert set(result.exits) == {0}, "even the last run, which ends by itself"


@pytest.mark.slow
def test_it_delivers_what_was_put_and_checks_its_books(tmp_path):
    status, out, err = ended("-m", "examples.delivery", "--put", "1000", DELIVERY_FOLDER=str(tmp_path))
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "1,000 messages to be delivered"
    asked = re.fullmatch(r"the profile service was called (\d+) times, (\d) at once; it stands 4", lines[1])
    assert asked is not None
    assert 0 < int(asked[1]) < 100, "of 36 users many are looked up with one call, and remembered"
    assert 1 <= int(asked[2]) <= 4
    assert lines[2] == "1,000 messages written, 1,000 delivered, 0 to go, 0 dead letters"
    assert lines[3] == "1,000 acknowledged; 0 duplicates, 0 out of order, 0 lost"
    with closing(sink.Sink(tmp_path)) as target:
        places: dict[str, list[int]] = {team: [] for team in chat.TEAMS}
        for team, place in target.query("SELECT team, place FROM delivered"):
            places[team].append(place)
    # A conversation may have to wait for a look-up that is tried again; most of the few messages of the others do not.
    others = median(place for team, found in places.items() if team != "harbour" for place in found)
    assert others < median(places["harbour"]) / 2, "the harbour has put much before them"
    status, out, _ = ended("-m", "examples.delivery.check", "--all", DELIVERY_FOLDER=str(tmp_path))
    assert status == 0
    assert len(re.findall(r"^\w+-\d+ ", out, re.MULTILINE)) == len(check.check(tmp_path).conversations)


@pytest.mark.slow
def test_as_a_service_it_waits_for_messages_and_ends_when_it_is_told(tmp_path):
    with app("app", "--log-level", "error", module="examples.delivery", DELIVERY_FOLDER=str(tmp_path)) as program:
        put = ended("-m", "examples.delivery.put", "40", DELIVERY_FOLDER=str(tmp_path))
        assert put == (0, "40 messages are put\n", "")

        async def delivered():
            while check.check(tmp_path).total("delivered") < 40:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(delivered(), 20))
        program.send(15)
        assert program.end() == 0
        assert (program.out, program.err) == ("", "")
    assert check.check(tmp_path).ok


# -- its check finds what is wrong ------------------------------------------------------------------------------------


@pytest.fixture
def delivered(tmp_path):
    """What a run without faults leaves behind, made by hand: 60 messages, all delivered and acknowledged."""
    chat.write(60, seed=1, folder=tmp_path)
    queue = chat.inbox(tmp_path)
    queue.open()
    target = sink.Sink(tmp_path)
    while messages := queue.fetch(100):
        for message in messages:
            target.deliver(message.data, "text")
        queue.ack(messages)
    target.close()
    queue.close()
    assert check.check(tmp_path).ok
    return tmp_path


def change(folder, sql):
    with closing(sqlite3.connect(folder / sink.FILE)) as database, database:
        assert database.execute(sql).rowcount


TWICE = """INSERT INTO delivered (message, team, conversation, number, line, process)
    SELECT message, team, conversation, number, line, process FROM delivered LIMIT 1"""
LATE = """UPDATE delivered SET place = 1000 WHERE place = (SELECT max(a.place) FROM delivered a WHERE
    EXISTS (SELECT 1 FROM delivered b WHERE b.conversation = a.conversation AND b.number = a.number + 1)
    AND NOT EXISTS (SELECT 1 FROM delivered b WHERE b.conversation = a.conversation AND b.number = a.number + 2))"""


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        (TWICE, "1 duplicates, 0 out of order, 0 lost"),
        (LATE, "0 duplicates, 1 out of order, 0 lost"),
        ("DELETE FROM delivered WHERE place = 5", "0 duplicates, 0 out of order, 1 lost"),
        ("UPDATE delivered SET number = 999 WHERE place = 5", "0 duplicates, 0 out of order, 1 lost"),
    ],
)
def test_a_wrong_book_is_found(delivered, sql, fault):
    change(delivered, sql)
    report = check.check(delivered)
    assert not report.ok
    assert fault in check.text(report)
