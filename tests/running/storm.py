"""Signals at random moments against a real process that counts what it does::

    python -m tests.running.storm --sigterm 200 --double 100

Each process goes on with the file that the one before has left. After each the books are looked at; a last run finishes
everything. What may be found is in `Result.faults`.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.running.counting import connect
from tests.running.helpers import ROOT, poll

SHAPES = ("async", "thread", "inline")
JOBS = 2_000
"""Jobs that lie ready when a process starts: more than it does before its signal."""
SHUTDOWN = 10.0
PATIENCE = 60.0


@dataclass
class Result:
    signals: int = 0
    doubles: int = 0
    exits: dict[int, int] = field(default_factory=dict)
    began: int = 0
    acked: int = 0
    again: int = 0  # events that were begun more than once
    slowest: float = 0.0  # seconds from the (second) signal to the exit
    faults: list[str] = field(default_factory=list)

    def __str__(self):
        exits = ", ".join(f"{code}: {count}" for code, count in sorted(self.exits.items()))
        lines = [
            f"{self.signals} times SIGTERM, {self.doubles} times SIGTERM twice; exit status {exits}",
            f"{self.began} events begun, {self.acked} acknowledged, {self.again} begun more than once",
            f"slowest exit after {self.slowest:.2f} s",
            *(f"FAULT {each}" for each in self.faults),
            f"{len(self.faults)} faults",
        ]
        return "\n".join(lines)


class Storm:
    def __init__(self, seed, folder):
        self.random = random.Random(seed)
        self.file = str(Path(folder, "counting.sqlite"))
        self.db = connect(self.file)
        self.log = Path(folder, "log")
        self.run = 0
        self.result = Result()

    def start(self, shape, *, stubborn=0, seconds=0.002):
        self.run += 1
        environment = {
            **os.environ,
            "COUNTING_FILE": self.file,
            "COUNTING_RUN": str(self.run),
            "COUNTING_SHAPE": shape,
            "COUNTING_STUBBORN": str(stubborn),
            "COUNTING_SECONDS": str(seconds),
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        }
        command = [sys.executable, "-W", "error", "-m", "headgate", "run", "tests.running.counting:app"]
        with self.log.open("w") as log:
            return subprocess.Popen(
                [*command, "--shutdown", str(SHUTDOWN)], cwd=ROOT, env=environment, stdout=log, stderr=log
            )

    def fill(self):
        ready = self.value("SELECT count(*) FROM jobs WHERE state != 'done'")
        self.db.executemany("INSERT INTO jobs (id) VALUES (NULL)", [() for _ in range(JOBS - ready)])

    def value(self, query, *args):
        return self.db.execute(query, args).fetchone()[0]

    def begun(self):
        return self.value("SELECT count(*) FROM began WHERE run = ?", self.run)

    def fault(self, text):
        self.result.faults.append(f"run {self.run}: {text}\n{self.log.read_text()}")

    def wait_until_begun(self, process, count):
        def condition():
            return process.poll() is not None or self.begun() >= count

        poll(condition, what=f"{count} events to be begun")

    def end(self, process, since, limit):
        """Wait for the end of a process, and note how it has come."""
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait(PATIENCE)
            self.fault("it did not end")
        took = time.monotonic() - since
        self.result.slowest = max(self.result.slowest, took)
        self.result.exits[code] = self.result.exits.get(code, 0) + 1
        if took > limit:
            self.fault(f"it took {took:.1f} s to end")
        return code

    def check(self, *, orderly):
        """Look at the books of this run."""
        unfinished = self.value(
            "SELECT count(*) FROM acked WHERE NOT EXISTS "
            "(SELECT 1 FROM finished WHERE finished.job = acked.job AND finished.run = acked.run)"
        )
        if unfinished:
            self.fault(f"{unfinished} events are acknowledged and not finished")
        open_ = self.value(
            "SELECT count(*) FROM began WHERE run = ? AND NOT EXISTS "
            "(SELECT 1 FROM acked WHERE acked.job = began.job AND acked.run = began.run)",
            self.run,
        )
        if orderly and open_:
            self.fault(f"{open_} events were begun, and are neither finished nor acknowledged after an orderly end")

    def single(self):
        """One SIGTERM."""
        self.fill()
        process = self.start(self.random.choice(SHAPES))
        early = self.random.random() < 0.1
        if early:  # at any moment of the start
            time.sleep(self.random.uniform(0, 0.4))
        else:
            self.wait_until_begun(process, self.random.randint(1, 60))
            time.sleep(self.random.uniform(0, 0.01))
        since = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = self.end(process, since, SHUTDOWN)
        self.result.signals += 1
        before_it_ran = code in (-signal.SIGTERM, 128 + signal.SIGTERM) and not self.begun()
        if code != 0 and not (early and before_it_ran):
            self.fault(f"exit status {code} after a SIGTERM")
        self.check(orderly=True)

    def double(self):
        """Two SIGTERM, the second one soon after."""
        self.fill()
        at, is_stubborn = self.random.randint(0, 20), self.random.random() < 0.4
        ready = "SELECT id FROM jobs WHERE state != 'done' ORDER BY id LIMIT 1 OFFSET ?"
        stubborn = self.value(ready, at) if is_stubborn else 0
        shape = self.random.choice(SHAPES)
        process = self.start(shape, stubborn=stubborn)
        if stubborn:
            reached = "SELECT count(*) FROM began WHERE run = ? AND job = ?"
            poll(lambda: process.poll() is not None or self.value(reached, self.run, stubborn), what="the long event")
        else:
            self.wait_until_begun(process, self.random.randint(1, 40))
        process.send_signal(signal.SIGTERM)
        if stubborn and shape == "inline":
            time.sleep(0.2)  # its loop is blocked, so it says nothing
        else:  # the system keeps two signals of one kind as one, until a process has taken note of the first
            poll(lambda: process.poll() is not None or "SIGTERM" in self.log.read_text(), what="the first signal")
        time.sleep(self.random.uniform(0, 0.03))
        since = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code = self.end(process, since, 6.0)
        self.result.doubles += 1
        if code not in ({143} if stubborn else {0, 143}):
            self.fault(f"exit status {code} after a second SIGTERM")
        self.check(orderly=code == 0)

    def finish(self):
        """Let a last run do what is left: nothing may be lost."""
        self.db.execute(
            "DELETE FROM jobs WHERE id > (SELECT max(job) + 100 FROM began) AND state = 'new'"
        )  # enough is left
        process = self.start("async", seconds=0)
        code = self.end(process, time.monotonic(), PATIENCE)
        if code:
            self.fault(f"exit status {code} of the last run")
        lost = self.value("SELECT count(*) FROM jobs WHERE id NOT IN (SELECT job FROM acked)")
        if lost:
            self.fault(f"{lost} events are lost")
        self.check(orderly=True)
        self.result.began = self.value("SELECT count(*) FROM began")
        self.result.acked = self.value("SELECT count(DISTINCT job) FROM acked")
        self.result.again = self.result.began - self.value("SELECT count(DISTINCT job) FROM began")
        self.db.close()


def storm(sigterm, double, *, seed=0, tell=lambda done: None):
    """Run one, and return what has come of it."""
    with tempfile.TemporaryDirectory() as folder:
        it = Storm(seed, folder)
        moves = [it.single] * sigterm + [it.double] * double
        it.random.shuffle(moves)
        for done, move in enumerate(moves, 1):
            move()
            tell(done)
        it.finish()
        return it.result


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.running.storm", description=__doc__.splitlines()[0])
    parser.add_argument("--sigterm", type=int, default=200)
    parser.add_argument("--double", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = storm(options.sigterm, options.double, seed=options.seed, tell=tell)
    print(result)
    return 1 if result.faults else 0


def tell(done):
    if done % 20 == 0:
        print(f"{done} processes", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
