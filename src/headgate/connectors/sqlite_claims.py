"""How messages are claimed from the file of `SQLiteQueue`, and how claims end.

A plain claim is one statement. A fair one first goes round the users for candidates, an ordered one looks at the keys
of its candidates; both are one transaction. What an ordered claim finds not to be had is put BEHIND, so that no later
claim looks at it again before its key is free: a message is passed over once, however long a stuck key's queue is.

A message whose lease was over is suspect: it may have killed who had it, or only have been in the same batch as the one
that did. It is handed out alone. When that has happened to it twice, it is handed out to a consumer that has nothing
else under way, which gets nothing else before it has ended or has lived for a whole lease: so the culprit takes nobody
with it when it becomes a dead letter, also where a consumer handles many at a time.
"""

# ruff: noqa: S608 (statements are made of constants of this module)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from headgate.connectors.sqlite_database import DEAD, DELAYED, READY, Database
from headgate.errors import StoreError

BITS: Final = 32
"""A token is the number of the worker and, in this many bits, the number of its claim."""

LOOKED_AT: Final = 5_000
"""How many messages that are not to be had one claim passes over at most, so that nobody waits long for the file."""

FEW: Final = 10
"""How many messages are looked at where some are suspect: one of these is often all that can be handed out."""

PROMOTED: Final = 1_000
"""How many messages that are due one claim makes ready at most."""

NO_BOUND: Final = 2**62
_FAR: Final = 1e9

_RETURNING: Final = "RETURNING -priority, id, key, user, deliveries, deadline, metadata, body"

_CLAIM: Final = f"""UPDATE headgate_messages SET state = 2, due = ?, claim = ?, deliveries = deliveries + 1
    WHERE id IN (SELECT id FROM headgate_messages INDEXED BY headgate_ready
                 WHERE queue = ? AND state = 0 ORDER BY priority DESC, id LIMIT ?) {_RETURNING}"""
_CLAIM_THESE: Final = f"""UPDATE headgate_messages SET state = 2, due = ?, claim = ?, deliveries = deliveries + 1
    WHERE id IN (SELECT value FROM json_each(?)) {_RETURNING}"""
_CANDIDATES: Final = """SELECT id, key, user FROM headgate_messages INDEXED BY headgate_ready
    WHERE queue = ? AND state = 0 ORDER BY priority DESC, id LIMIT ?"""

_NEXT_DUE: Final = """SELECT
    (SELECT due FROM headgate_messages INDEXED BY headgate_delayed WHERE queue = ?1 AND state = 1 ORDER BY due LIMIT 1),
    (SELECT due FROM headgate_messages INDEXED BY headgate_leased WHERE queue = ?1 AND state = 2 ORDER BY due LIMIT 1),
    (SELECT ordered FROM headgate_queues WHERE id = ?1),
    EXISTS (SELECT 1 FROM headgate_messages INDEXED BY headgate_suspect
            WHERE queue = ?1 AND suspect > 0 AND state = 0),
    EXISTS (SELECT 1 FROM headgate_messages INDEXED BY headgate_ready WHERE queue = ?1 AND state = 0)"""
_SUSPECTS: Final = """SELECT id, suspect FROM headgate_messages
    WHERE id IN (SELECT value FROM json_each(?)) AND suspect > 0"""
_PROMOTE: Final = """UPDATE headgate_messages SET state = 0, due = NULL
    WHERE id IN (SELECT id FROM headgate_messages INDEXED BY headgate_delayed
                 WHERE queue = ? AND state = 1 AND due <= ? ORDER BY due LIMIT ?) RETURNING key"""
_RECLAIM: Final = """UPDATE headgate_messages SET due = NULL, claim = NULL, suspect = suspect + 1,
    state = CASE WHEN deliveries >= ?4 THEN 4 ELSE 0 END,
    ended_at = CASE WHEN deliveries >= ?4 THEN ?2 END,
    reason = CASE WHEN deliveries >= ?4 THEN
        'its lease was over ' || deliveries || ' time(s): whoever had it died, or was too slow'
        || coalesce('; before that: ' || reason, '') ELSE reason END
    WHERE id IN (SELECT id FROM headgate_messages INDEXED BY headgate_leased
                 WHERE queue = ?1 AND state = 2 AND due <= ?2 ORDER BY due LIMIT ?3)
    RETURNING state, key"""

