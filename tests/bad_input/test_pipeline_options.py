# mypy: disable-error-code="arg-type, var-annotated"
"""Every option of a pipeline, its steps and batchers, with every kind of wrong value: one exact error each."""

import math

import pytest

from headgate import Backoff, Batcher, HeadgateError, OptionError, Pipeline, Processors, RateLimiter, RetryPolicy
from headgate.testing import StubSource
from tests.ids import shown


class Orders(Pipeline):
    def handle_message(self, message):
        pass

    def handle_batch(self, messages, batch):
        pass


async def later(*_):
    pass


def plain(*_):
    pass


COUNT = "an integer of at least 1"
COUNT_OR_NONE = "an integer of at least 1, or None"
SECONDS = "a number of seconds above 0, or None"
RETRY = "a RetryPolicy(...), a dict of exception classes and policies, or None"
RETRIES = "a RetryPolicy, a mapping from classes of exceptions to RetryPolicy or None, or None"
HANDLER = "a function, the name of a method, or None"
PLACE = "one of None, 'inline', 'task', 'thread', or Process(...)"
SIZE = "an integer of at least 1, or a pair of a state and a function (message, state) -> (emit, state)"

NO_COUNTS = (0, -1, 1.5, "1", True, math.nan)
NO_SECONDS = (0, -1, "1", True, math.nan)

PROCESSORS = {
    "handler": (HANDLER, (5, True, [plain])),
    "concurrency": (COUNT, NO_COUNTS),
    "max_demand": (COUNT, NO_COUNTS),
    "min_demand": ("an integer of at least 0", (-1, 1.5, "1", True)),
    "timeout": (SECONDS, NO_SECONDS),
    "retry": (RETRY, (5, "often", True)),
    "place": (PLACE, ("process", 1, True)),
}
BATCHER = {
    "handler": (HANDLER, (5, True, [plain])),
    "size": (SIZE, (0, -1, 1.5, "1", True, None, (0,), (0, 5), (0, lambda: None))),
    "max_bytes": (COUNT_OR_NONE, NO_COUNTS),
    "sizer": ("a function of a message, or None", (5, "len")),
    "timeout": ("a number of seconds above 0", (*NO_SECONDS, None)),
    "key": ("a function of a message, or None", (5, "user")),
    "concurrency": (COUNT, (*NO_COUNTS, None)),
    "serial": ("one of True, False", (1, "yes", None)),
    "max_open": (COUNT, (*NO_COUNTS, None)),
    "max_waiting": (COUNT_OR_NONE, NO_COUNTS),
    "overflow": ("one of None, 'block', 'requeue'", ("drop", True, 1)),
    "run_timeout": (SECONDS, NO_SECONDS),
    "retry": (RETRY, (5, "often", True)),
    "isolate": ("one of True, False", (1, "yes", None)),
    "place": (PLACE, ("process", 1, True)),
}
KEY = "a function of a message, 'key', or None"
PIPELINE = {
    "source": ("a Source, a Pipeline, or a list of them", (5, "queue", StubSource, Pipeline)),
    "processors": ("Processors(...), or a dict of names and those", (5, "two", [Processors()])),
    "batchers": ("Batcher(...), or a dict of names and those", (5, "two", [Batcher()])),
    "name": ("a string that is not empty, or None", (5, "", ("a", "b"))),
    "id": ("a string that is not empty, or None", (5, "")),
    "partition_by": (KEY, (5, "user", True)),
    "fair_by": (KEY, (5, "user", True)),
    "priority_by": (KEY, (5, "user", True)),
    "lookahead": ("an integer of at least 0, or None", (-1, 1.5, "1", True)),
    "max_waiting": (COUNT_OR_NONE, NO_COUNTS),
    "rate_limit": ("a RateLimiter(...), or a list of one without and one with key=", (5, "often", {"rate": 1})),
    "on_failure": ("one of 'retry', 'dead_letter', 'discard', 'requeue'", ("explode", None, True)),
    "max_deliveries": (COUNT, (*NO_COUNTS, None)),
    "redelivery": ("a Backoff(...)", (5, 1.5, "soon", True, 0)),
    "dead_letters": ("a function of a DeadLetter, or None", (5, "queue")),
    "clock": ("a function without arguments, or None", (5, "wall")),
    "shutdown": ("a number of seconds of at least 0", (-1, "1", True, math.nan, None)),
    "restart": ("one of 'permanent', 'transient', 'temporary'", ("always", None, True)),
    "max_restarts": ("an integer of at least 0, or None", (-1, 1.5, "1", True)),
    "max_seconds": ("a number of seconds of at least 0", (-1, "1", True, math.nan, None)),
}
MATRIX = [
    pytest.param(make, where, option, expected, value, id=f"{where}-{option}-{shown(value):.30}")
    for make, where, matrix in (
        (Processors, "Processors", PROCESSORS),
        (Batcher, "Batcher", BATCHER),
        (Orders, "Pipeline(Orders)", PIPELINE),
    )
    for option, (expected, values) in matrix.items()
    for value in values
]


