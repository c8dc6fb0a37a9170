# mypy: disable-error-code="arg-type, assignment"
"""Pipelines: what they are made of, which options they take, and how sources change those before the start."""

import os
import re

import pytest

from headgate import Batcher, Child, Consumer, OptionError, Pipeline, Processors, Source, Supervisor, telemetry
from headgate.testing import StubSource
from tests.parity.registry import different
from tests.pipeline.helpers import Noting, batcher, running, virtually


def refused(where, option, expected, got):
    """Expect exactly this error."""
    return pytest.raises(OptionError, match=f"^{re.escape(str(OptionError(where, option, expected, got)))}$")


@different("B001", "a pipeline is a recipe itself; its shutdown time is one for all of it and bounded, 30 s by default")
def test_a_pipeline_is_a_recipe():
    """B001: that a supervisor takes as a child."""
    pipeline = Noting()
    assert isinstance(pipeline, Supervisor)
    assert (pipeline.id, pipeline.restart, pipeline.shutdown) == ("Noting", "permanent", 30.0)
    assert Supervisor([pipeline]).children == [pipeline]


def test_what_a_supervisor_sees_can_be_chosen():
    """B002: the id, when it is started again, how long it may take to end."""
    pipeline = Noting(id="other", restart="transient", shutdown=5)
    assert (pipeline.id, pipeline.restart, pipeline.shutdown) == ("other", "transient", 5.0)


def test_a_name_that_is_none():
    """B003: is refused."""
    with refused("Pipeline(Noting)", "name", "a string that is not empty, or None", 1):
        Noting(name=1)


SIZE = "an integer of at least 1, or a pair of a state and a function (message, state) -> (emit, state)"


def test_a_splitter_with_a_wrong_number_of_arguments():
    """B005: is refused."""
    size = (0, lambda message: (True, message))
    with refused("Batcher", "size", SIZE, size):
        Batcher(size=size)


@pytest.mark.parametrize("size", [0, -1, "10", 1.5, (1,), (0, 1), None])
def test_a_size_that_is_neither_a_number_nor_a_splitter(size):
    """B006: is refused."""
    with refused("Batcher", "size", SIZE, size):
        Batcher(size=size)


@different("B007", "a batcher asks for nothing by itself, so that a splitter needs no max_demand beside it")
def test_a_splitter_needs_no_more():
    """B007: it is complete as it is."""
    splitter = (0, lambda _, state: (False, state))
    assert Batcher(size=splitter).size is splitter
    with pytest.raises(OptionError, match="'max_demand'"):
        Batcher(size=splitter, max_demand=10)


@virtually
async def test_one_source():
    """B008: has one stage."""
    async with running(Noting(source=StubSource())) as pipeline:
        assert [each["name"] for each in pipeline.topology()["sources"]] == ["Noting.source-1"]
        assert pipeline.system.ref("Noting.source-1").alive


@virtually
async def test_three_sources():
    """B009: have a stage each; what a pipeline is made of is told when it starts."""
    told = []
    detach = telemetry.attach("pipeline.init", lambda *event: told.append(event))
    recipe = Noting(source=[StubSource(), StubSource(), StubSource()], context=5)
    async with running(recipe) as pipeline:
        detach()
        names = [each["name"] for each in pipeline.topology()["sources"]]
        assert names == ["Noting.source-1", "Noting.source-2", "Noting.source-3"]
        assert all(pipeline.system.ref(name).alive for name in names)
    [(name, measurements, metadata)] = told
    assert name == "pipeline.init"
    assert list(measurements) == ["time"]
    assert metadata == {"pipeline": "Noting", "config": recipe, "supervisor": pipeline, "context": 5}


async def count(pipeline, kind):
    async with running(pipeline) as started:
        [group] = started.topology()[kind]
        prefix = f"{group['name'] if kind == 'processors' else group['handlers']}-"
        names = [ref.name for ref in started.system.stages() if ref.name.startswith(prefix)]
        assert len(names) == group["concurrency"]
        return len(names)


class Usual(Pipeline):
    source = StubSource()

    def handle_message(self, message):
        return message

    def handle_batch(self, messages, batch):
        return messages


@virtually
async def test_as_many_processors_as_twice_the_cores():
    """B010: unless told otherwise."""
    assert await count(Usual(), "processors") == 2 * (os.cpu_count() or 1)


@virtually
async def test_as_many_processors_as_wanted():
    """B011: by option."""
    assert await count(Usual(processors=Processors(concurrency=5)), "processors") == 5


@virtually
async def test_one_batch_processor_for_each_batcher():
    """B012: unless told otherwise."""
    assert await count(Usual(batchers=batcher()), "batchers") == 1


@virtually
async def test_as_many_batch_processors_as_wanted():
    """B013: by option."""
    assert await count(Usual(batchers=batcher(concurrency=3)), "batchers") == 3


def test_a_context_that_was_not_given():
    """B014: is a marker that says so."""
    assert repr(Noting().context) == "context_not_set"
    assert Noting(context=None).context is None


class Beside(Consumer):
    def handle_events(self, events, source):
        raise AssertionError


class Preparing(StubSource):
    """A source that changes the pipeline's options."""

    answer = None

    def prepare(self, options):
        self.seen = dict(options)
        return self.answer(options) if self.answer else None


@virtually
async def test_a_source_may_change_the_options_and_add_children():
    """B015: before anything starts; the children come first."""
    source = Preparing(1, 2, 3)
    source.answer = lambda options: ({**options, "name": "other"}, [Child(Beside, name="beside")])
    async with running(Noting(source=source)) as pipeline:
        assert [ref.name for ref in pipeline.system.stages()][:2] == ["beside", "other.source-1"]
        assert pipeline.children()[0].id == "beside"


@pytest.mark.parametrize("answer", [5, ({}, 5), "options", ({}, [], [])])
def test_a_source_that_answers_something_else(answer):
    """B016: is refused."""
    source = Preparing()
    source.answer = lambda _: answer
    expected = "to return None, a dict of options, or a pair of that and a list of children"
    with refused("Pipeline(Noting)", "Preparing.prepare", expected, answer):
        Noting(source=source)


def test_the_options_that_a_source_gives_back():
    """B017: are checked again."""
    source = Preparing()
    source.answer = lambda options: {**options, "max_deliveries": 0}
    with refused("Pipeline(Noting)", "max_deliveries", "an integer of at least 1", 0):
        Noting(source=source)
    source.answer = lambda options: {**options, "sourc": 0}
    with pytest.raises(OptionError, match="did you mean 'source'"):
        Noting(source=source)


def test_a_source_learns_the_whole_configuration():
    """B018: and its place among the sources; one that does not care is not bothered."""

    class Plain(Source):
        def fetch(self, count):
            return []

    first, second = Plain(), Preparing()
    Noting(source=[first, second], context=3)
    assert second.seen["context"] == 3
    assert second.seen["source"].index(second) == 1
    assert set(vars(first)) == set()
