"""Forks and exports: parts, samples with all that refers to them, fields masked consistently; no personal data."""

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import EventError, OptionError, StoreError
from headgate.eventlog import Event, EventLog, Policy, Types, fork, verify
from headgate.eventlog.export import export_lines
from tests.eventlog.conftest import run
from tests.eventlog.ledger import Deposited, Moved, Opened, balances, types

CANARY = "canary-7f3a"


async def fill(log, count=100):
    chance = random.Random(4)
    for number in range(count):
        account = f"account-{chance.randrange(12)}"
        if chance.random() < 0.4:
            await log.append(f"move-{number}", [Moved(account, f"account-{chance.randrange(12)}", number)])
        else:
            await log.append(account, [Opened(f"o{number}"), Deposited(number)])


def test_a_fork_of_everything_is_the_same_log(place):
    @run
    async def _():
        async with place.log(types=types) as log, place.log(place.fresh(), types=types) as copy:
            await fill(log)
            done = await fork(log, copy)
            head = await log.head()
            assert (done.events, done.of) == (head, head)
            assert [each.row[:15] for each in await copy.read().all()] == [
                each.row[:15] for each in await log.read().all()
            ]
            assert (await verify(copy)).ok
            assert (await copy.append("new", [Deposited(1)])).first == head + 1
            with pytest.raises(StoreError, match="without events"):
                await fork(log, copy)


@given(st.integers(1, 14), st.integers(0, 1000))
def test_a_sample_has_all_that_refers_to_it_and_nothing_refers_to_what_is_missing(sample, seed):
    @run
    async def _():
        async with EventLog(":memory:", types=types) as log, EventLog(":memory:", types=types) as copy:
            await fill(log, 60)
            await fork(log, copy, sample=sample, seed=seed, streams="account-*", depth=None)
            everything, copied = await log.read().all(), await copy.read().all()
            there = {each.position for each in copied}
            streams = {each.stream for each in copied if each.stream.startswith("account-")}
            for event in copied:
                if event.type == "Moved":
                    for name in (event.data.source, event.data.target):
                        mine = [each for each in everything if each.stream == name]
                        assert all(each.position in there for each in mine)
            for event in everything:
                if event.stream in streams:
                    assert event.position in there, "a stream is there as a whole"
            drawn = [name for name in streams if (await log.version(name))]
            assert len(drawn) >= min(sample, len({e.stream for e in everything if e.stream.startswith("account-")}))
            if len(drawn) == sample:  # nothing was drawn in: all that refers to them is there
                for event in everything:
                    if event.type == "Moved" and {event.data.source, event.data.target} & set(drawn):
                        assert event.position in there
            assert (await verify(copy)).ok


@given(st.integers(1, 5), st.integers(0, 1000))
def test_a_sample_of_depth_one_is_small_and_what_was_drawn_refers_to_nothing_that_is_missing(sample, seed):
    @run
    async def _():
        async with EventLog(":memory:", types=types) as log, EventLog(":memory:", types=types) as copy:
            await fill(log, 60)
            done = await fork(log, copy, sample=sample, seed=seed, streams="account-*")
            assert 0 < done.events < done.of
            copied = await copy.read().all()
            for event in copied:
                if event.type == "Moved":
                    for name in (event.data.source, event.data.target):
                        assert await copy.version(name) == await log.version(name)


def test_a_part_by_position_type_and_stream(place):
    @run
    async def _():
        async with place.log(types=types) as log, place.log(place.fresh(), types=types) as copy:
            await fill(log)
            await fork(log, copy, start=10, until=60, types=Deposited, streams="account-1*")
            found = await copy.read().all()
            assert found
            for event in found:
                assert 10 <= event.position <= 60
                assert event.type == "Deposited"
                assert (await log.event(event.position)).event_id == event.event_id


def people():
    registry = Types()
    registry.add("Joined", personal=["name"], subject="person")
    return registry


