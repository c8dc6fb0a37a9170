"""The intake: whose turn is next among what was fetched."""

import gc
import weakref
from collections import Counter, deque
from itertools import pairwise
from operator import attrgetter
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headgate.errors import OptionError
from headgate.protocol.intake import Intake
from headgate.testing.simulation.models import SlowIntake
from headgate.types import Message


class Item:
    """Something to be handled: a user, a key, a class and a number."""

    def __init__(self, number, user=None, key=None, urgency=0):
        self.number = number
        self.user = user
        self.key = key
        self.urgency = urgency

    def __repr__(self):
        return f"{self.number}:{self.user}/{self.key}/{self.urgency}"


user_of, key_of, class_of = attrgetter("user"), attrgetter("key"), attrgetter("urgency")


def numbers(found):
    return [item.number for item in found]


def of_users(text):
    return [Item(number, user) for number, user in enumerate(text)]


def users(found):
    return "".join(item.user for item in found)


# -- first come, first served -----------------------------------------------------------------------------------------


def test_without_rules_it_is_first_come_first_served():
    intake = Intake()
    intake.offer([1, 2, 3])
    intake.offer(range(4, 7))
    assert (intake.ready, intake.waiting, intake.room) == (6, 6, 994)
    assert intake.take(2) == [1, 2]
    assert intake.take(100) == [3, 4, 5, 6]
    assert intake.take(5) == []
    assert (intake.ready, intake.waiting) == (0, 0)


def test_what_is_put_back_comes_first_and_in_order():
    intake = Intake()
    intake.offer([1, 2, 3, 4])
    assert intake.take(3) == [1, 2, 3]
    intake.put_back([2, 3])
    intake.put_back([0, 1])
    assert intake.take(2) == [0, 1]
    assert intake.clear() == [2, 3, 4]


def test_the_list_that_came_in_stays_the_callers():
    intake, items = Intake(), [1, 2]
    intake.offer(items)
    assert intake.take(1) == [1]
    intake.offer(items)
    intake.take(9).clear()
    assert items == [1, 2]


def test_what_was_taken_is_kept_alive_by_nobody():
    intake = Intake()
    intake.offer([Item(number) for number in range(100)])
    dead = [weakref.ref(item) for item in intake.take(10)]
    gc.collect()
    assert [each() for each in dead] == [None] * 10


def test_places_of_what_was_taken_do_not_pile_up():
    intake = Intake()
    intake.offer(range(2000))
    for number in range(20_000):
        intake.offer([number])
        intake.take(1)
        assert len(intake._items) <= 4100


def test_room_counts_down_and_is_never_below_nothing():
    intake = Intake(limit=3)
    intake.offer([1, 2])
    assert intake.room == 1
    intake.offer([3, 4, 5])
    assert (intake.room, intake.waiting) == (0, 5), "nothing is lost"


# -- fair -------------------------------------------------------------------------------------------------------------


def test_users_take_turns_whatever_each_has():
    intake = Intake(fair=user_of)
    intake.offer(of_users("aaaaabbc"))
    assert users(intake.take(2)) == "ab"
    intake.offer(of_users("d"))
    assert users(intake.take(100)) == "cabdaaa"


def test_a_user_with_very_many_delays_one_with_few_by_less_than_a_round():
    intake = Intake(fair=user_of, limit=200_000)
    intake.offer([Item(number, "many") for number in range(100_000)])
    intake.take(7)
    intake.offer([Item(number, "few") for number in range(10)])
    order = [item.user for item in intake.take(20)]
    assert order in (["many", "few"] * 10, ["few", "many"] * 10)


def test_a_user_of_weight_three_has_three_in_a_round_also_when_that_is_interrupted():
    intake = Intake(fair=user_of, weights={"a": 3})
    intake.offer(of_users("a" * 9 + "b" * 9))
    assert "".join(users(intake.take(2)) for _ in range(6)) == "aaabaaabaaab"


def test_weights_may_be_a_function():
    intake = Intake(fair=user_of, weights=lambda user: 2 if user == "b" else 1)
    intake.offer(of_users("aaaabbbb"))
    assert users(intake.take(8)) == "abbabbaa"


