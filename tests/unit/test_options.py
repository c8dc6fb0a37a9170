# mypy: disable-error-code="arg-type,misc,operator,union-attr,valid-type,var-annotated"
"""Every option of `Child` and `To`: its type, its range, its default, and what is said when it is wrong."""

import inspect

import numpy as np
import pytest

from headgate import (
    BroadcastDispatcher,
    Child,
    Consumer,
    DemandDispatcher,
    OptionError,
    PartitionDispatcher,
    Producer,
    ProducerConsumer,
    System,
    To,
    from_iterable,
    stream,
)
from tests.ids import shown


class Source(Producer):
    def __init__(self, start=0):
        self.next = start

    def handle_demand(self, demand):
        return []


class Middle(ProducerConsumer):
    def handle_events(self, events, source):
        return events


class Sink(Consumer):
    def handle_events(self, events, source):
        pass


class AsyncSink(Consumer):
    async def handle_events(self, events, source):
        pass


def refused(make, where, option):
    with pytest.raises(OptionError) as caught:
        make()
    error = caught.value
    assert (error.where, error.option) == (where, option)
    message = str(error)
    assert where in message
    assert option in message
    assert "\n" not in message
    return error


ARRAY = np.array([1, 2])

# --- To ---------------------------------------------------------------------------------------------------------------


def test_the_defaults_of_a_subscription_are_those_of_the_original():
    terms = To("producer").terms
    assert (terms.max_demand, terms.min_demand, terms.cancel, terms.manual) == (1000, 500, "permanent", False)
    assert (terms.partition, terms.selector, terms.weight, terms.key) == (None, None, 1, None)


@pytest.mark.parametrize(("most", "least"), [(1, 0), (2, 1), (3, 1), (10, 5), (1001, 500)])
def test_the_default_minimum_is_half_of_the_maximum(most, least):
    assert To("producer", max_demand=most).terms.min_demand == least


@pytest.mark.parametrize(
    "options",
    [
        {"max_demand": 1},
        {"max_demand": 10, "min_demand": 0},
        {"max_demand": 10, "min_demand": 9},
        {"cancel": "permanent"},
        {"cancel": "transient"},
        {"cancel": "temporary"},
        {"mode": "manual"},
        {"mode": "automatic"},
        {"partition": ("any", "value")},
        {"selector": len},
        {"weight": 7},
        {"key": object()},
    ],
    ids=shown,
)
def test_right_options_of_a_subscription_are_taken(options):
    terms = To("producer", **options).terms
    for name, value in options.items():
        assert (("manual" if terms.manual else "automatic") if name == "mode" else getattr(terms, name)) == value


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("max_demand", value) for value in (0, -1, 1.0, "10", None, True, [10], float("inf"), ARRAY)],
        *[("min_demand", value) for value in (-1, 1000, 1001, 1.0, "1", False, [], ARRAY)],
        *[("cancel", value) for value in ("Permanent", "", None, 1, ["permanent"], ARRAY)],
        *[("mode", value) for value in ("auto", None, True, {}, ARRAY)],
        *[("weight", value) for value in (0, -1, 1.5, None, True, "1", ARRAY)],
    ],
    ids=shown,
)
def test_wrong_options_of_a_subscription_are_refused(option, value):
    error = refused(lambda: To("producer", **{option: value}), "To('producer')", option)
    assert error.got is value


@pytest.mark.parametrize("producer", [None, 5, b"name", Source, ["producer"], object(), ARRAY], ids=shown)
def test_a_subscription_is_to_a_name_or_a_reference(producer):
    with pytest.raises(OptionError) as caught:
        To(producer)
    assert caught.value.option == "producer"


def test_the_minimum_is_below_the_maximum():
    error = refused(lambda: To("producer", max_demand=10, min_demand=10), "To('producer')", "min_demand")
    assert "from 0 to 9" in str(error)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("max_demnd", "max_demand"),
        ("min_demnd", "min_demand"),
        ("cancl", "cancel"),
        ("wieght", "weight"),
        ("selectr", "selector"),
    ],
)
def test_a_misspelt_option_of_a_subscription_is_recognised(wrong, right):
    error = refused(lambda: To("producer", **{wrong: 1}), "To('producer')", wrong)
    assert f"did you mean {right!r}?" in str(error)


