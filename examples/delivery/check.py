"""Are all messages delivered, once and in order? Reads what the chat has written, the queue's books and the sink's."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from headgate.connectors.sqlite import QueueCounts

from .chat import FOLDER, connect, inbox
from .sink import Sink


@dataclass
class Conversation:
    """What became of the messages of one conversation."""

    team: str
    written: int
    delivered: int = 0
    duplicates: int = 0
    disorder: int = 0  # messages that came after a later one
    last: int = 0  # where in the sink its last message is


@dataclass
class Report:
    """What became of all of them."""

    conversations: dict[str, Conversation]
    queue: QueueCounts
    strangers: int  # delivered, and never written

    def total(self, what: str) -> int:
        """Sum up one number of all conversations."""
        return sum(getattr(each, what) for each in self.conversations.values())

    @property
    def lost(self) -> int:
        """Messages that are neither delivered nor in the queue."""
        return self.total("written") - self.total("delivered") - self.queue.left - self.queue.dead

    @property
    def unequal(self) -> int:
        """By how many the acknowledgements are out: each stands for one delivery, and the other way round."""
        return abs(self.queue.done - self.total("delivered") - self.total("duplicates"))

    @property
    def ok(self) -> bool:
        """Whether everything is as it should be."""
        faults = (self.total("duplicates"), self.total("disorder"), self.lost, self.unequal, self.strangers)
        return not any(faults)


def check(folder: Path = FOLDER) -> Report:
    """Compare the books."""
    with closing(connect(folder)) as chat:
        sql = "SELECT conversation, team, count(*) FROM chat GROUP BY conversation ORDER BY team, conversation"
        conversations = {name: Conversation(team, count) for name, team, count in chat.execute(sql)}
    seen: dict[str, set[int]] = defaultdict(set)
    strangers = 0
    with closing(Sink(folder)) as sink:
        for place, name, number in sink.query("SELECT place, conversation, number FROM delivered ORDER BY place"):
            conversation = conversations.get(name)
            if conversation is None or not 0 < number <= conversation.written:
                strangers += 1
                continue
            numbers = seen[name]
            if number in numbers:
                conversation.duplicates += 1
            else:
                conversation.disorder += bool(numbers) and number < max(numbers)
                conversation.delivered += 1
                conversation.last = place
                numbers.add(number)
    return Report(conversations, inbox(folder).counts(), strangers)


def text(report: Report, *, everything: bool = False) -> str:
    """Say how it is."""
    written, delivered, queue = report.total("written"), report.total("delivered"), report.queue
    duplicates, disorder = report.total("duplicates"), report.total("disorder")
    lines = [
        f"{written:,} messages written, {delivered:,} delivered, {queue.left:,} to go, {queue.dead} dead letters",
        f"{queue.done:,} acknowledged; {duplicates} duplicates, {disorder} out of order, {report.lost} lost",
        "",
        f"{'team':12} {'conversations':>13} {'messages':>8}  {'the last one was delivered':>26}",
    ]
    teams: dict[str, list[Conversation]] = defaultdict(list)
    for each in report.conversations.values():
        teams[each.team].append(each)
    for team, members in sorted(teams.items()):
        last = max(each.last for each in members)
        messages = sum(each.written for each in members)
        lines.append(f"{team:12} {len(members):13,} {messages:8,}  {f'as number {last:,}' if last else 'never':>26}")
    wrong = {name: each for name, each in report.conversations.items() if everything or each.duplicates + each.disorder}
    if wrong:
        lines += ["", f"{'conversation':16} {'written':>7} {'delivered':>9} {'duplicates':>10} {'out of order':>12}"]
        lines += [
            f"{name:16} {each.written:7,} {each.delivered:9,} {each.duplicates:10,} {each.disorder:12,}"
            for name, each in wrong.items()
        ]
    return "\n".join(lines)


def main() -> int:
    report = check()
    print(text(report, everything="--all" in sys.argv[1:]))
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())
