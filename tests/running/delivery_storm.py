"""The delivery example, stopped at random moments by SIGTERM and started again, while messages come in::

    python -m tests.running.delivery_storm --stops 50

After each stop the books are looked at: nothing is lost, every message that is acknowledged was delivered once and
every one that was delivered is acknowledged, in order within each conversation, and nothing stays leased. A last run
delivers what is left. What may be found is in `Result.faults`.
"""

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from examples.delivery.chat import inbox, write
from examples.delivery.check import check, text
from examples.delivery.sink import FILE
from tests.running.helpers import ROOT, poll

READY = 600
"""Messages that wait when a run begins: more than it delivers before its signal."""
PATIENCE = 60.0
SHUTDOWN = 10.0


@dataclass
class Result:
    stops: int = 0
    exits: dict[int, int] = field(default_factory=dict)
    idle: int = 0  # runs that were stopped before they had delivered anything
    slowest: float = 0.0
    written: int = 0
    delivered: int = 0
    last: str = ""
    faults: list[str] = field(default_factory=list)

    def __str__(self):
        exits = ", ".join(f"{code}: {count}" for code, count in sorted(self.exits.items()))
        lines = [
            f"{self.stops} times SIGTERM; exit status {exits}; {self.idle} before the first delivery",
            f"slowest exit after {self.slowest:.2f} s",
            self.last,
            *(f"FAULT {each}" for each in self.faults),
            f"{len(self.faults)} faults",
        ]
        return "\n".join(lines)


class Storm:
    def __init__(self, seed, folder):
        self.random = random.Random(seed)
        self.folder = Path(folder)
        self.log = self.folder / "log"
        self.result = Result()

    def environment(self):
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return {**os.environ, "DELIVERY_FOLDER": str(self.folder), "PYTHONPATH": path}

    def start(self, *command):
        with self.log.open("w") as log:
            return subprocess.Popen(
                [sys.executable, "-W", "error", "-m", *command],
                cwd=ROOT,
                env=self.environment(),
                stdout=log,
                stderr=log,
            )

    def service(self):
        options = ("--shutdown", str(SHUTDOWN), "--log-level", "error")
        return self.start("headgate", "run", "examples.delivery:app", *options)

    def fault(self, what):
        self.result.faults.append(f"after stop {self.result.stops}: {what}\n{self.log.read_text()}")

    def deliveries(self):
        with closing(sqlite3.connect(self.folder / FILE, timeout=20)) as sink:
            try:
                return sink.execute("SELECT count(*) FROM delivered").fetchone()[0]
            except sqlite3.OperationalError:  # it is not there yet
                return 0

    def end(self, process, since):
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait(PATIENCE)
            self.fault("it did not end")
        took = time.monotonic() - since
        self.result.exits[code] = self.result.exits.get(code, 0) + 1
        return code, took

    def look(self, *, finished=False):
        """Look at all books."""
        report = check(self.folder)
        if not report.ok:
            self.fault("the books are wrong:\n" + text(report))
        if report.queue.leased or report.queue.expired:
            self.fault(f"{report.queue.leased + report.queue.expired} messages are leased to a run that has ended")
        if finished and (report.queue.left or report.queue.dead or report.total("delivered") < report.total("written")):
            self.fault("not everything is delivered:\n" + text(report))
        return report

    def stop(self):
        """Run the service, and stop it at a random moment."""
        waiting = inbox(self.folder).counts().left
        write(max(100, READY - waiting), seed=self.random.randrange(10**6), folder=self.folder)
        before = self.deliveries()
        process = self.service()
        early = self.random.random() < 0.1
        if early:  # at any moment of the start
            time.sleep(self.random.uniform(0, 0.5))
        else:
            count = self.random.randint(1, 250)
            if self.random.random() < 0.5:  # messages come in while it works
                write(self.random.randint(1, 60), seed=self.random.randrange(10**6), folder=self.folder)
            poll(lambda: process.poll() is not None or self.deliveries() >= before + count, what=f"{count} deliveries")
            time.sleep(self.random.uniform(0, 0.01))
        since = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code, took = self.end(process, since)
        self.result.slowest = max(self.result.slowest, took)
        self.result.stops += 1
        delivered = self.deliveries() - before
        self.result.idle += not delivered
        before_it_ran = code in (-signal.SIGTERM, 128 + signal.SIGTERM) and not delivered
        if code != 0 and not (early and before_it_ran):
            self.fault(f"exit status {code}")
        self.look()

    def finish(self):
        """Let a last run deliver what is left."""
        process = self.start("examples.delivery", "--put", "0")
        code, _ = self.end(process, time.monotonic())
        if code:
            self.fault(f"exit status {code} of the last run")
        report = self.look(finished=True)
        self.result.written, self.result.delivered = report.total("written"), report.total("delivered")
        self.result.last = text(report)


def storm(stops, *, seed=0, tell=lambda done: None):
    """Run one, and return what has come of it."""
    with tempfile.TemporaryDirectory() as folder:
        it = Storm(seed, folder)
        for done in range(1, stops + 1):
            it.stop()
            tell(done)
        it.finish()
        return it.result


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.running.delivery_storm", description=__doc__.splitlines()[0])
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = storm(options.stops, seed=options.seed, tell=tell)
    print(result)
    return 1 if result.faults else 0


def tell(done):
    if done % 10 == 0:
        print(f"{done} stops", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