async def with_canaries(log):
    for number in range(20):
        data = {
            "person": f"p{number % 4}",
            "name": f"{CANARY} {number % 4}",
            "email": f"{CANARY}{number % 4}@x.org",
            "address": {"street": CANARY, "zip": "12345", "city": "Here"},
            "notes": [{"text": CANARY}, {"text": "fine"}],
            "amount": 100 + number % 4,
        }
        await log.append(
            f"person-{CANARY}{number % 4}", [Event("Joined", data, meta={"ip": CANARY})], actor=f"{CANARY}-clerk"
        )


RULES = {
    "email": "mask",
    "address.street": "redact",
    "Joined:address.zip": "mask",
    "text": "mask",
    "ip": "drop",
    "amount": "mask",
    "@stream": "mask",
    "@actor": "redact",
}


def test_a_fork_with_a_policy_has_no_personal_data_and_is_consistent(tmp_path):
    path = tmp_path / "copy.db"

    @run
    async def _():
        async with (
            EventLog(":memory:", types=people(), master_key=bytes(32)) as log,
            EventLog(str(path), types=people()) as copy,
        ):
            await with_canaries(log)
            await fork(log, copy, policy=Policy(RULES, key=b"no two amounts of three digits fall together"))
            found = await copy.read().all()
            assert CANARY not in json.dumps([each.plain for each in found])
            assert len({each.stream for each in found}) == 4
            for key in ("name", "email", "amount"):
                assert len({json.dumps(each.plain[key]) for each in found}) == 4, key
            same = {each.plain["person"]: each.plain["name"] for each in found}
            assert all(same[each.plain["person"]] == each.plain["name"] for each in found)
            assert all(each.plain["email"].endswith("@example.invalid") for each in found)
            assert all(each.plain["address"]["city"] == "Here" for each in found)
            assert all(each.plain["address"]["zip"].isdigit() for each in found)
            assert all(each.plain["address"]["street"] == "[redacted]" for each in found)
            assert {len(str(each.plain["amount"])) for each in found} == {3}
            assert {each.actor for each in found} == {"[redacted]"}
            assert (await verify(copy)).ok

    raw = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert CANARY.encode() not in raw


def test_an_export_has_no_personal_data():
    @run
    async def _():
        async with EventLog(":memory:", types=people(), master_key=bytes(32)) as log:
            await with_canaries(log)
            text = "\n".join([each async for each in export_lines(log, log.read(), Policy(RULES))])
            assert CANARY not in text
            assert len(text.splitlines()) == 20
            one = json.loads(text.splitlines()[0])
            assert (one["position"], one["type"], one["version"]) == (1, "Joined", 1)
            assert "meta" not in one
            plain = "\n".join([each async for each in export_lines(log, log.read())])
            assert f"{CANARY} 3" in plain, "without a policy, and with the key, all is there"


def test_sealed_fields_stay_sealed_in_a_fork_without_a_policy():
    @run
    async def _():
        async with (
            EventLog(":memory:", types=people(), master_key=bytes(32)) as log,
            EventLog(":memory:", types=people(), master_key=bytes(32)) as copy,
        ):
            await with_canaries(log)
            await fork(log, copy)
            before = await copy.event(1)
            assert before.plain["name"] == "[sealed]"
            same = Event("Joined", (await log.event(1)).plain)  # its subject gets a key of its own
            again = await copy.append(before.stream, same)
            assert (await copy.event(again.last)).plain["name"] == same.data["name"] != "[sealed]"
            assert (await copy.event(1)).plain == before.plain


def test_a_policy_that_allows_only_what_it_names():
    policy = Policy({"amount": "keep", "address.city": "keep", "tags": len}, default="redact")
    assert policy.data(
        "x", {"amount": 5, "name": "n", "address": {"city": "c", "zip": 1}, "tags": [1, 2], "l": ["x"]}
    ) == {
        "amount": 5,
        "name": "[redacted]",
        "address": {"city": "c", "zip": "[redacted]"},
        "tags": 2,
        "l": ["[redacted]"],
    }