@pytest.mark.parametrize(("make", "where", "option", "expected", "value"), MATRIX)
def test_a_wrong_value(make, where, option, expected, value):
    with pytest.raises(OptionError) as caught:
        make(**{option: value})
    error = caught.value
    assert (error.where, error.option, error.expected) == (where, option, expected)
    assert error.got is value
    assert str(error).startswith(f"{where}: expected option {option!r} to be {expected}, got: ")


@pytest.mark.parametrize(
    ("make", "where", "option", "expected", "value"), [each for each in MATRIX if each.values[0] is Orders]
)
def test_the_same_on_a_class(make, where, option, expected, value):
    """What is written on a class is checked when it is made use of."""
    kind = type("Orders", (Orders,), {option: value})
    with pytest.raises(OptionError) as caught:
        kind()
    assert (caught.value.where, caught.value.option, caught.value.expected) == (where, option, expected)


def test_no_option_is_left_out_here():
    import inspect  # noqa: PLC0415 (of this test only)

    for make, matrix in ((Processors, PROCESSORS), (Batcher, BATCHER)):
        assert set(inspect.signature(make).parameters) - {"unknown"} == set(matrix)
    assert set(Pipeline._OPTIONS) - {"context"} == set(PIPELINE)


UNKNOWN = [
    (Processors, "Processors", "concurency", "concurrency"),
    (Processors, "Processors", "max_demands", "max_demand"),
    (Batcher, "Batcher", "batch_size", None),
    (Batcher, "Batcher", "timout", "timeout"),
    (Orders, "Pipeline(Orders)", "sorce", "source"),
    (Orders, "Pipeline(Orders)", "strategy", None),
]


@pytest.mark.parametrize(("make", "where", "option", "meant"), UNKNOWN)
def test_an_unknown_option(make, where, option, meant):
    with pytest.raises(OptionError) as caught:
        make(**{option: 5})
    error = caught.value
    assert (error.where, error.option, error.got) == (where, option, 5)
    assert error.expected.startswith("one of the known options ")
    assert error.expected.endswith(f"(did you mean {meant!r}?)" if meant else "") or meant is None


RETRY_KEYS = [{5: RetryPolicy()}, {ValueError: 5}, {KeyboardInterrupt: RetryPolicy()}, {"ValueError": None}]


@pytest.mark.parametrize("retry", RETRY_KEYS, ids=shown)
@pytest.mark.parametrize("make", [Processors, Batcher])
def test_wrong_classes_of_errors(make, retry):
    with pytest.raises(OptionError) as caught:
        make(retry=retry)
    assert (caught.value.where, caught.value.option, caught.value.expected) == (make.__name__, "retry", RETRIES)


class Odd(Orders):
    number = 5

    async def handle_later(self, message):
        pass


FIT = [
    ({"processors": Processors(place="thread", handler=later)}, "place", "'task' or Process(...), as later is async"),
    (
        {"processors": Processors(place="inline", handler="handle_later")},
        "place",
        "'task' or Process(...), as handle_later is async",
    ),
    (
        {"processors": Processors(timeout=1.0)},
        "timeout",
        "None: a plain handler that runs inline cannot be cancelled",
    ),
    (
        {"processors": Processors("nothing")},
        "handler",
        "a function, or the name of a method (there is no 'nothing')",
    ),
    ({"processors": Processors("number")}, "handler", "a function, or the name of a method (there is no 'number')"),
    ({"processors": {"a": {}}}, "handler", "a function, or the name of a method (there is no 'handle_a')"),
]


