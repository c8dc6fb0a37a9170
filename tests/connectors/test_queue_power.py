"""The power fails under a queue; see `tests.eventlog.power`."""

import random

import pytest

from headgate.connectors.sqlite import SQLiteQueue
from tests.eventlog.disk import NOTHING, Disk, Recorder, UnreachableError, library

NAME = "queue.db"


@pytest.fixture
def needs_sqlite():
    try:
        library()
    except UnreachableError as error:
        pytest.skip(str(error))


def test_what_another_one_has_not_synced_is_synced_before_it_is_said_to_be_there(needs_sqlite, tmp_path):
    """He may be killed before that: what is "taken" by his message has to be on the disk."""
    folder, disk = tmp_path / "one", Disk()
    folder.mkdir()
    with Recorder(folder, random.Random(1)) as recorder:
        normal = SQLiteQueue(str(folder / NAME))
        power = SQLiteQueue(str(folder / NAME), durability="power")
        assert power.put({"n": 0}) is not None
        assert normal.put({"n": 1}, dedupe="once") is not None
        assert power.put({"n": 1}, dedupe="once") is None
        done = len(recorder.ops)
        normal.close()
        power.close()
    for op in recorder.ops[:done]:
        disk.do(op)
    (tmp_path / "cut").mkdir()
    disk.leave(tmp_path / "cut", random.Random(1), NOTHING)
    queue = SQLiteQueue(str(tmp_path / "cut" / NAME))
    assert queue.counts().waiting == 2
    queue.close()
