"""What was written and may have to be written again: no byte is lost or comes twice, wherever a connection is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.runtime.spool import Spool

pieces = st.lists(st.binary(min_size=1, max_size=20), max_size=10)


@given(pieces, st.data())
def test_the_stream_comes_whole_through_any_number_of_connections(sent, data):
    spool, got, waiting = Spool(), bytearray(), list(sent)
    for _ in range(data.draw(st.integers(0, 6))):
        for _ in range(data.draw(st.integers(0, len(waiting)))):  # a connection takes some pieces, not all to their end
            piece = waiting.pop(0)
            size = data.draw(st.integers(1, len(piece)))
            spool.wrote(memoryview(piece)[:size])
            if size < len(piece):
                waiting.insert(0, piece[size:])
        stream = b"".join(sent)[: spool.written]
        assert len(spool) == spool.written - spool.confirmed
        got += stream[len(got) : data.draw(st.integers(len(got), len(stream)))]  # the rest was under way, and is gone
        if data.draw(st.booleans()):
            spool.confirm(data.draw(st.integers(0, len(got))))
        waiting[:0] = map(bytes, spool.rewind(len(got)))
        assert spool.written == len(got)
        assert len(spool) == 0
    assert bytes(got) + b"".join(waiting) == b"".join(sent)


@given(pieces, st.data())
def test_only_what_is_not_confirmed_is_kept(sent, data):
    spool = Spool()
    for piece in sent:
        spool.wrote(piece)
    total = data.draw(st.integers(0, spool.written))
    spool.confirm(total)
    assert len(spool) == len(b"".join(sent)) - total
    assert b"".join(map(bytes, spool.rewind(total))) == b"".join(sent)[total:]


def test_what_was_confirmed_before_is_no_news():
    spool = Spool()
    spool.wrote(b"abcdef")
    spool.confirm(4)
    spool.confirm(2)
    assert spool.confirmed == 4
    assert b"".join(map(bytes, spool.rewind(4))) == b"ef"


@pytest.mark.parametrize("total", [3, 7])
def test_another_stream_is_found_out(total):
    """Its other side says what cannot be: it has less than it has confirmed, or more than was written."""
    spool = Spool()
    spool.wrote(b"abcdef")
    spool.confirm(4)
    with pytest.raises(ValueError, match=f"got: {total}"):
        spool.rewind(total)
