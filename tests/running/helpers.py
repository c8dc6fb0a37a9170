"""Real processes, and waiting for what they say."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds after which something is stuck; nothing comes near it."""


def poll(condition, seconds=PATIENCE, what="a condition"):
    """Wait until something is so, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.002)
    return value


async def poll_async(condition, seconds=PATIENCE, what="a condition"):
    """The same on an event loop."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.sleep(0.002)
    return value


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


class Program:
    """A process that runs; what it says is in `out` and `err`."""

    def __init__(self, *command, before=(), cwd=ROOT, **more):
        self._folder = tempfile.TemporaryDirectory()
        self._out = Path(self._folder.name, "out")
        self._err = Path(self._folder.name, "err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-W", "error", *command],
                cwd=cwd,
                env=environment(**more),
                stdout=out,
                stderr=err,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()

    @property
    def out(self):
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self):
        return self._err.read_text(encoding="utf-8")

    def wait_for(self, text):
        """Wait until it has said something, to stdout or stderr."""

        def said():
            assert self.process.poll() is None or text in self.out + self.err, self.out + self.err
            return text in self.out + self.err

        poll(said, what=f"{text!r}, after: {self.out}{self.err}")

    def send(self, signal):
        self.process.send_signal(signal)

    def end(self):
        """Wait for its end and return the exit status."""
        return self.process.wait(PATIENCE)


def app(name, *options, module="tests.running.apps", **more):
    """Run an app by the command line."""
    return Program("-m", "headgate", "run", f"{module}:{name}", *options, **more)


def ended(*command, **more):
    """Run a command to its end; return its status, what it printed, and what it said to stderr."""
    with Program(*command, **more) as program:
        code = program.end()
        return code, program.out, program.err
