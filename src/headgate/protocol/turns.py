"""Orders in which waiting items have their turn: `Line`, `Fair` and `Classes`. Pure parts of the intake.

What waits here are *entries*: tuples whose fields are named by the constants below. Their numbers are unique.

* `Line`: first come, first served.
* `Fair`: deficit round robin over users (Shreedhar & Varghese, "Efficient fair queueing using deficit round robin",
  SIGCOMM 1995; every item costs 1). A user is in the round while it has items, and enters it at its end.
* `Classes`: the lowest class first, with ageing of the classes: a class that waits gains on the others by one for each
  ``ageing`` items that were served since it had its last turn. So under any load the class that is ``n`` classes less
  urgent than the first gets at least one turn in ``n * ageing`` or so, and no more than that: what is urgent stays
  urgent, however much else has been waiting for however long. Within a class a `Line` or a `Fair` decides.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

NUMBER: Final = 0
USER: Final = 1
KEY: Final = 2
CLASS: Final = 3
ITEM: Final = 4

Entry = tuple[int, Any, Any, int, Any]
"""Number of arrival, user, serial key, class, item."""

_SPARE: Final = 1000
"""Records of users without items that are kept to be used again: making one costs more than all else about an item."""


class Turns(Protocol):
    """Entries that wait, in an order."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def put(self, entry: Entry, /) -> None:
        """Put an entry behind the others of its kind. May raise what a function of the user's raises."""
        ...

    def put_all(self, entries: Iterable[Entry], failed: list[tuple[Any, Exception]], /) -> None:
        """Put entries behind the others of their kinds; report the items of those for which that raises."""
        ...

    def put_front(self, entry: Entry, /) -> None:
        """Put an entry before the others of its kind; as `put`."""
        ...

    def take(self, count: int) -> list[Entry]:
        """Take out up to so many, in order."""
        ...

    def remove(self, entry: Entry, /) -> None:
        """Take out this one, which is here. Takes as long as there are others of its kind."""
        ...


class Line:
    """First come, first served."""

    def __init__(self) -> None:
        """Start empty."""
        self._entries: deque[Entry] = deque()
        self.put = self._entries.append
        self.put_front = self._entries.appendleft
        self.remove = self._entries.remove

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._entries)

    def put_all(self, entries: Iterable[Entry], failed: list[tuple[Any, Exception]]) -> None:  # noqa: ARG002 (none fails)
        """Put entries behind the others."""
        self._entries.extend(entries)

    def take(self, count: int) -> list[Entry]:
        """Take out the first ones."""
        entries = self._entries
        if count >= len(entries):
            taken = list(entries)
            entries.clear()
            return taken
        return [entries.popleft() for _ in range(count)]


class _User(deque[Entry]):
    """The entries of one user. What is usual stands on the class, since users come and go all the time."""

    name: Any
    share = 1  # items of one round
    left = 0  # of its turn, when that was interrupted


class Fair:
    """Each user in turn."""

    def __init__(self, share: Callable[[Any], int] | None) -> None:
        """Start without users. ``share``: user -> how many items of it one round has; None: one."""
        self.size = 0
        self._share = share
        self._users: dict[Any, _User] = {}
        self._round: deque[_User] = deque()
        self._spare: list[_User] = []

    @property
    def users(self) -> int:
        """How many users have items."""
        return len(self._users)

    def put(self, entry: Entry) -> None:
        """Put an entry behind the others of its user."""
        user = self._users.get(entry[USER])
        if user is None:
            user = self._enter(entry[USER])
        user.append(entry)
        self.size += 1

    def put_all(self, entries: Iterable[Entry], failed: list[tuple[Any, Exception]]) -> None:
        """Put each entry behind the others of its user."""
        users = self._users
        for entry in entries:
            try:
                user = users.get(entry[USER])
                if user is None:
                    user = self._enter(entry[USER])
            except Exception as error:  # noqa: BLE001 (the user's: a hash, a weight)
                failed.append((entry[ITEM], error))
                continue
            user.append(entry)
            self.size += 1

    def put_front(self, entry: Entry) -> None:
        """Put an entry before the others of its user. The user's turn comes when it comes."""
        user = self._users.get(entry[USER])
        if user is None:
            user = self._enter(entry[USER])
        user.appendleft(entry)
        self.size += 1

    def take(self, count: int) -> list[Entry]:
        """Take out so many, each user in its turn."""
        count = min(count, self.size)
        self.size -= count
        line, users, spare = self._round, self._users, self._spare
        taken: list[Entry] = []
        if self._share is None:
            next_user, again, take = line.popleft, line.append, taken.append
            for _ in range(count):
                user = next_user()
                take(user.popleft())
                if user:
                    again(user)
                else:
                    del users[user.name]
                    spare.append(user)
        else:
            self._take_shares(count, taken)
        del spare[_SPARE:]
        return taken

    def _take_shares(self, count: int, taken: list[Entry]) -> None:
        line = self._round
        while count:
            user = line.popleft()
            left = user.left or user.share
            while left and count and user:
                taken.append(user.popleft())
                left -= 1
                count -= 1
            user.left = left
            if not user:
                self._leave(user)
            elif left:
                line.appendleft(user)  # it goes on with its turn the next time
            else:
                line.append(user)

    def remove(self, entry: Entry) -> None:
        """Take out one entry."""
        user = self._users[entry[USER]]
        user.remove(entry)
        self.size -= 1
        if not user:
            self._round.remove(user)
            self._leave(user)

    def _enter(self, name: Any) -> _User:
        share = 1 if self._share is None else self._share(name)
        user = self._spare.pop() if self._spare else _User()
        user.name = name
        if self._share is not None:
            user.share = share
            user.left = 0
        self._users[name] = user
        self._round.append(user)
        return user

    def _leave(self, user: _User) -> None:
        del self._users[user.name]
        self._spare.append(user)


