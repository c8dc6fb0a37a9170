# mypy: disable-error-code="union-attr,misc,arg-type,index"
"""`StubSource` hands out what a test pushes, fails when it is told to, and notes everything."""

import pytest

from headgate.testing import StubSource


def data(messages):
    return [message.data for message in messages]


def test_it_notes_what_becomes_of_what_was_pushed():
    source = StubSource(1, 2)
    source.open()
    source.push(3, 4, 5, key="k")
    messages = source.fetch(10)
    assert data(messages) == [1, 2, 3, 4, 5]
    assert messages[2].key == "k"
    source.ack(messages[:1])
    source.nack(messages[1:2], delay=0.0, counted=False)
    source.discard(messages[2:3])
    source.dead_letter([messages[3].fail("bad")])
    source.extend(messages[4:], 30)
    assert source.fetched == [10]
    assert source.acked == [1]
    assert source.nacked == [(2, 0.0, False)]
    assert source.discarded == [3]
    assert source.lettered == [(4, "bad")]
    assert source.extended == [([5], 30)]
    assert data(source.fetch(10)) == [2]
    source.drain()
    source.close()
    assert source.life == ["open", "drain", "close"]


def test_it_fails_when_it_is_told_to():
    source = StubSource("a")
    source.fail_next_fetch()
    source.fail_next_fetch(ValueError("bad"), times=2)
    with pytest.raises(OSError, match="away"):
        source.fetch(1)
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            source.fetch(1)
    assert data(source.fetch(1)) == ["a"]
    assert source.fetched == [1, 1, 1, 1]


def test_it_ends_when_it_is_told_to():
    source = StubSource("a")
    assert data(source.fetch(2)) == ["a"]
    assert source.fetch(2) == []
    source.finish()
    assert source.fetch(2) is None


def test_one_that_does_not_redeliver():
    source = StubSource("a", redelivers=False, keeps_letters=False, lease=5)
    source.nack(source.fetch(1))
    assert source.fetch(1) == []
    assert source.nacked == [("a", 0.0, True)]
    assert (source.redelivers, source.keeps_letters, source.lease) == (False, False, 5)