def test_who_comes_back_goes_to_the_front_of_its_user_but_waits_for_its_turn():
    intake = Intake(fair=user_of)
    intake.offer(of_users("aab"))
    first = intake.take(1)
    intake.put_back(first)
    assert numbers(intake.take(9)) == [2, 0, 1]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 9)), min_size=1, max_size=20), st.data())
def test_of_users_that_wait_all_the_while_none_gets_more_than_a_round_ahead(offers, data):
    weights = {"a": 2, "b": 3}
    intake = Intake(fair=user_of, weights=weights)
    waiting: Counter[str] = Counter()
    for user, count in offers:
        intake.offer([Item(0, user)] * count)
        waiting[user] += count
    got: Counter[str] = Counter()
    while intake.waiting:
        for item in intake.take(data.draw(st.integers(1, 5))):
            if all(waiting.values()):
                got[item.user] += 1
                rounds = [got[user] / weights.get(user, 1) for user in waiting]
                assert max(rounds) - min(rounds) <= 1
            waiting[item.user] -= 1
    assert not any(waiting.values())


@given(st.lists(st.sampled_from(["a", "b", "c", "take", "take"]), max_size=60))
def test_nobody_waits_longer_than_a_round(steps):
    """However others come and go: between two of its items no other user has more than one."""
    intake = Intake(fair=user_of)
    since: dict[str, Counter[str]] = {}
    waiting: Counter[str] = Counter()
    for step in [*steps, *["take"] * 60]:
        if step != "take":
            intake.offer([Item(0, step)])
            waiting[step] += 1
            since.setdefault(step, Counter())
        for item in intake.take(1) if step == "take" else []:
            for counts in since.values():
                counts[item.user] += 1
            waiting[item.user] -= 1
            since.pop(item.user)
            if waiting[item.user]:
                since[item.user] = Counter()
            assert all(count <= 1 for counts in since.values() for count in counts.values())


# -- serial -----------------------------------------------------------------------------------------------------------


def test_of_a_key_one_is_out_at_a_time():
    intake = Intake(serial=key_of)
    a1, a2, b1, a3, none = items = [Item(n, key=key) for n, key in enumerate(["a", "a", "b", "a", None])]
    intake.offer(items)
    assert (intake.ready, intake.waiting) == (3, 5)
    assert intake.take(9) == [a1, b1, none]
    assert (intake.ready, intake.waiting, intake.out, intake.keys) == (0, 2, 2, 2)
    assert intake.release([b1, none]) == 0
    assert intake.release([a1]) == 1
    assert intake.take(9) == [a2]
    assert intake.release_key("a")
    assert not intake.release_key("a")
    assert not intake.release_key("z")
    assert intake.take(9) == [a3]


def test_items_without_a_key_wait_for_nobody():
    intake = Intake(serial=key_of)
    intake.offer([Item(number) for number in range(5)])
    assert numbers(intake.take(9)) == [0, 1, 2, 3, 4]
    assert intake.out == 0


def test_what_is_put_back_comes_before_the_later_ones_of_its_key():
    intake = Intake(serial=key_of)
    items = [Item(number, key="a") for number in range(4)]
    intake.offer(items)
    [first] = intake.take(9)
    intake.put_back([first])
    assert intake.take(9) == [first]
    intake.release([first])
    intake.put_back([first])  # although the next was ready
    assert intake.take(9) == [first]
    intake.put_back([first, items[1]])  # items[1] is not out, and is in twice now
    assert numbers(intake.clear()) == [0, 1, 1, 2, 3]


def test_an_item_is_known_again_whatever_has_become_of_its_key():
    intake = Intake(serial=key_of)
    first, second = [Item(0, key="a"), Item(1, key="a")]
    intake.offer([first, second])
    intake.take(1)
    first.key = "b"
    assert intake.release([first]) == 1
    assert intake.take(1) == [second]
    second.key = "c"
    intake.put_back([second])
    assert intake.take(1) == [second]
    assert (intake.keys, intake.release([second]), intake.keys) == (1, 0, 0)