# An ordered queue's own index tells all about one key. $Q: the queue.
_ORDER: Final = "FROM headgate_messages INDEXED BY headgate_order_$Q WHERE queue = $Q AND key IS NOT NULL AND state < 4"
_KEY: Final = f"""SELECT
    (SELECT claim {_ORDER} AND state = 2 AND key = ?1 LIMIT 1),
    (SELECT min(id) {_ORDER} AND state = 1 AND key = ?1),
    (SELECT min(id) {_ORDER} AND state = 3 AND key = ?1),
    (SELECT min(id) {_ORDER} AND state = 0 AND key = ?1)"""
_HELD: Final = f"SELECT count(*) FROM (SELECT 1 {_ORDER} AND state = 2 AND key = ? LIMIT ?)"
_FOLLOWER: Final = f"SELECT min(id) {_ORDER} AND state = 0 AND key = ? AND id > ?"
_RELEASE: Final = f"""UPDATE headgate_messages SET state = 0 WHERE id IN (
    SELECT id {_ORDER} AND state = 3 AND key = ?1
    AND id < coalesce((SELECT min(id) {_ORDER} AND state = 1 AND key = ?1), {NO_BOUND})
    AND NOT EXISTS (SELECT 1 {_ORDER} AND state = 2 AND key = ?1) ORDER BY id LIMIT ?2)"""
_ANY_BEHIND: Final = "SELECT 1 FROM headgate_messages INDEXED BY headgate_behind WHERE queue = ? AND state = 3 LIMIT 1"

# A fair queue's own index has its users one behind the other.
_FAIR: Final = "FROM headgate_messages INDEXED BY headgate_fair_$Q WHERE queue = $Q AND state = 0"
_USERS: Final = f"""WITH RECURSIVE round (user) AS (
    SELECT (SELECT user {_FAIR} AND user > ?1 ORDER BY user LIMIT 1)
    UNION ALL
    SELECT (SELECT user {_FAIR} AND user > round.user ORDER BY user LIMIT 1) FROM round WHERE round.user IS NOT NULL
    LIMIT ?2) SELECT user FROM round WHERE user IS NOT NULL"""
_NOBODYS: Final = f"SELECT 1 {_FAIR} AND user IS NULL LIMIT 1"
_OF_USER: Final = f"SELECT id, key, user {_FAIR} AND user IS ? ORDER BY priority DESC, id LIMIT ?"
_SET_TURN: Final = "UPDATE headgate_queues SET turn = ? WHERE id = ?"
_NOBODY: Final = -(2**63)
"""Stands in the file for a turn of what is nobody's. It comes before all users, and none may be called that."""
_PUT_BEHIND: Final = "UPDATE headgate_messages SET state = 3 WHERE id = ?"

_THESE: Final = "id IN (SELECT value FROM json_each(?)) AND claim = ? AND state = 2"
_FORGET: Final = f"DELETE FROM headgate_messages WHERE {_THESE} RETURNING id, claim, key"
_FORGET_ONE: Final = "DELETE FROM headgate_messages WHERE id = ? AND claim = ? AND state = 2"
_EXTEND: Final = f"UPDATE headgate_messages SET due = ? WHERE {_THESE} RETURNING id"
_END: Final = """UPDATE headgate_messages
    SET state = ?, due = NULL, claim = NULL, ended_at = ?, reason = ?, traceback = ?
    WHERE id = ? AND claim = ? AND state = 2 RETURNING key"""
_GIVE_BACK: Final = """UPDATE headgate_messages SET claim = NULL, suspect = 0, deliveries = deliveries - ?1,
    state = CASE WHEN ?1 = 0 AND deliveries >= ?2 THEN 4 ELSE ?3 END,
    due = CASE WHEN ?1 = 0 AND deliveries >= ?2 THEN NULL ELSE ?4 END,
    ended_at = CASE WHEN ?1 = 0 AND deliveries >= ?2 THEN ?5 END,
    reason = CASE WHEN ?1 = 0 AND deliveries >= ?2 AND coalesce(?6, reason) IS NULL
        THEN 'it was handed out ' || deliveries || ' time(s), and given back each time' ELSE coalesce(?6, reason) END,
    traceback = coalesce(?7, traceback)
    WHERE id = ?8 AND claim = ?9 AND state = 2 RETURNING key, state"""

Receipt = tuple[int, int]
"""Of a message that was claimed: its id, and the token of the claim."""

Reason = tuple[str | None, str | None]
"""Why a message has failed, in one line and in full."""