class Classes:
    """The lowest class first, with ageing.

    A class's rank is ``class * ageing + served``, where ``served`` is how many items had been served when it had its
    last turn, or came; the lowest rank is next. It changes only with a turn, so that a heap of the ranks is enough.
    """

    def __init__(self, turns: Callable[[], Turns], ageing: int | None) -> None:
        """Start without classes. ``turns``: makes the order within one; ``ageing``: None: always the lowest class."""
        self.size = 0
        self._turns = turns
        self._ageing = ageing
        self._classes: dict[int, Turns] = {}
        self._heap: list[tuple[int, int]] = []  # rank and class
        self._served = 0

    def put(self, entry: Entry) -> None:
        """Put an entry to its class."""
        number = entry[CLASS]
        try:
            self._class(number).put(entry)
        except Exception:
            self._forget(number)
            raise
        self.size += 1

    def put_all(self, entries: Iterable[Entry], failed: list[tuple[Any, Exception]]) -> None:
        """Put each entry to its class."""
        for entry in entries:
            try:
                self.put(entry)
            except Exception as error:  # noqa: BLE001 (the user's: a hash, a weight)
                failed.append((entry[ITEM], error))

    def put_front(self, entry: Entry) -> None:
        """Put an entry to its class, ahead."""
        number = entry[CLASS]
        try:
            self._class(number).put_front(entry)
        except Exception:
            self._forget(number)
            raise
        self.size += 1

    def take(self, count: int) -> list[Entry]:
        """Take out so many, the most urgent first."""
        count = min(count, self.size)
        self.size -= count
        heap, ageing = self._heap, self._ageing
        taken: list[Entry] = []
        while count:
            number = heap[0][1]
            turns = self._classes[number]
            turn = min(count, self._turn(number))
            got = turns.take(turn)
            taken += got
            count -= len(got)
            self._served += len(got)
            if turns.size:
                rank = number if ageing is None else number * ageing + self._served
                heapq.heapreplace(heap, (rank, number))
            else:
                heapq.heappop(heap)
                del self._classes[number]
        return taken

    def _turn(self, number: int) -> int:
        """Return how many of the first class go in a row: until another has the lower rank."""
        others = self._heap[1:3]
        if not others or self._ageing is None:
            return self.size + 1_000_000_000
        rank, other = min(others)
        return max(1, rank - number * self._ageing - self._served + (number < other))

    def remove(self, entry: Entry) -> None:
        """Take out one entry."""
        self._classes[entry[CLASS]].remove(entry)
        self.size -= 1
        self._forget(entry[CLASS])

    def _forget(self, number: int) -> None:
        """Forget a class if it is empty."""
        if not self._classes[number].size:
            del self._classes[number]
            self._heap = [each for each in self._heap if each[1] != number]
            heapq.heapify(self._heap)

    def _class(self, number: int) -> Turns:
        turns = self._classes.get(number)
        if turns is None:
            turns = self._classes[number] = self._turns()
            rank = number if self._ageing is None else number * self._ageing + self._served
            heapq.heappush(self._heap, (rank, number))
        return turns