def test_a_stuck_key_is_in_nobodys_way():
    intake = Intake(serial=key_of, fair=user_of)
    intake.offer([Item(number, "a", "stuck") for number in range(100)])
    intake.take(1)
    intake.offer([Item(number, "a", number) for number in range(50)])
    assert len(intake.take(100)) == 50


def test_keys_and_users_that_are_done_leave_nothing_behind():
    intake = Intake(serial=key_of, fair=user_of, priority=class_of, key_limit=1)
    for number in range(0, 20_000, 10):
        intake.offer([Item(each, each, each // 2, each % 7) for each in range(number, number + 10)])
        intake.overflow()
        intake.release(intake.take(5))
        intake.release(intake.take(5))
    machine: Any = intake
    assert (intake.waiting, intake.keys, intake.out) == (0, 0, 0)
    assert not machine._lines
    assert not machine._many
    assert not machine._turns._classes


def test_what_a_key_has_beyond_its_limit_goes_back_to_the_source():
    intake = Intake(serial=key_of, key_limit=2)
    intake.offer([Item(number, key="ab"[number % 4 == 0]) for number in range(10)])
    intake.offer([Item(number) for number in range(10, 15)])
    over = intake.overflow()
    assert {key: numbers(items) for key, items in over.items()} == {"a": [3, 5, 6, 7, 9], "b": [8]}
    assert (intake.overflow(), intake.waiting) == ({}, 9)
    assert numbers(intake.clear()) == [0, 1, 2, 4, 10, 11, 12, 13, 14]


def test_what_waits_behind_one_that_is_out_can_be_withdrawn():
    intake = Intake(serial=key_of, key_limit=1)
    items = [Item(number, key="ab"[number % 2]) for number in range(6)]
    intake.offer(items)
    intake.take(1)
    assert intake.withdraw("a") == [items[2], items[4]]
    assert (intake.waiting, intake.overflow()) == (3, {"b": [items[3], items[5]]})
    assert intake.withdraw("a") == intake.withdraw("b") == intake.withdraw(None) == intake.withdraw("z") == []
    intake.release(items[:1])
    assert (intake.take(9), intake.keys) == ([items[1]], 1)


def test_what_is_out_does_not_count_against_the_limit_until_it_comes_back():
    intake = Intake(serial=key_of, key_limit=1)
    items = [Item(number, key="a") for number in range(2)]
    intake.offer(items[:1])
    intake.take(1)
    intake.offer(items[1:])
    assert intake.overflow() == {}
    intake.put_back(items[:1])
    assert intake.overflow() == {"a": items[1:]}


# -- priority ---------------------------------------------------------------------------------------------------------


def test_the_lowest_class_goes_first_and_equals_in_their_order():
    intake = Intake(priority=class_of)
    intake.offer([Item(number, urgency=urgency) for number, urgency in enumerate([2, 1, 0, 1, 0, 2])])
    assert numbers(intake.take(9)) == [2, 4, 1, 3, 0, 5]


def test_without_ageing_the_urgent_pass_for_ever():
    intake = Intake(priority=class_of, ageing=None)
    intake.offer([Item("old", urgency=1)])
    for number in range(3000):
        intake.offer([Item(number)])
        assert numbers(intake.take(1)) == [number]
    assert numbers(intake.take(1)) == ["old"]


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_with_ageing_every_class_gets_its_turns_and_the_urgent_stay_urgent(count):
    """Of class 2 with ageing 10 one goes for each 20 of class 0, of class 5 one for each 50, whatever waits."""
    intake = Intake(priority=class_of, ageing=10, limit=10_000)
    for urgency in (5, 2, 0):
        intake.offer([Item(number, urgency=urgency) for number in range(2000)])
    got: list[int] = []
    while len(got) < 1000:
        got += map(class_of, intake.take(count))
    shares = Counter(got[:1000])
    assert shares[2] == pytest.approx(1000 / 21, abs=4)
    assert shares[5] == pytest.approx(1000 / 51, abs=4)
    places = [at for at, urgency in enumerate(got[:1000]) if urgency == 5]
    assert max(later - earlier for earlier, later in pairwise([0, *places])) <= 53


def test_a_class_has_its_users_in_turn():
    intake = Intake(priority=class_of, fair=user_of)
    intake.offer([Item(n, user, urgency=u) for n, (user, u) in enumerate([*[("a", 1)] * 3, ("b", 1), *[("a", 0)] * 2])])
    assert numbers(intake.take(9)) == [4, 5, 0, 3, 1, 2]


def test_classes_are_integers_of_any_size():
    intake = Intake(priority=class_of)
    intake.offer([Item(0, urgency=10**20), Item(1, urgency=-5), Item(2, urgency=True)])
    assert numbers(intake.take(9)) == [1, 2, 0]


# -- what users' functions do wrong -----------------------------------------------------------------------------------


class WrongError(Exception):
    pass


def wrong(item):
    if item.number == 13:
        raise WrongError
    return 0


def listed(item):
    return [] if item.number == 13 else 0


def heavy(user):
    if user == 13:
        raise WrongError
    return 1


@pytest.mark.parametrize(
    "options",
    [
        {"fair": wrong},
        {"fair": listed},
        {"fair": listed, "priority": class_of},
        {"serial": wrong},
        {"serial": listed},
        {"priority": wrong},
        {"priority": lambda item: "high" if item.number == 13 else 1},
        {"priority": lambda item: 1.5 if item.number == 13 else 1},
        {"fair": attrgetter("number"), "weights": heavy},
        {"fair": attrgetter("number"), "weights": lambda user: 0 if user == 13 else 1},
        {"fair": attrgetter("number"), "weights": lambda user: 1.5 if user == 13 else 1},
        {"fair": attrgetter("number"), "weights": heavy, "priority": class_of},
        {"fair": attrgetter("number"), "weights": heavy, "priority": class_of, "serial": key_of},
        {"fair": listed, "serial": key_of},
    ],
)
@pytest.mark.parametrize("call", ["offer", "put_back"])
def test_an_item_for_which_a_function_fails_is_reported_and_nothing_else_is_affected(options, call):
    intake = Intake(**options)
    getattr(intake, call)([Item(1, key=1), Item(13, key=13), Item(2, key=2)])
    assert [item.number for item, _ in intake.errors] == [13]
    assert isinstance(intake.errors[0][1], (WrongError, TypeError))
    assert (intake.waiting, intake.ready) == (2, 1 if options.get("serial") in {wrong, listed} else 2)  # one key or two
    got = intake.take(9)
    intake.release(got)
    got += intake.take(9)
    assert sorted(numbers(got)) == [1, 2]
    intake.release(got)
    assert (intake.keys, intake.waiting) == (0, 0)


@pytest.mark.parametrize("call", ["release", "put_back"])
def test_of_a_key_the_next_but_one_follows_when_the_next_fails(call):
    share = {0: 1, 13: 0, 2: 1}
    intake = Intake(fair=attrgetter("number"), serial=key_of, weights=lambda user: share[user])
    items = [Item(number, key="a") for number in (0, 13, 2)]
    intake.offer(items)
    assert intake.take(9) == items[:1]
    share[0] = 0
    getattr(intake, call)(items[:1])
    assert [item.number for item, _ in intake.errors] == ([13] if call == "release" else [0, 13])
    assert intake.take(9) == items[2:]
    assert intake.waiting == 0


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("fair", {"fair": "user"}),
        ("serial", {"serial": 3}),
        ("priority", {"priority": []}),
        ("ageing", {"ageing": 0}),
        ("ageing", {"ageing": 1.5}),
        ("limit", {"limit": 0}),
        ("limit", {"limit": None}),
        ("key_limit", {"key_limit": 0, "serial": len}),
        ("key_limit", {"key_limit": 2}),
        ("weights", {"fair": len, "weights": 3}),
        ("weights", {"fair": len, "weights": {"a": 0}}),
        ("weights", {"weights": {"a": 1}}),
    ],
)
def test_wrong_options_are_refused(option, options):
    with pytest.raises(OptionError) as caught:
        Intake(**options, where="Orders.processors")
    assert (caught.value.where, caught.value.option) == ("Orders.processors", option)


# -- beside the model -------------------------------------------------------------------------------------------------

drawn = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from([None, 1, 2, 3]), st.integers(0, 2)), min_size=1, max_size=6
)