def test_an_unknown_option_of_a_subscription_lists_the_known():
    error = refused(lambda: To("producer", xyz=1), "To('producer')", "xyz")
    for name in ("max_demand", "min_demand", "cancel", "mode", "partition", "selector", "weight", "key"):
        assert name in str(error)
    assert "did you mean" not in str(error)


# --- Child ------------------------------------------------------------------------------------------------------------


def test_the_defaults_of_a_recipe():
    child = Child(Source)
    assert (child.name, child.id, child.subscribe_to) == (None, "Source", [])
    assert (child.buffer_size, child.buffer_keep, child.demand) == (10_000, None, "forward")
    assert (child.restart, child.shutdown, child.place, child.delivery) == ("permanent", 5.0, "inline", "at_least_once")
    assert type(child.fresh_dispatcher()) is DemandDispatcher


def test_every_option_has_its_words_in_the_docs():
    for kind in (Child, To):
        parameters = inspect.signature(kind).parameters
        for name in set(parameters) - {"unknown"}:
            assert f"{name}:" in inspect.getdoc(kind), name


@pytest.mark.parametrize(
    "options",
    [
        {"name": "x"},
        {"id": "x"},
        {"buffer_size": 0},
        {"buffer_size": None},
        {"buffer_keep": "first"},
        {"buffer_keep": "last"},
        {"demand": "accumulate"},
        {"restart": "transient"},
        {"restart": "temporary"},
        {"shutdown": 0},
        {"shutdown": 1.5},
        {"place": "inline"},
        {"place": "task"},
        {"place": "thread"},
        {"delivery": "at_most_once"},
    ],
    ids=str,
)
def test_right_options_of_a_recipe_are_taken(options):
    child = Child(Source, **options)
    assert {name: getattr(child, name) for name in options} == options


WRONG = [
    *[("name", value) for value in ("", 5, b"x", ["x"], True, ARRAY)],
    *[("id", value) for value in (5, b"x", ["x"], "", True, ARRAY)],
    *[("subscribe_to", value) for value in ("producer", 5, None, To("producer"))],
    *[("buffer_size", value) for value in (-1, 1.5, "10", True, [], float("inf"), ARRAY)],
    *[("buffer_keep", value) for value in ("newest", 0, True, [], ARRAY)],
    *[("demand", value) for value in ("hold", None, 5, ARRAY)],
    *[("restart", value) for value in ("always", None, True, ARRAY)],
    *[("shutdown", value) for value in (-1, "5", None, True, float("nan"), [], ARRAY)],
    *[("delivery", value) for value in ("exactly_once", None, 1, ARRAY)],
    *[("place", value) for value in ("process", "", 5, ARRAY)],
    *[("dispatcher", value) for value in ("fair", "Demand", 5, DemandDispatcher, ["demand"], ARRAY)],
]


@pytest.mark.parametrize(("option", "value"), WRONG, ids=shown)
def test_wrong_options_of_a_recipe_are_refused(option, value):
    cls = Sink if option == "subscribe_to" else Source
    error = refused(lambda: Child(cls, **{option: value}), f"Child({cls.__name__})", option)
    assert error.got is value


@pytest.mark.parametrize("entry", [5, None, b"x", ("producer", {"max_demand": 1}), Source], ids=shown)
def test_a_wrong_entry_of_subscribe_to_is_refused(entry):
    with pytest.raises(OptionError):
        Child(Sink, subscribe_to=[entry])


@pytest.mark.parametrize("cls", [None, 5, "Source", object, dict, Source(), print, System, To, type], ids=shown)
def test_only_stages_are_recipes(cls):
    with pytest.raises(OptionError) as caught:
        Child(cls)
    assert caught.value.option == "cls"


