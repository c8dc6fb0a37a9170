# mypy: disable-error-code="var-annotated,no-untyped-call"
"""kill -9 at random moments against real workers of one `SQLiteQueue`::

    python -m tests.connectors.queue_storm --kills 200 --workers 4

The workers use the source's methods as they are. Each writes down what it does, with one write each that outlives it;
the parent puts messages, kills workers and starts new ones, stops some for longer than a lease, and in the end looks at
the books:

* nothing is lost: each message is acknowledged once or is a dead letter;
* each hand-out after the first has its reason: the worker before was killed while it had the message, gave it back, or
  was told that its lease was over; and it came after that lease was over, or after the message was given back;
* of an ordered queue, none is handed out while an earlier one of its key has not ended, unless the same worker has it;
* the dead letters are exactly those that had to be: messages that kill every worker, that are refused, and that fail
  each time, each with the reason and the number of deliveries.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from headgate.connectors.sqlite import SQLiteQueue
from tests.running.helpers import ROOT

LEASE = 1.0
DELIVERIES = 6
BATCH = 20
PATIENCE = 120.0
SLACK = 0.002  # Unix time is no monotonic clock


def options(ordered, fair):
    return {"lease": LEASE, "max_deliveries": DELIVERIES, "ordered": ordered, "fair": fair, "patience": 30.0}


# -- a worker ---------------------------------------------------------------------------------------------------------


def work(path, log, seed, ordered, fair):
    """Consume until killed."""
    chance = random.Random(seed)
    queue = SQLiteQueue(path, **options(ordered, fair))
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(what, messages, **more):
        entry = {"what": what, "receipts": [message.receipt for message in messages], "at": time.time(), **more}
        os.write(file, json.dumps(entry).encode() + b"\n")

    queue.open()
    note("open", [])
    while True:
        before = time.time()
        messages = queue.fetch(chance.randint(1, BATCH))
        if not messages:
            time.sleep(0.01)
            continue
        note("fetch", messages, since=before, keys=[message.key for message in messages])
        done, failed, refused = [], [], []
        for message in messages:
            kind = message.data["kind"]
            if kind == "deadly":
                note("suicide", [message])
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "refused":
                refused.append(message.fail(ValueError("refused")))
            elif kind == "failing" or (kind == "flaky" and chance.random() < 0.5 and message.deliveries < 3):
                failed.append(message.fail(RuntimeError("failed")))
            else:
                done.append(message)
        time.sleep(chance.random() * 0.02)
        if chance.random() < 0.05:
            lost = queue.extend(messages, LEASE * 2) or []
            note("extend", [message for message in messages if message not in lost])
        for what, chosen, call in (
            ("ack", done, queue.ack),
            ("nack", failed, lambda chosen: queue.nack(chosen, 0.05)),
            ("letter", refused, queue.dead_letter),
        ):
            if chosen:
                before = time.time()
                lost = call(chosen) or []
                note(what, [message for message in chosen if message not in lost], since=before)
                if lost:
                    note("lost", lost)


# -- the parent -------------------------------------------------------------------------------------------------------


@dataclass
class Result:
    messages: int = 0
    kills: int = 0
    stops: int = 0  # for longer than a lease
    suicides: int = 0
    acknowledged: int = 0
    unsure: int = 0  # gone from the queue, and killed before it could write that down
    again: int = 0  # hand-outs after the first
    held: int = 0  # messages that killed workers had
    lost_leases: int = 0
    letters: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    def __str__(self):
        lines = [
            f"{self.kills} kills of workers that had {self.held} messages, {self.suicides} by deadly ones",
            f"{self.messages} messages: {self.acknowledged} acknowledged, {self.letters} dead; {self.seconds:.1f} s",
            f"{self.stops} workers were stopped for longer than a lease; {self.lost_leases} leases ended by that",
            f"{self.unsure} were acknowledged by a worker that was killed before it had written that down",
            f"{self.again} hand-outs after the first",
            *(f"FAULT {each}" for each in self.faults),
            f"{len(self.faults)} faults",
        ]
        return "\n".join(lines)


class Storm:
    """One queue, its workers, and what they wrote down."""

    module = "tests.connectors.queue_storm"
    """What a worker runs."""

    def __init__(self, folder, *, seed, workers, ordered, fair):
        self.random = random.Random(seed)
        self.folder = Path(folder)
        self.path = str(self.folder / "queue.db")
        self.flags = (ordered, fair)
        self.queue = SQLiteQueue(self.path, **options(ordered, fair))
        self.queue.setup()
        self.kinds = {}
        self.keys = {}
        self.logs = []
        self.result = Result()
        self.stopped = None  # a worker, and until when
        self.workers = [self.start() for _ in range(workers)]

    def start(self):
        log = self.folder / f"{len(self.logs)}.log"
        self.logs.append(log)
        command = [
            "-m",
            self.module,
            "--worker",
            self.path,
            str(log),
            *map(str, map(int, self.flags)),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        process = subprocess.Popen(
            [sys.executable, *command, "--seed", str(self.random.random())], cwd=ROOT, env=environment
        )
        return process, log

    def put(self, count, kind="good"):
        draw = self.random
        keys = [draw.choice([None, *range(20)]) for _ in range(count)]
        its = iter(keys)
        ids = self.queue.put_many(
            [{"kind": kind}] * count,
            key=lambda _: next(its),
            user=lambda _: draw.randrange(5),
            priority=draw.randrange(2),
        )
        for number, key in zip(ids, keys, strict=True):
            self.kinds[number] = kind
            self.keys[number] = key

    def may_die(self, log):
        """Whether a worker may be killed that has begun to work."""
        return True

    def replace_the_dead(self):
        for index, (process, _) in enumerate(self.workers):
            if process.poll() is not None:
                if process.returncode != -signal.SIGKILL:
                    self.result.faults.append(f"a worker ended with status {process.returncode}")
                self.workers[index] = self.start()

    def run(self, kills):
        begun = time.monotonic()
        specials = ["deadly", "refused", "failing", "flaky"]
        each = max(1, kills // 50)
        while self.result.kills < kills:
            if self.queue.counts().left < 500:
                self.put(200)
                if self.result.kills % each == 0 and (kind := specials[self.result.kills // each % 4]):
                    self.put(1, kind)
            time.sleep(self.random.random() * 0.05)
            self.replace_the_dead()
            process, log = self.random.choice(self.workers)
            if log.exists() and log.stat().st_size and self.may_die(log):  # it is at work
                if self.hold_up(process):
                    continue
                process.kill()
                process.wait()
                self.result.kills += 1
                self.replace_the_dead()
        self.finish()
        self.result.seconds = time.monotonic() - begun
        self.look()

    def hold_up(self, process):
        """Stop a worker now and then, and let it go on when its leases are over; tell whether this one is stopped."""
        now = time.monotonic()
        if self.stopped is None:
            if process.poll() is None and self.random.random() < 0.3:
                process.send_signal(signal.SIGSTOP)
                self.stopped = process, now + LEASE * 1.5
                self.result.stops += 1
        elif now > self.stopped[1]:
            self.stopped[0].send_signal(signal.SIGCONT)
            self.stopped = None
        return self.stopped is not None and self.stopped[0] is process

    def finish(self):
        if self.stopped is not None:
            self.stopped[0].send_signal(signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE
        while self.queue.counts().left:
            if time.monotonic() > deadline:
                self.result.faults.append(f"not empty after {PATIENCE} s: {self.queue.counts()}")
                break
            self.replace_the_dead()
            time.sleep(0.05)
        time.sleep(0.2)  # for what is acknowledged and not yet written down
        for process, _ in self.workers:
            process.kill()
            process.wait()

    # -- the books ----------------------------------------------------------------------------------------------------

    def look(self):
        result = self.result
        entries = []
        for log in self.logs:
            lines = log.read_bytes().split(b"\n") if log.exists() else []
            entries += [(log.name, json.loads(line)) for line in lines if line]
        entries.sort(key=lambda entry: entry[1]["at"])
        hands = {}  # id -> [(token, since, at)]
        ended = {}  # (id, token) -> (what, since)
        until = {}
        for _, entry in entries:
            what, at = entry["what"], entry["at"]
            result.suicides += what == "suicide"
            for receipt in map(tuple, entry["receipts"]):
                if what == "fetch":
                    hands.setdefault(receipt[0], []).append((receipt[1], entry["since"], at))
                    until[receipt] = entry["since"] + LEASE
                elif what == "extend":
                    until[receipt] = entry.get("since", at) + LEASE
                elif what in ("ack", "nack", "letter", "lost"):
                    if ended.get(receipt, ("",))[0] in ("ack", "nack", "letter"):
                        result.faults.append(f"{receipt} ended twice: {ended[receipt][0]}, {what}")
                    ended[receipt] = (what, entry.get("since", at))
        result.messages = len(self.kinds)
        result.lost_leases = sum(what == "lost" for what, _ in ended.values())
        self.look_at_hands(hands, ended, until)
        self.look_at_ends(hands, ended)
        if self.flags[0]:
            self.look_at_order(hands, ended)

    def look_at_order(self, hands, ended):
        over = {letter.id: letter.ended_at for letter in self.queue.dead_letters(1_000_000)}
        over.update({number: since for (number, _), (what, since) in ended.items() if what in ("ack", "letter")})
        for key in range(20):
            its = sorted(number for number, its in self.keys.items() if its == key and number in over)
            for index, number in enumerate(its):
                for token, _, at in hands.get(number, ()):
                    for earlier in its[:index]:
                        if over[earlier] > at + SLACK and not self.has(hands[earlier], token, at):
                            self.result.faults.append(f"message {number} was handed out before {earlier} had ended")

    def has(self, hands, token, at):
        """Whether the worker of that token is who had the message last at that time."""
        before = [each for each, _, then in hands if then <= at + SLACK]
        return bool(before) and before[-1] >> 32 == token >> 32

    def look_at_hands(self, hands, ended, until):
        result = self.result
        for number, its in hands.items():
            its.sort(key=lambda hand: hand[1])  # who was stopped may have written its hand-out down much later
            if number not in self.kinds:
                result.faults.append(f"message {number} was never put")
            for (token, _, _), (later, _, at) in pairwise(its):
                result.again += 1
                what, when = ended.get((number, token), (None, 0.0))
                if token == later:
                    result.faults.append(f"message {number}: token {token} twice")
                if what in ("ack", "letter"):
                    result.faults.append(f"message {number} was handed out again after it had ended by {what}")
                if what == "nack" and at + SLACK < when:
                    result.faults.append(f"message {number} was handed out before it was given back")
                if what in (None, "lost") and at + SLACK < until[number, token]:
                    result.faults.append(f"message {number} was handed out while it was leased")
            result.held += sum((number, token) not in ended for token, _, _ in its)

    def look_at_ends(self, hands, ended):
        result = self.result
        ends = Counter(number for (number, _), (what, _) in ended.items() if what in ("ack", "letter"))
        letters = {letter.id: letter for letter in self.queue.dead_letters(1_000_000)}
        result.letters = len(letters)
        for number, kind in self.kinds.items():
            letter = letters.get(number)
            if kind in ("deadly", "refused", "failing"):
                if letter is None:
                    result.faults.append(f"message {number} ({kind}) is no dead letter")
                    continue
                expected = {"deadly": "its lease was over", "refused": "refused", "failing": "failed"}[kind]
                if expected not in (letter.reason or "") and "its lease was over" not in (letter.reason or ""):
                    result.faults.append(f"message {number} ({kind}) says {letter.reason!r}")
                if kind != "refused" and letter.deliveries != DELIVERIES:
                    result.faults.append(f"message {number} ({kind}) was handed out {letter.deliveries} times")
                continue
            if letter is not None:
                result.faults.append(f"message {number} ({kind}) is a dead letter: {letter.reason}")
            elif number not in hands:
                result.faults.append(f"message {number} is lost: nobody has ever had it")
            elif ends[number] > 1:
                result.faults.append(f"message {number} was acknowledged {ends[number]} times")
            elif not ends[number]:  # the last who had it was killed between its commit and its note
                result.unsure += 1
                if (number, hands[number][-1][0]) in ended:
                    result.faults.append(f"message {number} is lost: {ended[number, hands[number][-1][0]]}")
            result.acknowledged += letter is None


def storm(kills, *, workers=4, seed=0, ordered=False, fair=False, kind=Storm):
    with tempfile.TemporaryDirectory() as folder:
        made = kind(folder, seed=seed, workers=workers, ordered=ordered, fair=fair)
        try:
            made.run(kills)
        finally:
            for process, _ in made.workers:
                process.kill()
                process.wait()
            made.queue.close()
        return made.result


def main(kind=Storm, work=work):
    parser = argparse.ArgumentParser(description="kill -9 against workers of an SQLiteQueue")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--ordered", action="store_true")
    parser.add_argument("--fair", action="store_true")
    parser.add_argument("--worker", nargs=4, metavar=("FILE", "LOG", "ORDERED", "FAIR"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        path, log, ordered, fair = given.worker
        work(path, log, given.seed, ordered == "1", fair == "1")
    result = storm(
        given.kills, workers=given.workers, seed=given.seed, ordered=given.ordered, fair=given.fair, kind=kind
    )
    print(result)
    return 1 if result.faults else 0


if __name__ == "__main__":
    sys.exit(main())