def test_masks_look_alike_and_are_the_same_for_the_same_key():
    one, two, other = Policy(key=b"k" * 16), Policy(key=b"k" * 16), Policy(key=b"l" * 16)
    for value in (
        "Ada Lovelace",
        "+49 (30) 1234",
        "a@b.org",
        12345,
        -7,
        3.25,
        ["x", None, True],
        {"a": "b"},
        "x" * 100,
    ):
        assert one.mask(value) == two.mask(value)
        assert type(one.mask(value)) is type(value)
    assert one.mask("Ada Lovelace") != other.mask("Ada Lovelace")
    assert (one.mask("+49 (30) 1234")[0], one.mask("+49 (30) 1234")[4]) == ("+", "(")
    assert one.mask(-7) <= 0
    assert one.stream("account-ada").startswith("account-")
    assert one.mask(None) is None


def test_streams_keep_names_of_their_own(place):
    """Of single digits, ten masked ones would be left."""

    @run
    async def _():
        async with place.log() as log, EventLog(":memory:") as copy:
            for number in range(20):
                await log.append(f"account-{number}", [Event("e", {}), Event("e", {})])
            await fork(log, copy, policy=Policy({"@stream": "mask"}, key=b"k" * 16))
            assert (await verify(copy)).ok
            assert len({each.stream for each in await copy.read().all()}) == 20
            assert {(await copy.version(each.name)) for each in await copy.streams("account-")} == {2}


@pytest.mark.parametrize("rule", ["redact", lambda name: "all"])
def test_two_streams_with_one_name_are_refused_before_they_are_mixed(rule):
    @run
    async def _():
        async with EventLog(":memory:") as log, EventLog(":memory:") as copy:
            await log.append("a", [Event("e", {})])
            await log.append("b", [Event("e", {})])
            with pytest.raises(OptionError, match=r"names of their own.*'a', 'b'"):
                await fork(log, copy, policy=Policy({"@stream": rule}))
            assert await copy.head() == 0


def test_a_rule_for_a_column_gives_what_can_be_one():
    @run
    async def _():
        async with EventLog(":memory:") as log:
            await log.append("a", [Event("e", {})], actor="ada")
            for rules, actor in (({"@actor": lambda name: None}, None), ({"@actor": len}, "3")):
                async with EventLog(":memory:") as copy:
                    await fork(log, copy, policy=Policy(rules))
                    assert (await copy.event(1)).actor == actor
            wrong: list[dict[str, Any]] = [{"@actor": lambda name: ""}, {"@stream": lambda name: "a\n"}]
            for each in (*wrong, {"@stream": "drop"}):
                async with EventLog(":memory:") as copy:
                    with pytest.raises(EventError, match="Policy: expected @"):
                        await fork(log, copy, policy=Policy(each))
                    assert await copy.head() == 0


@pytest.mark.parametrize("key", [b"", b"k" * 15, "k" * 16, bytearray(16), 5])
def test_a_key_that_is_none_is_refused_and_not_shown(key):
    with pytest.raises(OptionError, match=r"'key'.*not shown") as caught:
        Policy(key=key)
    assert "kkk" not in str(caught.value)


@pytest.mark.parametrize("options", [{"rules": {"x": "hide"}}, {"default": "hide"}, {"rules": {"x": 5}}])
def test_options_of_a_policy_are_checked(options):
    with pytest.raises(OptionError):
        Policy(**options)


def test_a_forked_environment_answers_the_same_questions():
    @run
    async def _():
        async with EventLog(":memory:", types=types) as log, EventLog(":memory:", types=types) as copy:
            await fill(log)
            await fork(log, copy, until=50)
            for number in range(12):
                name = f"account-{number}"
                assert (await copy.fold(balances, name)).state == (await log.fold(balances, name, until=50)).state
