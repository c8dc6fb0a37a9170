# mypy: disable-error-code="union-attr,var-annotated,no-untyped-call"
"""`SQLiteQueue` with several real processes."""

import json
import os
import sqlite3
import subprocess
import sys

import pytest

from headgate.connectors.sqlite import SQLiteQueue
from tests.connectors.queue_storm import storm
from tests.running.helpers import PATIENCE, ROOT, environment

pytestmark = pytest.mark.slow

HEAD = "import json, os, sys, time\nfrom headgate.connectors.sqlite import SQLiteQueue\npath = sys.argv[1]\n"


def start(code, *args):
    command = [sys.executable, "-W", "error", "-c", HEAD + code, *map(str, args)]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)


def outputs(processes):
    found = []
    for process in processes:
        out, _ = process.communicate(timeout=6 * PATIENCE)
        assert process.returncode == 0
        found.append(json.loads(out))
    return found


def test_eight_processes_may_open_a_new_file_at_once(tmp_path):
    code = "q = SQLiteQueue(path, queue='q'); q.open(); print(json.dumps(q.put(int(sys.argv[2]))))"
    ids = outputs([start(code, tmp_path / "queue.db", number) for number in range(8)])
    assert sorted(ids) == list(range(1, 9))
    queue = SQLiteQueue(tmp_path / "queue.db", queue="q")
    assert sorted(message.data for message in queue.fetch(20)) == list(range(8))
    assert queue.queues() == ["q"]
    queue.close()


@pytest.mark.parametrize("options", ["", "ordered=True", "fair=True", "ordered=True, per_key=5, fair=True"])
def test_processes_that_put_and_take_at_once_share_the_messages(tmp_path, options):
    put = "q = SQLiteQueue(path)\nfor n in range(300): q.put([sys.argv[2], n], key=n % 7, user=n % 3)\nprint(1)"
    take = (
        f"q = SQLiteQueue(path, lease=600, {options}); q.open(); got = []; quiet = 0\n"
        "while quiet < 400:\n"
        "    messages = q.fetch(7); got += [(m.data, m.key) for m in messages]; assert not q.ack(messages)\n"
        "    quiet = 0 if messages else quiet + 1; time.sleep(0 if messages else 0.005)\n"
        "print(json.dumps(got))"
    )
    path = tmp_path / "queue.db"
    SQLiteQueue(path).setup()
    takers = [start(take, path) for _ in range(3)]
    putters = [start(put, path, name) for name in "ab"]
    outputs(putters)
    got = [item for each in outputs(takers) for item in each]
    assert sorted(data for data, _ in got) == sorted([name, n] for name in "ab" for n in range(300))


def test_what_another_process_puts_is_noticed_by_looking(tmp_path):
    queue = SQLiteQueue(tmp_path / "queue.db")
    queue.open()
    assert queue.fetch(1) == queue.fetch(1) == []
    outputs([start("print(SQLiteQueue(path).put('hello'))", tmp_path / "queue.db")])
    assert [message.data for message in queue.fetch(1)] == ["hello"]
    queue.close()


def test_what_was_put_outlives_a_kill(tmp_path):
    code = "q = SQLiteQueue(path)\nfor n in range(10**9): print(q.put(n), flush=True)"
    process = start(code, tmp_path / "queue.db")
    lines = [process.stdout.readline() for _ in range(200)]
    process.kill()
    out, _ = process.communicate()
    last = int((lines + out.split("\n")[:-1])[-1])
    queue = SQLiteQueue(tmp_path / "queue.db")
    assert queue.counts().waiting >= last
    assert queue.get(last).data == last - 1
    queue.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_a_connection_of_its_own(tmp_path):
    code = (
        "q = SQLiteQueue(path); q.put('parent'); parent = q._database.connection\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    q.put('child'); assert q._database.connection is not parent; os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "q.put('parent again'); print(json.dumps([m.data for m in q.fetch(5)]))"
    )
    assert outputs([start(code, tmp_path / "queue.db")]) == [["parent", "child", "parent again"]]


def test_a_transaction_of_the_user_and_other_processes(tmp_path):
    """Whoever writes waits for a transaction that is open, and not longer than it is."""
    queue = SQLiteQueue(tmp_path / "queue.db")
    queue.setup()
    db = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    process = start("print('[', flush=True); print(SQLiteQueue(path).put('other'), ']')", tmp_path / "queue.db")
    assert process.stdout.readline() == "[\n"
    queue.put("mine", connection=db)
    db.execute("COMMIT")
    db.close()
    out, _ = process.communicate(timeout=PATIENCE)
    assert out == "2 ]\n"
    assert [message.data for message in queue.fetch(5)] == ["mine", "other"]
    queue.close()


@pytest.mark.parametrize("mode", [{}, {"ordered": True, "fair": True}], ids=["plain", "ordered and fair"])
def test_a_small_storm(mode):
    result = storm(8, workers=3, seed=5, **mode)
    assert not result.faults, str(result)
    assert result.kills == 8
    assert result.letters >= 1
