"""A PostgreSQL server of the tests' own: started from the machine's packages, on a free port, with data in a folder."""

import atexit
import functools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

DEADLINE = 60


def binaries():
    """The folder of the newest server that is installed, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    there = shutil.which("initdb")
    return Path(there).parent if there else None


class Server:
    """A running server."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = binaries()
        self.before: list[str] = []
        if os.getuid() == 0:  # the server refuses to run as root
            user = pwd.getpwnam("postgres" if _exists("postgres") else "nobody")
            self.before = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            os.chown(folder, user.pw_uid, user.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        data = f"{folder}/data"
        self.run("initdb", "--pgdata", data, "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8")
        self.start()

    def start(self):
        settings = f"-c listen_addresses=127.0.0.1 -p {self.port} -c unix_socket_directories={self.folder} -c fsync=off"
        self.control("start", "-o", settings, "-l", f"{self.folder}/log")

    def control(self, *what):
        self.run("pg_ctl", "--pgdata", f"{self.folder}/data", "-w", *what)

    def stop(self):
        self.control("stop", "-m", "immediate")

    def run(self, program, *arguments):
        subprocess.run(
            [*self.before, str(self.bin / program), *arguments],
            check=True,
            timeout=DEADLINE,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def url(self, database="postgres"):
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def database(self):
        """A new database; its address."""
        name = f"t{uuid.uuid4().hex}"
        self.run("createdb", "--host=127.0.0.1", f"--port={self.port}", "--username=postgres", name)
        return self.url(name)


def _exists(user):
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


@functools.cache
def server():
    """The one server of a test run; it stops with it."""
    if binaries() is None:
        pytest.skip("there is no PostgreSQL server on this machine (on Debian: apt-get install postgresql)")
    folder = tempfile.mkdtemp(prefix="headgate-pg-")
    running = Server(folder)

    def end():
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return running