Candidate = tuple[int, Any, Any]
"""Id, key and user of a message that is ready."""

Slot = tuple[int, Any]
"""The id of a message to be claimed, and whose turn it has."""


class Claims:
    """The claims of one worker on one queue.

    Args:
        database: The file.
        queue: The queue's number in it.
        worker: The worker's number, which no other one ever has.
        per_key: Of an ordered queue, how many messages of one key this worker may have at a time; None: not ordered.
        fair: Whether users take turns.
        max_deliveries: How often a message is handed out at most.
    """

    def __init__(
        self,
        database: Database,
        queue: int,
        worker: int,
        *,
        per_key: int | None,
        fair: bool,
        max_deliveries: int | None,
    ) -> None:
        """Begin with the first claim."""
        self.database = database
        self.queue = queue
        self.reclaimed = 0
        self.expired_dead = 0
        self.more = False
        self.alone = False  # what was claimed last is to be handled with nothing beside it
        self.held_back = False  # nothing was, as the consumer has something else under way
        self._busy = False
        self._ordered = per_key is not None
        self._per_key = per_key or 1
        self._fair = fair
        self._limit = NO_BOUND if max_deliveries is None else max_deliveries
        self._first_token = worker << BITS
        self._number = 0
        self._batch = 1
        number = str(queue)
        self._key_sql, self._held_sql, self._follower_sql, self._release_sql = (
            sql.replace("$Q", number) for sql in (_KEY, _HELD, _FOLLOWER, _RELEASE)
        )
        self._users_sql, self._nobodys_sql, self._of_user_sql = (
            sql.replace("$Q", number) for sql in (_USERS, _NOBODYS, _OF_USER)
        )

    # -- claiming -----------------------------------------------------------------------------------------------------

    def claim(self, count: int, now: float, until: float, *, busy: bool = False) -> tuple[int, list[Any]]:
        """Lease up to ``count`` messages.

        Args:
            count: How many.
            now: Unix time.
            until: When the lease is over.
            busy: The consumer has messages under way.

        Returns:
            The token, and rows of: -priority, id, key, user, deliveries, deadline, metadata, body.
        """
        self._batch = count
        self._busy = busy
        self.more = self.held_back = self.alone = False
        self._number += 1
        token = self._first_token + self._number
        with self.database.lock:
            due, suspects, ready = self.look(now)
            if due <= now:
                suspects |= self._promote(now)
            elif not ready:  # an empty queue does not wait for those who write to the file
                return token, []
            if not (self._ordered or self._fair or suspects):
                rows = self.database.run("fetch", _CLAIM, (until, token, self.queue, count))
                rows.sort()  # a statement returns its rows in any order; no two have the same id
                return token, rows
            with self.database.transaction("fetch"):
                return token, self._claim_looked_at(count, token, until, suspects=suspects)

    def look(self, now: float) -> tuple[float, bool, bool]:
        """Return when the next delay or lease is over, whether suspect messages are ready, and whether any are.

        Raises:
            StoreError: Somebody has changed meanwhile whether the queue is ordered.
        """
        delayed, leased, ordered, suspects, ready = self.database.run("fetch", _NEXT_DUE, (self.queue,))[0]
        if bool(ordered) is not self._ordered:
            why = f"it was opened by somebody else with ordered={bool(ordered)}, and here with ordered={self._ordered}"
            raise StoreError(self.database.path, "fetch", why, "open it in the same way everywhere")
        due = min(now + _FAR if delayed is None else delayed, now + _FAR if leased is None else leased)
        return due, bool(suspects), bool(ready)

    def _promote(self, now: float) -> bool:
        """Make ready what is due: delays that have passed, and leases that are over; tell whether there were such."""
        with self.database.transaction("fetch"):
            promoted = self.database.run("fetch", _PROMOTE, (self.queue, now, PROMOTED))
            reclaimed = self.database.run("fetch", _RECLAIM, (self.queue, now, PROMOTED, self._limit))
            self.reclaimed += len(reclaimed)
            self.expired_dead += sum(state == DEAD for state, _ in reclaimed)
            self.release(row[-1] for row in (*promoted, *reclaimed))
        return bool(reclaimed)

    def _claim_looked_at(self, count: int, token: int, until: float, *, suspects: bool) -> list[Any]:
        """Claim what is to be had of one chunk of candidates after the other."""
        claimed: list[Any] = []
        keys: dict[Any, _Key] = {}
        chunk = min(count, FEW) if suspects else count
        looked_at = 0
        while len(claimed) < count and not self.more:
            wanted = count - len(claimed)
            candidates = self._round(chunk) if self._fair else self._front(chunk)
            if not candidates:
                break
            slots, passed_over = self._to_be_had(candidates, wanted, keys)
            if suspects and slots:
                slots = self._without_company(slots, first=not claimed)
                if self.held_back:
                    break
                self.more = True  # it is enough for this time
            if slots:
                ids = [number for number, _ in slots]
                rows = self.database.run("fetch", _CLAIM_THESE, (until, token, str(ids)))
                place = {number: index for index, number in enumerate(ids)}
                rows.sort(key=lambda row: place[row[1]])
                claimed += rows
                if self._fair:
                    user = slots[-1][1]
                    self.database.run("fetch", _SET_TURN, (_NOBODY if user is None else user, self.queue))
            if passed_over:
                self.database.many("fetch", _PUT_BEHIND, [(number,) for number in passed_over])
                looked_at += len(passed_over)
            self.more |= looked_at >= LOOKED_AT
            # Where much is not to be had, it is looked through in larger steps.
            chunk = min(max(count - len(claimed), 2 * chunk), 1_000) if passed_over else count - len(claimed)
        return claimed

    def _front(self, count: int) -> list[Candidate]:
        rows: list[Candidate] = self.database.run("fetch", _CANDIDATES, (self.queue, count))
        return rows

    # -- fair ---------------------------------------------------------------------------------------------------------

    def _round(self, count: int) -> list[Candidate]:
        """Go round the users that have something ready, from the one behind who was served last, one message each."""
        users = self._users(count)
        if not users:
            return []
        share = -(-count // len(users))
        lists = [self.database.run("fetch", self._of_user_sql, (user, share)) for user in users]
        if share == 1:
            return [messages[0] for messages in lists]
        chosen = [messages[place] for place in range(share) for messages in lists if place < len(messages)]
        return chosen[:count]

    def _users(self, count: int) -> list[Any]:
        """Return up to ``count`` users in the order of their turns. What is nobody's has a turn as well, the first.

        The turn is kept in the file: the round goes on where it was, whoever claims next.
        """
        run = self.database.run
        turn = run("fetch", "SELECT turn FROM headgate_queues WHERE id = ?", (self.queue,))[0][0]
        found: list[Any] = []
        if turn is not None:
            found = [user for (user,) in run("fetch", self._users_sql, (turn, count))]
            if len(found) == count:
                return found
        begin: list[Any] = [None] if run("fetch", self._nobodys_sql) else []
        begin += [user for (user,) in run("fetch", self._users_sql, (_NOBODY, count))]
        known = set(found)
        found += [user for user in begin if user not in known]
        return found[:count]

    # -- ordered ------------------------------------------------------------------------------------------------------

    def _to_be_had(
        self, candidates: Sequence[Candidate], count: int, keys: dict[Any, _Key]
    ) -> tuple[list[Slot], list[int]]:
        """Return up to ``count`` messages to claim, and the ids of those that are to be passed over.

        A candidate whose key has earlier messages ready gives its place to the first of them.
        """
        if not self._ordered:
            return [(number, user) for number, _, user in candidates], []
        slots: list[Slot] = []
        passed_over: list[int] = []
        for number, key, user in candidates:
            if key is None:
                slots.append((number, user))
            else:
                state = keys.get(key)
                if state is None:
                    state = keys[key] = self._look_at(key)
                following = state.following
                if following is not None and following < state.bound and state.room:
                    slots.append((following, user))
                    state.room -= 1
                    state.following = self.database.run("fetch", self._follower_sql, (key, following))[0][0]
                elif not state.room and following is not None:
                    if number >= following:
                        passed_over.append(number)
                elif number >= state.bound:
                    passed_over.append(number)
            if len(slots) == count:
                break
        return slots, passed_over

    def _without_company(self, slots: list[Slot], *, first: bool) -> list[Slot]:
        """Return what is in front of the first suspect; that one alone, if nothing is."""
        ids = str([number for number, _ in slots])
        suspects: dict[int, int] = dict(self.database.run("fetch", _SUSPECTS, (ids,)))
        for index, (number, _) in enumerate(slots):
            if number not in suspects:
                continue
            if index or not first:
                return slots[:index]
            self.alone = suspects[number] > 1
            self.held_back = self.alone and self._busy
            return [] if self.held_back else slots[:1]
        return slots

    def _look_at(self, key: Any) -> _Key:
        claim, delayed, behind, ready = self.database.run("fetch", self._key_sql, (key,))[0]
        room = self._per_key
        if claim is not None:
            if room == 1 or claim >> BITS != self._first_token >> BITS:  # somebody else is at it
                return _Key(-1, None, 0)
            room -= min(room, self.database.run("fetch", self._held_sql, (key, room))[0][0])
        return _Key(min(delayed or NO_BOUND, behind or NO_BOUND), ready, room)

    def release(self, keys: Iterable[Any]) -> None:
        """Make ready again what stands behind in these keys, unless something of them is still under way."""
        if not self._ordered:
            return
        found = {key for key in keys if key is not None}
        if found and self.database.run("acknowledge", _ANY_BEHIND, (self.queue,)):
            count = min(self._batch, self._per_key)
            self.database.many("acknowledge", self._release_sql, [(key, count) for key in found])

    # -- ending -------------------------------------------------------------------------------------------------------
    # Each returns the receipts that were still good. One id may come with two tokens: when a consumer has lost a
    # message and was handed it again.

    def forget(self, receipts: Sequence[Receipt]) -> set[Receipt] | None:
        """Delete messages; None: all receipts were good."""
        database = self.database
        if len(receipts) == 1 and not self._ordered:
            with database.lock:
                count, _ = database.change("acknowledge", _FORGET_ONE, receipts[0])
                return None if count else set()
        groups = list(_grouped(receipts))
        if len(groups) == 1 and not self._ordered:
            ((token, ids),) = groups
            with database.lock:
                rows = database.run("acknowledge", _FORGET, (str(ids), token))
        else:
            rows = []
            with database.transaction("acknowledge"):
                for token, ids in groups:
                    rows += database.run("acknowledge", _FORGET, (str(ids), token))
                self.release(key for _, _, key in rows)
        return None if len(rows) == len(receipts) else {(number, token) for number, token, _ in rows}

    def end(self, state: int, receipts: Sequence[Receipt], reasons: Sequence[Reason], now: float) -> set[Receipt]:
        """Keep messages as dead or done, each with a reason."""
        good: set[Receipt] = set()
        keys: list[Any] = []
        with self.database.transaction("keep"):
            for receipt, reason in zip(receipts, reasons, strict=True):
                for (key,) in self.database.run("keep", _END, (state, now, *reason, *receipt)):
                    good.add(receipt)
                    keys.append(key)
            self.release(keys)
        return good

    def give_back(
        self, receipts: Sequence[Receipt], reasons: Sequence[Reason], *, now: float, delay: float, counted: bool
    ) -> tuple[set[Receipt], int]:
        """Make messages ready again, at once or after a delay; those that were handed out too often are dead.

        Returns:
            The receipts that were good, and how many of these messages are dead.
        """
        state, due = (DELAYED, now + delay) if delay > 0 else (READY, None)
        terms = (0 if counted else 1, self._limit, state, due, now)
        good: set[Receipt] = set()
        keys: list[Any] = []
        dead = 0
        with self.database.transaction("give back"):
            for receipt, reason in zip(receipts, reasons, strict=True):
                for key, ended in self.database.run("give back", _GIVE_BACK, (*terms, *reason, *receipt)):
                    good.add(receipt)
                    keys.append(key)
                    dead += ended == DEAD
            self.release(keys)  # an earlier one of the key may stand behind one that came back
        return good, dead

    def extend(self, receipts: Sequence[Receipt], until: float) -> set[Receipt]:
        """Let leases end later."""
        good: set[Receipt] = set()
        with self.database.transaction("extend"):
            for token, ids in _grouped(receipts):
                good.update(
                    (number, token) for (number,) in self.database.run("extend", _EXTEND, (until, str(ids), token))
                )
        return good


class _Key:
    """What a claim knows about a key.

    Attributes:
        bound: From which id on none may be claimed.
        following: The first message that is ready and not claimed yet.
        room: How many may still be claimed.
    """

    __slots__ = ("bound", "following", "room")

    def __init__(self, bound: int, following: int | None, room: int) -> None:
        self.bound = bound
        self.following = following
        self.room = room


def _grouped(receipts: Sequence[Receipt]) -> Iterable[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for number, token in receipts:
        groups.setdefault(token, []).append(number)
    return groups.items()
