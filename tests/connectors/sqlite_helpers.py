"""A clock that tests set, and queues of one file that go by it."""

import pytest

from headgate.connectors.sqlite import SQLiteQueue


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    made = []

    def opened(**options):
        queue = SQLiteQueue(tmp_path / "queue.db", **{"clock": clock, **options})
        queue.open()
        made.append(queue)
        return queue

    yield opened
    for queue in made:
        queue.close()


def data(messages):
    return [message.data for message in messages]