@pytest.mark.parametrize(("options", "option", "expected"), FIT)
def test_options_that_do_not_fit_the_handler(options, option, expected):
    with pytest.raises(OptionError) as caught:
        Odd(**options)
    assert caught.value.where.startswith("Pipeline(Odd), processors['")
    assert (caught.value.option, caught.value.expected) == (option, expected)


@pytest.mark.parametrize(
    ("options", "option", "expected"),
    [
        ({"batchers": Batcher(later, place="thread")}, "place", "'task' or Process(...), as later is async"),
        (
            {"batchers": Batcher(plain, run_timeout=1.0)},
            "run_timeout",
            "None: a plain handler that runs inline cannot be cancelled",
        ),
        (
            {"batchers": {"out": Batcher("nothing")}},
            "handler",
            "a function, or the name of a method (there is no 'nothing')",
        ),
    ],
)
def test_options_that_do_not_fit_the_batch_handler(options, option, expected):
    with pytest.raises(OptionError) as caught:
        Odd(**options)
    assert caught.value.where.startswith("Pipeline(Odd), batchers['")
    assert (caught.value.option, caught.value.expected) == (option, expected)


def test_a_pipeline_without_its_handlers():
    class Empty(Pipeline):
        pass

    with pytest.raises(OptionError, match="there is no 'handle_message'"):
        Empty()

    class Half(Pipeline):
        def handle_message(self, message):
            pass

    assert Half().batcher_options == {}
    with pytest.raises(OptionError, match="there is no 'handle_batch'"):
        Half(batchers=Batcher())


def test_several_forms_of_the_same_options():
    forms = [
        {"processors": Processors(concurrency=3), "batchers": Batcher(size=7)},
        {"processors": {"concurrency": 3}, "batchers": {"size": 7}},
        {"processors": {"default": Processors(concurrency=3)}, "batchers": {"default": Batcher(size=7)}},
        {"processors": {"default": {"concurrency": 3}}, "batchers": {"default": {"size": 7}}},
    ]
    for form in forms:
        pipeline = Orders(**form)
        assert list(pipeline.step_options) == list(pipeline.batcher_options) == ["default"]
        assert pipeline.step_options["default"].concurrency == 3
        assert pipeline.batcher_options["default"].size == 7
    assert Orders(batchers={"default": None}).batcher_options["default"].size == 100


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"processors": {"default": 5}}, "processors['default']"),
        ({"batchers": {"out": "many"}}, "batchers['out']"),
        ({"batchers": {"out": Processors()}}, "batchers['out']"),
        ({"processors": {"default": Batcher()}}, "processors['default']"),
    ],
)
def test_what_is_no_such_options(options, option):
    with pytest.raises(OptionError) as caught:
        Orders(**options)
    assert (caught.value.where, caught.value.option) == ("Pipeline(Orders)", option)


def test_names_of_steps_and_batchers():
    for options in ({"processors": {"": {}}}, {"batchers": {5: {}}}):
        with pytest.raises(OptionError, match="a string that is not empty"):
            Orders(**options)


def test_two_limits_of_one_kind():
    for limits in ([RateLimiter(1), RateLimiter(2)], [RateLimiter(1, key=plain), RateLimiter(2, key=plain)]):
        with pytest.raises(OptionError, match="a list of one without and one with key="):
            Orders(rate_limit=limits)


def test_what_is_fine():
    Orders(
        source=[StubSource(), StubSource()],
        context=object(),
        partition_by="key",
        fair_by=lambda message: message.key,
        priority_by=plain,
        lookahead=0,
        max_waiting=5,
        rate_limit=[RateLimiter(1), RateLimiter(1, key=plain)],
        redelivery=Backoff(),
        dead_letters=later,
        shutdown=0,
        max_restarts=None,
    )
    assert issubclass(OptionError, HeadgateError)
