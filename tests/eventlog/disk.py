"""A disk on record: what SQLite asks of it, and what may be left on it when the power fails.

`Recorder` stands between the SQLite that Python uses and its files, as a VFS (SQLite's layer of files) that passes
everything on and notes it. `Disk` is given what was noted, one by one, and says what may be left at any moment:

* What a file was asked to hold before its last sync is there.
* Of the writes since then, any may be there and any may be missing: a disk and the system's cache reorder as they like.
  (Orders need no model of their own. A write that comes late is one that is missing at the cut, and of two to the same
  place the later one hides the other.) Any may be there in part: in some sectors of 512 bytes and not in others, or up
  to some byte, or from some byte on; or its place holds zeros or anything at all, where room was made and the data had
  not come. Bytes outside of a write are not touched: that is what SQLite takes for granted of all disks
  (``SQLITE_POWERSAFE_OVERWRITE``).
* A truncation since the last sync may have happened or not.
* Names belong to the folder: that a file was made or deleted is sure once the folder was synced, which the sync of the
  file alone does not do. Until then each name stands for any file that it has stood for since the folder's last sync.

The ``-shm`` file is memory that processes share, and no part of what is durable; SQLite makes it anew from the log. It
does not come by here, as SQLite opens it by other means.
"""

import contextlib
import ctypes
import functools
import itertools
import sqlite3
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

SECTOR = 512
IO_ERROR = 10  # SQLITE_IOERR

OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
RANDOMNESS = CFUNCTYPE(c_int, c_void_p, c_int, c_void_p)
SET_CALL = CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)
GET_CALL = CFUNCTYPE(c_void_p, c_void_p, c_char_p)
OPEN_FOLDER = CFUNCTYPE(c_int, c_char_p, c_void_p)
WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class Vfs(Structure):
    """``sqlite3_vfs``, version 3."""

    _fields_ = (
        ("version", c_int),
        *((name, c_int) for name in ("file_size", "longest_path")),
        *((name, c_void_p) for name in ("next", "name", "data")),
        ("open", OPEN),
        ("delete", DELETE),
        *((name, c_void_p) for name in ("access", "full_path", "dl_open", "dl_error", "dl_sym", "dl_close")),
        ("randomness", RANDOMNESS),
        *((name, c_void_p) for name in ("sleep", "time", "last_error", "time_int")),
        ("set_call", SET_CALL),
        ("get_call", GET_CALL),
        ("next_call", c_void_p),
    )


class Methods(Structure):
    """``sqlite3_io_methods``, version 3."""

    _fields_ = (
        ("version", c_int),
        *((name, c_void_p) for name in ("close", "read")),
        ("write", WRITE),
        ("truncate", TRUNCATE),
        ("sync", SYNC),
        *((name, c_void_p) for name in ("size", "lock", "unlock", "reserved", "control", "sector", "characteristics")),
        *((name, c_void_p) for name in ("shm_map", "shm_lock", "shm_barrier", "shm_unmap", "fetch", "unfetch")),
    )


class File(Structure):
    """The part of ``sqlite3_file`` that all have."""

    _fields_ = (("methods", POINTER(Methods)),)


class UnreachableError(Exception):
    """SQLite's files cannot be recorded here; it says why."""


class Op(NamedTuple):
    """Something that a disk is asked for.

    Attributes:
        kind: ``"create"``, ``"delete"``, ``"write"``, ``"truncate"``, ``"sync"``, or ``"sync folder"``.
        file: The file's name in the folder.
        at: Where a write begins; how long a file is after a truncation.
        data: What is written.
    """

    kind: str
    file: str
    at: int = 0
    data: bytes = b""


@functools.cache
def library() -> ctypes.CDLL:
    """Return the SQLite library that Python's own module uses.

    Raises:
        UnreachableError: Its functions cannot be called from here.
    """
    import _sqlite3  # noqa: PLC0415 (only here)

    try:
        # What is looked up in a library that is loaded already is looked up in those that it needs, too.
        found = ctypes.CDLL(getattr(_sqlite3, "__file__", None))
        found.sqlite3_sourceid.restype = c_char_p
        source = found.sqlite3_sourceid().decode()
    except (AttributeError, OSError) as error:
        raise UnreachableError(f"Python's SQLite is linked in such a way that it cannot be reached: {error}") from error
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        (used,) = db.execute("SELECT sqlite_source_id()").fetchone()
    if source != used:
        raise UnreachableError(f"the SQLite that can be reached ({source}) is not the one that Python uses ({used})")
    found.sqlite3_vfs_find.restype = POINTER(Vfs)
    vfs = found.sqlite3_vfs_find(None)
    if not vfs or vfs.contents.version < 3 or not vfs.contents.get_call(vfs, b"openDirectory"):
        raise UnreachableError("the files of this SQLite are not handled by its VFS for Unix")
    return found