@pytest.mark.parametrize("base", [Consumer, ProducerConsumer])
def test_who_receives_events_has_to_handle_them(base):
    class Lazy(base):
        pass

    error = refused(lambda: Child(Lazy), "Child(Lazy)", "cls")
    assert "handle_events" in str(error)


@pytest.mark.parametrize("arguments", [(1, 2), ()], ids=["too many", "too few"])
def test_arguments_that_the_class_does_not_take_are_refused(arguments):
    class Needs(Producer):
        def __init__(self, one):
            pass

    error = refused(lambda: Child(Needs, *arguments), "Child(Needs)", "args")
    assert "(one)" in str(error)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("nam", "name"),
        ("buffersize", "buffer_size"),
        ("subscribe", "subscribe_to"),
        ("dispacher", "dispatcher"),
        ("places", "place"),
    ],
)
def test_a_misspelt_option_of_a_recipe_is_recognised(wrong, right):
    error = refused(lambda: Child(Source, **{wrong: 1}), "Child(Source)", wrong)
    assert f"did you mean {right!r}?" in str(error)


def test_an_argument_by_name_goes_to_the_class():
    assert Child(Source, start=5).build().next == 5


def test_options_that_do_not_fit_the_role_are_refused():
    refused(lambda: Child(Source, subscribe_to=["x"]), "Child(Source)", "subscribe_to")
    refused(lambda: Child(Sink, dispatcher="demand"), "Child(Sink)", "dispatcher")
    refused(lambda: Child(Sink, demand="accumulate"), "Child(Sink)", "demand")


@pytest.mark.parametrize("place", ["inline", "thread"])
def test_async_handlers_need_a_task(place):
    error = refused(lambda: Child(AsyncSink, place=place), "Child(AsyncSink)", "place")
    assert "handle_events" in str(error)


def test_the_place_follows_the_handlers():
    assert Child(AsyncSink).place == "task"
    assert Child(Sink).place == "inline"
    assert Child(Sink, place="task").place == "task"


def test_a_dispatcher_is_a_prototype():
    prototype = PartitionDispatcher(2)
    child = Child(Source, dispatcher=prototype)
    first, second = child.fresh_dispatcher(), child.fresh_dispatcher()
    assert len({id(first), id(second), id(prototype)}) == 3
    assert type(Child(Middle, dispatcher="broadcast").fresh_dispatcher()) is BroadcastDispatcher
    assert Child(Sink).fresh_dispatcher() is None


class Router:
    def __init__(self):
        self.seen = []

    def route(self, event):
        self.seen.append(event)
        return 0

    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied, as it holds a connection")


def test_functions_given_to_a_dispatcher_are_used_and_not_copied():
    """A method brings its object along: a counter, a table, a connection."""
    router = Router()
    dispatcher = Child(Source, dispatcher=PartitionDispatcher(1, hash=router.route)).fresh_dispatcher()
    assert dispatcher._hash.__self__ is router


# --- other places that take options -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [5, None, object(), Source], ids=shown)
def test_what_cannot_be_iterated_is_refused(value):
    refused(lambda: from_iterable(value), "from_iterable", "iterable")


@pytest.mark.parametrize("value", ["halt", None, True, 5])
def test_on_cancel_is_continue_or_stop(value):
    refused(lambda: from_iterable([], on_cancel=value), "from_iterable", "on_cancel")


def test_a_misspelt_option_of_an_iterable_is_recognised():
    with pytest.raises(OptionError, match="did you mean 'buffer_size'"):
        from_iterable([1], buffersize=5)


@pytest.mark.parametrize("value", [5, "log", [], print.__name__])
def test_the_error_hook_of_a_system_is_a_function(value):
    refused(lambda: System(on_error=value), "System", "on_error")


@pytest.mark.parametrize("value", ["counter", None, 5, To("counter"), []], ids=shown)
def test_a_stream_needs_a_list_of_producers(value):
    with pytest.raises(OptionError) as caught:
        stream(value).__anext__().send(None)
    assert caught.value.option == "subscriptions"
