"""What is refused when a recipe is written down, with an error that names the option and says what it takes."""

import math
from typing import Any

import pytest

from headgate import Child, Consumer, ConsumerSupervisor, OptionError, Producer, ProducerConsumer, Ref
from tests.consumer_supervisor.helpers import Feed, One, Work


async def fetch(event):
    pass


def plain(event):
    pass


class Sink(Consumer):
    def handle_events(self, events, source):
        pass


WRONG: list[tuple[str, list[Any]]] = [
    ("child_restart", ["permanent", "always", None.__class__, 1, ""]),
    ("child_shutdown", [-1, "5", math.nan, True, [5]]),
    ("retries", [-1, 1.5, "3", True, None]),
    ("backoff", [1, "fast", {}]),
    ("dead_letter", [1, "log", []]),
    ("max_restarts", [-1, 1.5, "3", True]),
    ("max_seconds", [-1, "5", math.nan, True, None]),
    ("subscribe_to", ["urls", 5, [5]]),
    ("name", ["", 5]),
    ("id", ["", 5]),
    ("restart", ["sometimes", None, 1]),
    ("shutdown", [-1, "5", math.nan, True, None]),
]


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in WRONG for value in values])
@pytest.mark.parametrize("child", [fetch, plain])
def test_a_wrong_value_is_refused(child, option, value):
    with pytest.raises(OptionError) as caught:
        ConsumerSupervisor(child, **{option: value})
    if option != "subscribe_to" or value != [5]:  # that one is To's
        assert caught.value.option == option
    assert caught.value.expected


def test_a_permanent_child_is_refused_with_an_explanation():
    """It is what a Child is unless it says otherwise."""
    for make in (
        lambda: ConsumerSupervisor(fetch, child_restart="permanent"),
        lambda: ConsumerSupervisor(One, Work("stage"), child_restart="permanent"),
        lambda: ConsumerSupervisor(Child(One, Work("stage"))),
    ):
        with pytest.raises(OptionError, match=r"'temporary' or 'transient'.*again when its event is done"):
            make()


async def _generator(event):
    yield event


def _plain_generator(event):
    yield event


@pytest.mark.parametrize(
    "child",
    [
        None,
        5,
        "fetch",
        [fetch],
        int,
        object,
        Producer,
        ProducerConsumer,
        Ref,
        _generator,
        _plain_generator,
        fetch.__code__,
    ],
)
def test_what_is_no_child_is_refused(child):
    with pytest.raises(OptionError):
        ConsumerSupervisor(child)


def test_a_coroutine_in_place_of_its_function_is_refused():
    coroutine: Any = fetch(1)
    with pytest.raises(OptionError):
        ConsumerSupervisor(coroutine)
    coroutine.close()


@pytest.mark.parametrize(
    ("child", "args"),
    [
        (fetch, (1,)),
        (plain, (1, 2)),
        (lambda: None, ()),
        (lambda a, b: None, ()),
        (lambda event, *, must: None, ()),
        (Sink, ()),
        (Child(Feed, [], restart="temporary"), ()),
    ],
)
def test_a_child_that_cannot_take_the_event_is_refused(child, args):
    with pytest.raises(OptionError, match="before the event, which comes last"):
        ConsumerSupervisor(child, *args)


@pytest.mark.parametrize(
    "options",
    [{"child_restart": "transient"}, {"child_shutdown": 3}, {"child_restart": "temporary", "child_shutdown": 1}],
)
def test_options_that_a_child_recipe_has_itself_are_refused(options):
    with pytest.raises(OptionError, match="has its own") as caught:
        ConsumerSupervisor(Child(One, Work("stage"), restart="temporary"), **options)
    assert caught.value.got == next(iter(options.values()))


def test_arguments_beside_a_child_recipe_are_refused():
    with pytest.raises(OptionError):
        ConsumerSupervisor(Child(One, Work("stage"), restart="temporary"), 1, 2)


@pytest.mark.parametrize("options", [{"name": "one"}, {"count": 2}])
def test_a_recipe_that_is_for_one_stage_or_for_a_group_is_refused(options):
    with pytest.raises(OptionError, match="one child for each event"):
        ConsumerSupervisor(Child(One, Work("stage"), restart="temporary", **options))


def test_an_unknown_option_is_refused_and_the_one_that_was_meant_is_named():
    with pytest.raises(OptionError, match=r"did you mean 'max_restarts'\?") as caught:
        ConsumerSupervisor(fetch, max_restart=5)
    assert (caught.value.option, caught.value.got) == ("max_restart", 5)
    for option in ("max_children", "dispatcher", "delivery", "unknown", "args"):
        options: dict[str, Any] = {option: 5}
        with pytest.raises(OptionError, match=r"one of the known options child, child_restart, .*") as caught:
            ConsumerSupervisor(fetch, **options)
        assert caught.value.option == option


@pytest.mark.parametrize("option", ["max_demand", "min_demand", "cancel", "partition"])
def test_an_option_of_a_subscription_is_refused_with_a_hint_to_where_it_belongs(option):
    options: dict[str, Any] = {option: 5}
    with pytest.raises(OptionError, match=r"To\(\.\.\.\) in subscribe_to") as caught:
        ConsumerSupervisor(fetch, **options)
    assert caught.value.where.startswith("ConsumerSupervisor")


@pytest.mark.parametrize("option", ["subscribe_to", "name", "id", "restart", "shutdown"])
def test_a_wrong_option_of_its_own_stage_is_refused_in_the_name_of_the_consumer_supervisor(option):
    options: dict[str, Any] = {option: 5 if option != "shutdown" else "5"}
    with pytest.raises(OptionError) as caught:
        ConsumerSupervisor(fetch, **options)
    assert (caught.value.where, caught.value.option) == ("ConsumerSupervisor(fetch)", option)


def test_its_id_is_its_name_or_that_of_the_child():
    work = Work("stage")
    assert ConsumerSupervisor(fetch).id == "fetch"
    assert ConsumerSupervisor(fetch, name="urls").id == "urls"
    assert ConsumerSupervisor(fetch, name="urls", id="x").id == "x"
    assert ConsumerSupervisor(Child(One, work, restart="temporary")).id == "One"
    assert list(ConsumerSupervisor(fetch, name="urls").names()) == ["urls"]