_kept: list[Any] = []  # what SQLite may call as long as a connection is open that was made during a recording


class Recorder:
    """Notes what SQLite asks of the files in a folder, for the time of a ``with``.

    It is the default VFS of the process then. Connections that are made meanwhile have to be closed before it ends.

    Args:
        folder: The folder.
        chance: Where SQLite gets its random numbers from, so that the same seed gives the same bytes.
        ops: The list to put it on. Default: a new one.
    """

    def __init__(self, folder, chance, ops=None):
        self.ops: list[Op] = [] if ops is None else ops
        self._folder = Path(folder).resolve()
        self._chance = chance
        self._names: dict[int, str] = {}  # by the address of SQLite's file
        self._methods: dict[int, Any] = {}  # ours, by the address of those that they stand before
        self._failed: BaseException | None = None

    def __enter__(self):
        self._library = library()
        self._former = self._library.sqlite3_vfs_find(None)
        vfs = self._original = self._former.contents
        ours = self._ours = Vfs.from_buffer_copy(vfs)
        self._name = ctypes.create_string_buffer(b"headgate-recorder")
        ours.name = ctypes.addressof(self._name)
        ours.open = self._called(OPEN, self._open)
        ours.delete = self._called(DELETE, self._delete)
        ours.randomness = self._called(RANDOMNESS, self._randomness)
        # SQLite syncs folders by itself, within xSync or xDelete; this is the call that shows it.
        self._open_folder_before = vfs.get_call(self._former, b"openDirectory")
        self._open_folder = self._called(OPEN_FOLDER, functools.partial(self._sync_folder, self._open_folder_before))
        vfs.set_call(self._former, b"openDirectory", ctypes.cast(self._open_folder, c_void_p))
        _kept.extend((self._name, ours, self._open_folder))
        self._library.sqlite3_vfs_register(ctypes.byref(ours), 1)
        self._library.sqlite3_randomness(0, None)  # it begins anew, with ours
        return self

    def __exit__(self, kind, error, traceback):
        self._library.sqlite3_vfs_register(self._former, 1)
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._ours))
        self._original.set_call(self._former, b"openDirectory", self._open_folder_before)
        self._library.sqlite3_randomness(0, None)
        if self._failed is not None:
            raise self._failed

    def _called(self, prototype, function):
        """Make a function for C. What it raises is raised in the end, as nobody could catch it there."""

        def call(*arguments):
            try:
                return function(*arguments)
            except BaseException as error:
                self._failed = error
                return IO_ERROR

        return prototype(call)

    def _in_folder(self, path):
        path = Path(path.decode())
        return path.name if path.parent == self._folder else None

    def _note(self, result, *op):
        if result:
            raise OSError(f"SQLite's own VFS has failed with {result} at {op[:3]}")
        self.ops.append(Op(*op))
        return result

    # -- the VFS -------------------------------------------------------------------------------------------------------

    def _open(self, _, path, file, flags, flags_out):
        name = self._in_folder(ctypes.string_at(path)) if path else None
        new = name is not None and not (self._folder / name).exists()
        result = self._original.open(self._former, path, file, flags, flags_out)
        if result or name is None:
            return result
        opened = ctypes.cast(file, POINTER(File)).contents
        opened.methods = self._before(opened.methods)
        self._names[file] = name
        if new:
            self._note(result, "create", name)
        return result

    def _before(self, methods):
        """Return methods of ours that stand before those of a file."""
        original = methods.contents
        address = ctypes.addressof(original)
        if address not in self._methods:
            ours = Methods.from_buffer_copy(original)
            ours.write = self._called(WRITE, functools.partial(self._write, original.write))
            ours.truncate = self._called(TRUNCATE, functools.partial(self._truncate, original.truncate))
            ours.sync = self._called(SYNC, functools.partial(self._sync, original.sync))
            _kept.append(ours)
            self._methods[address] = ctypes.pointer(ours)
        return self._methods[address]

    def _write(self, original, file, data, size, at):
        return self._note(
            original(file, data, size, at), "write", self._names[file], at, ctypes.string_at(data, size)
        )  # fmt: skip

    def _truncate(self, original, file, size):
        return self._note(original(file, size), "truncate", self._names[file], size)

    def _sync(self, original, file, flags):
        return self._note(original(file, flags), "sync", self._names[file])

    def _delete(self, _, path, sync_folder):
        name = self._in_folder(path)
        if name is not None and (self._folder / name).exists():
            self._note(0, "delete", name)  # before the call, as a sync of the folder within it covers it
        return self._original.delete(self._former, path, sync_folder)

    def _sync_folder(self, before, path, descriptor):
        result = OPEN_FOLDER(before)(path, descriptor)  # it is given a file, and opens the folder of it
        if self._in_folder(path) is not None:
            self._note(result, "sync folder", "")
        return result

    def _randomness(self, _, size, out):
        ctypes.memmove(out, self._chance.randbytes(size), size)
        return size