class Beside(RuleBasedStateMachine):
    """Whatever is done, the machine shows what the model shows; everything comes out once."""

    options: ClassVar[dict[str, Any]] = {}
    weights: ClassVar[dict[str, int]] = {}

    def __init__(self):
        super().__init__()
        options = self.options
        self.machine = Intake(**options, weights=self.weights or None)
        self.model = SlowIntake(
            self.look,
            lambda user: self.weights.get(user, 1),
            fair="fair" in options,
            ageing=options.get("ageing", 1000),
            key_limit=options.get("key_limit"),
        )
        self.number = 0
        self.taken: deque[Item] = deque()
        self.gone: Counter[int] = Counter()
        self.last: dict[Any, int] = {}

    def look(self, item):
        functions = [self.options.get(name, lambda item: None) for name in ("fair", "serial", "priority")]
        user, key, urgency = [function(item) for function in functions]
        return user, key, urgency or 0

    @rule(made=drawn)
    def offer(self, made):
        items = []
        for user, key, urgency in made:
            self.number += 1
            items.append(Item(self.number, user, key, urgency))
        self.machine.offer(items)
        self.model.offer(items)

    @rule(count=st.integers(1, 4))
    def take(self, count):
        got = self.machine.take(count)
        assert got == self.model.take(count)
        self.taken += got

    @rule(count=st.integers(1, 3), last=st.booleans())
    def release(self, count, last):
        items = [self.taken.pop() if last else self.taken.popleft() for _ in range(min(count, len(self.taken)))]
        self.machine.release(items)
        self.model.release(items)
        for item in items:
            self.gone[item.number] += 1
            if self.options.get("serial") and item.key is not None:
                assert item.number > self.last.get(item.key, 0), "order within the key"
                self.last[item.key] = item.number

    @rule(count=st.integers(1, 3))
    def put_back(self, count):
        items = [self.taken.popleft() for _ in range(min(count, len(self.taken)))]
        self.machine.put_back(items)
        self.model.put_back(items)

    @rule()
    def overflow(self):
        over = self.machine.overflow()
        assert over == self.model.overflow()
        self.gone.update(item.number for items in over.values() for item in items)

    @rule(key=st.sampled_from([None, 1, 2, 3]))
    def withdraw(self, key):
        behind = self.machine.withdraw(key)
        assert behind == self.model.withdraw(key)
        self.gone.update(numbers(behind))

    @invariant()
    def shows_the_same(self):
        machine, model = self.machine, self.model
        assert (machine.waiting, machine.ready) == (len(model.waiting), len(model.turns))
        assert machine.out == len(model.out)
        assert machine.keys == len({each.key for each in model.waiting + model.out} - {None})

    def teardown(self):
        self.gone.update(numbers([*self.taken, *self.machine.clear()]))
        assert self.gone == dict.fromkeys(range(1, self.number + 1), 1)
        self.machine.release(self.taken)
        assert (self.machine.waiting, self.machine.keys, self.machine.out) == (0, 0, 0)


def beside(weights=(), **options):
    case: Any = type(Beside.__name__, (Beside,), {"options": options, "weights": dict(weights)}).TestCase  # type: ignore[attr-defined]
    case.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
    return pytest.mark.slow(case)


TestBesidePlain = beside()
TestBesideFair = beside(fair=user_of)
TestBesideWeights = beside({"a": 3, "b": 2}, fair=user_of)
TestBesideSerial = beside(serial=key_of, key_limit=2)
TestBesidePriority = beside(priority=class_of, ageing=2)
TestBesideAll = beside({"a": 2}, fair=user_of, serial=key_of, priority=class_of, ageing=3, key_limit=2)


def test_messages_are_items():
    intake = Intake(serial=attrgetter("key"))
    intake.offer([Message(1, key="a"), Message(2, key="a"), Message(3)])
    assert [message.data for message in intake.take(9)] == [1, 3]
