# mypy: disable-error-code="union-attr,var-annotated,arg-type,misc"
"""Every option of a supervisor and of what belongs to it is checked when it is written down, and named when wrong."""

import math

import pytest

from headgate import Backoff, Consumer, OptionError, System, from_iterable
from tests.supervision.helpers import Child, Idle, Numbers, Same, Sink, Supervisor, To, run


class Chatty(Consumer):
    def handle_events(self, events, source):
        return list(events)


NOT_SECONDS = [-1, -0.1, math.nan, "5", None, [1], True]


@pytest.mark.parametrize(
    ("option", "values", "expected"),
    [
        ("strategy", ["one_for_none", None, 1, True, ["one_for_one"]], "'one_for_one', 'one_for_all', 'rest_for_one'"),
        ("max_restarts", [-1, 1.5, "3", True, math.inf, [3]], "an integer of at least 0, or None"),
        ("max_seconds", NOT_SECONDS, "a number of seconds of at least 0"),
        ("shutdown", NOT_SECONDS, "a number of seconds of at least 0"),
        ("backoff", [1, 0.5, "exponential", {"first": 1}, Backoff], r"a Backoff\(...\)"),
        ("name", ["", 1, b"a", ["a"]], "a string that is not empty, or None"),
        ("id", ["", 1, b"a", ["a"]], "a string that is not empty, or None"),
        ("restart", ["always", None, True, 1], "'permanent', 'transient', 'temporary'"),
        ("dead_letter", [1, "print", [print]], "a function of a DeadLetter, or None"),
        ("auto_shutdown", ["yes", 1, 0, []], "None, True, False"),
    ],
)
def test_an_option_of_a_supervisor_that_is_wrong_is_named(option, values, expected):
    for value in values:
        with pytest.raises(OptionError, match=f"expected option '{option}' to be .*{expected}") as caught:
            Supervisor([], **{option: value})
        assert caught.value.where.startswith("Supervisor(")
        assert caught.value.option == option
        assert caught.value.got is value


@pytest.mark.parametrize(
    "children", ["ab", [1], [Idle], [None], 5, None, Child(Idle), [[Child(Idle)]], ["a"], [To("a")]]
)
def test_what_are_no_children_is_refused(children):
    with pytest.raises(OptionError, match="expected option 'children' to be a list of Child"):
        Supervisor(children)
    with pytest.raises(OptionError, match=r"Supervisor\('app'\)"):
        Supervisor(children, name="app")


def test_an_option_that_does_not_exist_is_named_with_what_was_meant():
    with pytest.raises(OptionError, match=r"'max_restart'.*did you mean 'max_restarts'"):
        Supervisor([], max_restart=1)
    with pytest.raises(OptionError, match="'intensity'"):
        Supervisor([], intensity=1)
    with pytest.raises(OptionError, match=r"'cuont'.*did you mean 'count'"):
        Child(Idle, cuont=2)


def twice():
    child = Child(Idle, name="a")
    return [child, child]


@pytest.mark.parametrize(
    ("children", "what"),
    [
        (lambda: [Child(Idle), Child(Idle)], "different ids .*'Idle'"),
        (twice, "different"),
        (lambda: [Supervisor([]), Supervisor([])], "different ids .*'supervisor'"),
        (lambda: [Child(Idle, name="a"), Child(Idle, name="a", id="b")], "different names .*'a'"),
        (lambda: [Child(Idle, name="a"), Supervisor([Child(Idle, name="a")])], "different names .*'a'"),
        (lambda: [Child(Same, name="w", count=2), Child(Same, name="w-2", id="x")], "different names .*'w-2'"),
        (lambda: [Child(Same, name="w", count=2), Child(Same, name="w", id="x")], "different names .*'w'"),
        (lambda: [Child(Same, count=2), Child(Same, id="Same-1")], "different ids .*'Same-1'"),
        (lambda: [Supervisor([Child(Same, name="w", count=2)]), Child(Same, name="w")], "different names .*'w'"),
    ],
)
def test_ids_and_names_that_are_given_twice_are_refused(children, what):
    with pytest.raises(OptionError, match=what):
        Supervisor(children())


def test_no_children_are_fine_and_run_until_they_are_stopped():
    async def scenario():
        async with Supervisor([]) as top:
            assert top.children() == []
            assert top.alive
        async with Supervisor(iter([Child(Idle, name="a")])) as top:
            assert len(top.children()) == 1

    run(scenario)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None, True, math.inf])
def test_a_count_that_is_none_is_refused(value):
    with pytest.raises(OptionError, match=r"Child\(Idle\): expected option 'count' to be an integer of at least 1"):
        Child(Idle, count=value)


def test_a_group_is_for_supervisors():
    async def scenario():
        async with System() as system:
            with pytest.raises(OptionError, match="only a Supervisor starts groups"):
                await system.start(Child(Idle, count=2))

    run(scenario)


@pytest.mark.parametrize("value", [-1, math.nan, "5", [1], True])
def test_a_retry_that_is_no_time_is_refused(value):
    with pytest.raises(OptionError, match=r"To\('a'\): expected option 'retry' to be a number of seconds"):
        To("a", retry=value)


def test_a_retry_needs_a_name():
    async def scenario():
        async with System() as system:
            nameless = await system.start(Child(Numbers, id="x"))
            with pytest.raises(OptionError, match=r"'retry'.*without a name"):
                To(nameless, retry=1)
            await system.start(Child(Sink, [], subscribe_to=[To(nameless, mode="manual")]))

    run(scenario)


def test_every_option_can_be_given():
    top = Supervisor(
        [Child(Idle)],
        strategy="rest_for_one",
        max_restarts=None,
        max_seconds=0,
        backoff=Backoff(first=1, factor=1, most=1, jitter=0, reset=1),
        shutdown=math.inf,
        name="a",
        id="b",
        restart="temporary",
        dead_letter=print,
        auto_shutdown=False,
    )
    assert (top.name, top.id, top.auto_shutdown) == ("a", "b", False)
    assert repr(top) == "<Supervisor 'b', 1 children>"
    assert Supervisor([], name="a").id == "a"


@pytest.mark.parametrize("option", ["dead_letter", "on_error"])
def test_a_hook_for_the_whole_app_is_refused_where_nobody_would_call_it(option):
    async def scenario():
        inner = Supervisor([Child(Numbers, name="inner source")], id="inner", **{option: print})
        with pytest.raises(OptionError, match=f"'{option}' to be given to the top of the app"):
            async with Supervisor([inner]):
                pass
        async with System() as system:
            with pytest.raises(OptionError, match=option):
                await system.start(inner)

    run(scenario)


def test_errors_that_end_nobody_go_to_the_hook_of_the_app():
    async def scenario():
        told = []
        chatty = Child(Chatty, name="chatty", subscribe_to=["source"])
        async with Supervisor([from_iterable([1], name="source"), chatty], on_error=told.append) as top:
            await top.wait()
        assert ["a consumer dispatches no events" in str(each) for each in told] == [True]

    run(scenario)