class Inode:
    """A file, whatever it is called: what is on the disk for sure, and what was asked for since."""

    def __init__(self):
        self.sure = bytearray()
        self.since: list[Op] = []

    def sync(self):
        for op in self.since:
            if op.kind == "write":
                put(self.sure, op.at, op.data)
            else:
                resize(self.sure, op.at)
        self.since.clear()

    def left(self, chance, whole, lost):
        """Return what may be there after a cut: each write is with some probability there, or lost, or else damaged."""
        image = bytearray(self.sure)
        for op in self.since:
            fate = chance.random()
            if op.kind == "truncate":
                if fate < whole or (fate >= whole + lost and chance.random() < 0.5):
                    resize(image, op.at)
            elif fate < whole:
                put(image, op.at, op.data)
            elif fate >= whole + lost:
                for at, data in damaged(op, chance):
                    put(image, at, data)
        return image


class Disk:
    """What is on a disk for sure, and what is not; it begins as an empty folder."""

    def __init__(self):
        self._names: dict[str, list[Inode | None]] = {}  # what each may stand for; the last is what it stands for now

    def do(self, op):
        """Do what is asked for."""
        if op.kind == "sync folder":
            for those in self._names.values():
                del those[:-1]
            return
        those = self._names.setdefault(op.file, [None])
        if op.kind in ("create", "delete"):
            those.append(Inode() if op.kind == "create" else None)
            return
        inode = those[-1]
        assert inode is not None, f"{op.kind} of {op.file}, which is not there"
        if op.kind == "sync":
            inode.sync()
        else:
            inode.since.append(op)

    def left(self, chance, mood=None):
        """Return the files that a cut may leave: their bytes, by name.

        Args:
            chance: Draws what is left.
            mood: One of `MOODS`. Default: it is drawn.
        """
        whole, lost = mood or chance.choice(MOODS)
        files = {}
        for name, those in self._names.items():
            inode = those[-1] if chance.random() < whole else chance.choice(those)
            if inode is not None:
                files[name] = inode.left(chance, whole, lost)
        return files

    def leave(self, folder, chance, mood=None):
        """Write the files that a cut may leave into a folder."""
        for name, data in self.left(chance, mood).items():
            Path(folder, name).write_bytes(data)


NOTHING, EVERYTHING = (0.0, 1.0), (1.0, 0.0)
MOODS = (NOTHING, EVERYTHING, (0.0, 0.0), (0.5, 0.5), (0.5, 0.25), (0.9, 0.05), (0.95, 0.05), (0.1, 0.85))
"""How likely it is that a write is there, and that it is lost. Were both even, "all but one" would never come."""


def put(image, at, data):
    if at > len(image):
        image.extend(bytes(at - len(image)))
    image[at : at + len(data)] = data


def resize(image, size):
    del image[size:]
    image.extend(bytes(size - len(image)))


def damaged(op, chance):
    """Return what is left of a write that was under way: pieces, each with its place."""
    size = len(op.data)
    how = chance.choice(("sectors", "beginning", "end", "zeros", "garbage"))
    if how == "sectors":
        edges = [op.at, *range(op.at - op.at % SECTOR + SECTOR, op.at + size, SECTOR), op.at + size]
        sectors = itertools.pairwise(edges)
        return [(a, op.data[a - op.at : b - op.at]) for a, b in sectors if chance.random() < 0.5]
    if how == "beginning":
        return [(op.at, op.data[: chance.randrange(size)])]
    if how == "end":
        gone = chance.randrange(1, size + 1)
        return [(op.at + gone, op.data[gone:])]
    return [(op.at, bytes(size) if how == "zeros" else chance.randbytes(size))]
