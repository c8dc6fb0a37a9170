# mypy: disable-error-code="var-annotated,no-untyped-call"
"""The queue in the file beside an obvious one in memory: several consumers, one clock, any order of calls."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.connectors.sqlite import SQLiteQueue

MAX_DELIVERIES = 3
LEASE = 10.0


class Item:
    """What the model knows of a message."""

    def __init__(self, number, key, user, priority, due, dedupe):
        self.id = number
        self.key = key
        self.user = user
        self.priority = priority
        self.due = due  # of a delay or a lease
        self.dedupe = dedupe
        self.state = "ready" if due is None else "delayed"
        self.owner = None
        self.token = None
        self.deliveries = 0
        self.reason = None
        self.suspect = 0  # how often its lease was over: it is handed out alone; beside nothing else from twice on
        self.passed_over = False  # by a fetch, as it was not to be had


class Model(RuleBasedStateMachine):
    ordered = False
    per_key = 1
    fair = False

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = 1_000_000.0
        self.items = {}
        self.consumers = []
        self.held = []  # (consumer, message), lost ones too
        self.over = set()  # (consumer, id, token) of what that consumer has ended, or knows to be lost
        self.alone = {}  # consumer -> (receipt, until): nothing else is handed out to it

    @initialize()
    def open(self):
        path = Path(self.folder.name, "queue.db")
        for number in range(2):
            queue = SQLiteQueue(
                path,
                lease=LEASE,
                max_deliveries=MAX_DELIVERIES,
                ordered=self.ordered,
                per_key=self.per_key,
                fair=self.fair,
                durability="normal",
                clock=lambda: self.now,
                name=str(number),
            )
            queue.open()
            self.consumers.append(queue)

    def teardown(self):
        for queue in self.consumers:
            queue.close()
        self.folder.cleanup()

    # -- the model ----------------------------------------------------------------------------------------------------

    def settle_due(self):
        """What the next fetch finds to be due."""
        for item in self.items.values():
            if item.state == "delayed" and item.due <= self.now:
                item.state, item.due = "ready", None
            elif item.state == "leased" and item.due <= self.now:
                item.state = "dead" if item.deliveries >= MAX_DELIVERIES else "ready"
                item.due = item.owner = item.token = None
                item.suspect += 1

    def blocked(self, item, owner):
        """Whether an ordered queue must not hand it to this consumer now."""
        if item.key is None:
            return False
        same = [other for other in self.items.values() if other.key == item.key and other is not item]
        if any(other.state == "leased" and other.owner != owner for other in same):
            return True
        if sum(other.state == "leased" for other in same) >= self.per_key:
            return True
        return any(other.id < item.id and other.state in ("ready", "delayed") for other in same)

    def not_to_be_had(self, item, owner):
        """As `blocked`; what was passed over before may wait until nothing of its key is under way."""
        same = [other for other in self.items.values() if other.key == item.key]
        return self.blocked(item, owner) or (item.passed_over and any(other.state == "leased" for other in same))

    def lookup(self, message):
        number, token = message.receipt
        item = self.items.get(number)
        return item if item is not None and item.state == "leased" and item.token == token else None

    def check_lost(self, answer, messages, ours):
        lost = [message for message in messages if message not in ours]
        assert (answer or []) == lost

    # -- what may happen ----------------------------------------------------------------------------------------------

    @rule(
        key=st.sampled_from([None, "a", "b", 7]),
        user=st.sampled_from([None, "u", "v", 3]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
        delay=st.sampled_from([0, 0, 0, 5.0]),
        dedupe=st.sampled_from([None, None, "x", "y"]),
        count=st.integers(1, 4),
    )
    def put(self, key, user, priority, delay, dedupe, count):
        options = {"key": key, "user": user, "priority": priority, "delay": delay}
        taken = any(item.dedupe == dedupe for item in self.items.values()) if dedupe else False
        if dedupe or count == 1:
            ids = [self.consumers[0].put({"n": 1}, dedupe=dedupe, **options)]
            if taken:
                assert ids == [None]
                return
        else:
            ids = self.consumers[1].put_many([{"n": 1}] * count, **options)
        for number in ids:
            assert number is not None
            assert number not in self.items
            due = self.now + delay if delay else None
            self.items[number] = Item(number, key, user, priority, due, dedupe)

    @rule(seconds=st.sampled_from([1.0, 5.0, 9.0, 11.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule(who=st.integers(0, 1), count=st.integers(1, 6))
    def fetch(self, who, count):
        if who in self.alone:
            (number, token), until = self.alone[who]
            if self.now < until and (who, number, token) not in self.over:
                assert self.consumers[who].fetch(count) == []
                return
            del self.alone[who]
        self.settle_due()
        busy = any(item.state == "leased" and item.owner == who for item in self.items.values())
        messages = self.consumers[who].fetch(count)
        ready = [item for item in self.items.values() if item.state == "ready"]
        suspects = [item for item in ready if item.suspect]
        for message in messages:  # each in turn: an earlier one of the same batch is this consumer's already
            number, token = message.receipt
            item = self.items[number]
            assert item.state == "ready", "it was handed out although it is not to be had"
            if self.ordered:
                assert not self.blocked(item, who), "out of order"
            item.state, item.owner, item.token, item.due = "leased", who, token, self.now + LEASE
            item.deliveries += 1
            assert message.deliveries == item.deliveries
            assert message.key == item.key
            assert message.metadata.get("user") == item.user
            self.held.append((who, message))
        assert len({message.receipt[0] for message in messages}) == len(messages)
        left = [item for item in ready if item.state == "ready"]
        if any(self.items[message.receipt[0]].suspect for message in messages):
            assert len(messages) == 1, "a suspect is alone"
        for message in messages:
            if self.items[message.receipt[0]].suspect > 1:
                assert not busy, "beside nothing else"
                self.alone[who] = (message.receipt, self.now + LEASE)
        held_back = busy and any(item.suspect > 1 for item in left)
        if (
            len(messages) < count and not held_back and (not messages or not suspects)
        ):  # nothing is left that it could have had
            assert all(self.ordered and self.not_to_be_had(item, who) for item in left)
        for item in left:
            item.passed_over |= self.ordered and self.blocked(item, who)
        if not self.ordered and not self.fair:
            best = sorted(ready, key=lambda item: (-item.priority, item.id))[:count]
            first = next((index for index, item in enumerate(best) if item.suspect), count)
            wanted = best[: first or 1]
            if wanted and busy and wanted[0].suspect > 1:
                wanted = []
            assert [message.receipt[0] for message in messages] == [item.id for item in wanted]
        if self.fair and not self.ordered and not suspects:
            self.check_fair(ready, messages)

    def check_fair(self, ready, messages):
        """Nobody has two more than somebody who still waits."""
        had = Counter(message.metadata.get("user") for message in messages)
        waiting = {item.user for item in ready if item.state == "ready"}
        most = max(had.values(), default=0)
        assert all(most - had[user] <= 1 for user in waiting)
        for user in had:
            its = sorted((item for item in ready if item.user == user), key=lambda item: (-item.priority, item.id))
            ids = [message.receipt[0] for message in messages if message.metadata.get("user") == user]
            assert ids == [item.id for item in its[: len(ids)]]

    def some(self, data):
        """A few messages that one consumer has or had."""
        who = data.draw(st.sampled_from(sorted({who for who, _ in self.held})))
        its = [message for holder, message in self.held if holder == who]
        chosen = data.draw(st.lists(st.sampled_from(range(len(its))), min_size=1, max_size=4, unique=True))
        return who, self.consumers[who], [its[index] for index in sorted(chosen)]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), discard=st.booleans())
    def ack(self, data, discard):
        who, queue, messages = self.some(data)
        self.over.update((who, *message.receipt) for message in messages)
        ours = [message for message in messages if self.lookup(message)]
        self.check_lost(queue.discard(messages) if discard else queue.ack(messages), messages, ours)
        for message in ours:
            del self.items[message.receipt[0]]

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(), delay=st.sampled_from([0.0, 4.0]), counted=st.booleans(), reason=st.sampled_from([None, "no"])
    )
    def nack(self, data, delay, counted, reason):
        who, queue, messages = self.some(data)
        self.over.update((who, *message.receipt) for message in messages)
        ours = [message for message in messages if self.lookup(message)]
        for message in messages:
            message.reason = reason
        self.check_lost(queue.nack(messages, delay, counted=counted), messages, ours)
        for message in ours:
            item = self.lookup(message)
            item.reason = reason or item.reason
            item.owner = item.token = item.due = None
            item.suspect = 0
            if counted and item.deliveries >= MAX_DELIVERIES:
                item.state = "dead"
                continue
            item.deliveries -= not counted
            item.state, item.due = ("delayed", self.now + delay) if delay else ("ready", None)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def dead_letter(self, data):
        who, queue, messages = self.some(data)
        self.over.update((who, *message.receipt) for message in messages)
        ours = [message for message in messages if self.lookup(message)]
        for message in messages:
            message.reason = "bad"
        self.check_lost(queue.dead_letter(messages), messages, ours)
        for message in ours:
            item = self.lookup(message)
            item.state, item.reason, item.owner, item.token, item.due = "dead", "bad", None, None, None

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seconds=st.sampled_from([2.0, 30.0]))
    def extend(self, data, seconds):
        who, queue, messages = self.some(data)
        ours = [message for message in messages if self.lookup(message)]
        self.over.update((who, *message.receipt) for message in messages if message not in ours)
        self.check_lost(queue.extend(messages, seconds), messages, ours)
        for message in ours:
            self.lookup(message).due = self.now + seconds

    @rule(all_of_them=st.booleans(), delete=st.booleans(), data=st.data())
    def letters(self, all_of_them, delete, data):
        dead = sorted(item.id for item in self.items.values() if item.state == "dead")
        ids = None if all_of_them else data.draw(st.lists(st.sampled_from([0, *dead]), max_size=3, unique=True))
        chosen = dead if ids is None else [number for number in ids if number in dead]
        queue = self.consumers[0]
        assert (queue.delete_dead(ids) if delete else queue.retry_dead(ids)) == len(chosen)
        for number in chosen:
            if delete:
                del self.items[number]
            else:
                item = self.items[number]
                item.state, item.deliveries, item.suspect = "ready", 0, 0

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def the_counts_are_true(self):
        if not self.consumers:
            return
        counts = self.consumers[1].counts()
        states = Counter()
        for item in self.items.values():
            over = item.due is not None and item.due <= self.now
            states[{"delayed": "ready", "leased": "expired"}.get(item.state, "?") if over else item.state] += 1
        assert (counts.waiting, counts.delayed) == (states["ready"], states["delayed"])
        assert (counts.leased, counts.expired) == (states["leased"], states["expired"])
        assert (counts.dead, counts.done) == (states["dead"], 0)

    @invariant()
    def dead_letters_say_why(self):
        if not self.consumers:
            return
        letters = self.consumers[0].dead_letters()
        assert [letter.id for letter in letters] == sorted(i.id for i in self.items.values() if i.state == "dead")
        for letter in letters:
            assert letter.reason
            assert letter.deliveries == self.items[letter.id].deliveries


class OrderedModel(Model):
    ordered = True


class RunsModel(Model):
    ordered = True
    per_key = 3


class FairModel(Model):
    fair = True


class OrderedFairModel(Model):
    ordered = True
    fair = True


class RunsFairModel(Model):
    ordered = True
    per_key = 2
    fair = True


@pytest.mark.slow
@pytest.mark.parametrize("model", [Model, OrderedModel, RunsModel, FairModel, OrderedFairModel, RunsFairModel])
def test_it_does_what_the_model_does(model):
    case = model.TestCase
    case.settings = settings(stateful_step_count=40)
    case().runTest()
