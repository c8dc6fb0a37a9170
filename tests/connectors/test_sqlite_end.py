# mypy: disable-error-code="arg-type,misc"
"""When a queue that ends when it is empty says so, and when it wakes its pipeline."""

import pytest

from headgate.connectors.sqlite import SQLiteQueue


@pytest.mark.parametrize("ordered", [False, True])
def test_an_empty_queue_says_its_end_as_often_as_it_is_asked(tmp_path, ordered):
    queue = SQLiteQueue(tmp_path / "queue.sqlite", stop_when_empty=True, ordered=ordered)
    queue.put("only", key="k")
    queue.open()
    messages = queue.fetch(5)
    assert queue.fetch(5) == []  # it is out
    queue.ack(messages)
    assert [queue.fetch(5), queue.fetch(5), queue.fetch(5)] == [None, None, None]
    queue.close()


def test_an_acknowledgement_wakes_who_may_have_the_next_one_of_the_key(tmp_path):
    queue = SQLiteQueue(tmp_path / "queue.sqlite", ordered=True)
    wakes = []
    queue.wake = lambda: wakes.append("wake")
    queue.put_many([1, 2], key="k")
    queue.open()
    (first,) = queue.fetch(5)
    assert queue.fetch(5) == []
    wakes.clear()
    queue.ack([first])
    assert wakes
    (second,) = queue.fetch(5)
    assert second.data == 2
    queue.close()
