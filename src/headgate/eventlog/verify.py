"""Verifying a log: every row is summed again, and every damage is named by its position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from headgate.errors import DamagedLogError, EventLogError, OptionError
from headgate.eventlog.archive import Archived, discarded
from headgate.eventlog.checks import LAST, check_log
from headgate.eventlog.record import ORIGIN, Row, digest_of
from headgate.eventlog.store import Query, Statement

if TYPE_CHECKING:
    from headgate.eventlog.log import EventLog

_PAGE: Final = 1000
_MOST: Final = 1000  # damages that are told one by one


class Damage(NamedTuple):
    """One thing that is wrong.

    Attributes:
        position: Where; None: in the file, not in an event.
        what: What is the matter.
    """

    position: int | None
    what: str

    def __str__(self) -> str:
        """Show it in one line."""
        return self.what if self.position is None else f"position {self.position}: {self.what}"


class Verified(NamedTuple):
    """What `verify` has found.

    Attributes:
        events: How many events were looked at.
        position: The position of the last one.
        digest: Its digest: keep it elsewhere, and give it to a later `verify` as ``anchor``.
        damages: What is wrong.
    """

    events: int
    position: int
    digest: bytes
    damages: list[Damage]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damages


async def verify(log: EventLog, *, anchor: tuple[int, bytes] | None = None) -> Verified:
    """Look at every event of a log, archived ones included, and at what is kept with them.

    Found are: anything in an event that was changed, events that were removed or put in, in the middle by the chain of
    digests, at the end by checkpoints that are ahead of it or by an ``anchor``; rows that cannot be read; and what the
    database itself finds wrong with its file.

    Args:
        log: The log.
        anchor: The position and digest that an earlier `verify` has returned, kept where nobody could change both.
    """
    check_log("verify", log)
    if anchor is not None and not _is_anchor(anchor):
        expected = f"a position and a digest of {len(ORIGIN)} bytes, or None"
        raise OptionError("verify", "anchor", expected, anchor)
    log.archives.forget()  # what is in memory may be sound when the file is not
    furthest = await _furthest(log)  # before the events: those go on meanwhile, and checkpoints with them
    damages: list[Damage] = []
    gone, before = await discarded(log)
    events, last = 0, gone
    anchored = anchor is None or anchor[0] == 0 or anchor == (gone, before)
    start: int | None = gone + 1
    while start is not None:
        rows, start = await _rows(log, start)
        for row in rows:
            if isinstance(row, Damage):
                damages.append(row)
                continue
            if isinstance(row, bytes):  # the digest at the end of an archive that cannot be read
                before = row
                continue
            events += 1
            last = row[0]
            what, before = _checked(before, row, follows=not (damages and damages[-1].position == last - 1))
            if what is not None:
                damages.append(Damage(last, what))
            if anchor is not None and last == anchor[0]:
                anchored = True
                if row[15] != anchor[1]:
                    damages.append(Damage(last, "its digest is not that of the anchor"))
        if len(damages) > _MOST:
            damages.append(Damage(None, "there is more; this is where the look ended"))
            break
    else:  # all was seen
        if not anchored and anchor is not None:
            why = "was discarded" if anchor[0] <= gone else "is missing"
            damages.append(Damage(anchor[0], f"the event of the anchor {why}"))
        damages += _ahead(furthest, last)
    if (await discarded(log))[0] != gone:  # meanwhile: what was missed by that is no damage
        return await verify(log, anchor=anchor)
    damages += [Damage(None, f"the database says: {each}") for each in await log.store.check()]
    return Verified(events, last, before, damages)


def _is_anchor(given: Any) -> bool:
    if not isinstance(given, tuple) or len(given) != 2:  # noqa: PLR2004 (position and digest)
        return False
    position, digest = given
    of_log = type(position) is int and 0 <= position <= LAST
    return of_log and isinstance(digest, bytes) and len(digest) == len(ORIGIN)


def _checked(before: bytes, row: Row, *, follows: bool) -> tuple[str | None, bytes]:
    """Return what is wrong with a row, and the digest that the next one follows."""
    if row[15] is None:
        return "it was not written by Headgate: it has no digest", b""
    if not isinstance(row[15], bytes):
        return "its digest is damaged", b""
    if not _fits(row):
        return "a column of it holds what cannot be there", row[15]
    digest = digest_of(before, row)
    if digest == row[15]:
        return None, digest
    # What comes next is judged by the digest that stands here: one damage is told once.
    what = "its digest is wrong: it was changed, or what comes before it was removed"
    return (what if follows else None), row[15]


def _fits(row: Row) -> bool:
    """Whether all columns hold what Headgate writes there; the sum alone does not tell nothing from an empty text."""
    if not all(type(row[index]) is int for index in (0, 2, 4, 6)) or type(row[7]) not in (int, type(None)):
        return False
    if not all(type(row[index]) is str for index in (1, 3, 13)):
        return False
    if not all(row[index] is None or (row[index] and type(row[index]) is str) for index in (8, 9, 11, 12, 14)):
        return False
    return all(type(each) is bytes and len(each) == len(ORIGIN) for each in (row[5], row[10] or ORIGIN)) and (
        row[10] is None or bool(row[10])
    )


async def _rows(log: EventLog, start: int) -> tuple[list[Row | Damage | bytes], int | None]:
    """Read a page, and say where to go on; None: this was the end, whatever has come since.

    Where a page cannot be read, it is each row that can be, and a damage for each that cannot.
    """
    try:
        rows: list[Row] = await log.rows(Query(start=start), None, _PAGE)
    except DamagedLogError:
        pass
    else:
        return list(rows), rows[-1][0] + 1 if len(rows) == _PAGE else None
    for each in await log.archives.known():
        if each.last >= start:
            return await _of_archive(log, each, start)
    found: list[Row | Damage | bytes] = []
    end = start + _PAGE
    for position in range(start, end):
        try:
            some = await log.rows(Query(start=position, until=position), None, 1)
        except EventLogError as error:
            found.append(Damage(position, f"it cannot be read ({error.why})"))
        else:
            found += some
    if all(isinstance(each, Damage) for each in found):
        return [Damage(start, "nothing from here on can be read")], None
    return found, end


async def _of_archive(log: EventLog, archived: Archived, start: int) -> tuple[list[Row | Damage | bytes], int]:
    """Read a page of one archive; if that is impossible, go on behind it, with the digest that was noted at its end."""
    try:
        rows = await log.rows(Query(start=start, until=archived.last), None, _PAGE)
    except DamagedLogError as error:
        (noted,) = await log.store.transact(
            [Statement("SELECT digest FROM ~archives WHERE first = ?", (archived.first,))]
        )
        which = f"events {archived.first} to {archived.last} cannot be read: {error}"
        return [Damage(max(start, archived.first), which), bytes(noted[0][0])], archived.last + 1
    return list(rows), rows[-1][0] + 1 if rows else archived.last + 1


async def _furthest(log: EventLog) -> tuple[str, int] | Damage | None:
    """Find who has seen most."""
    try:
        sql = "SELECT name, position FROM ~checkpoints ORDER BY position DESC LIMIT 1"
        (rows,) = await log.store.transact([Statement(sql)])
    except EventLogError as error:
        return Damage(None, f"the checkpoints cannot be read ({error.why})")
    return (rows[0][0], rows[0][1]) if rows else None


def _ahead(furthest: tuple[str, int] | Damage | None, last: int) -> list[Damage]:
    """Tell if somebody has seen more than there is."""
    if isinstance(furthest, Damage):
        return [furthest]
    if furthest is None or furthest[1] <= last:
        return []
    name, position = furthest
    return [Damage(last + 1, f"checkpoint {name!r} is at position {position}: events at the end are missing")]


def as_json(found: Verified) -> dict[str, Any]:
    """Return what was found in a form for programs."""
    return {
        "ok": found.ok,
        "events": found.events,
        "position": found.position,
        "digest": found.digest.hex(),
        "damages": [{"position": each.position, "what": each.what} for each in found.damages],
    }
