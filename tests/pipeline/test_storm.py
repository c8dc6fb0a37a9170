"""Pipelines that are killed lose nothing; `python -m tests.pipeline.storm` kills 200."""

import pytest

from tests.connectors.queue_storm import storm
from tests.pipeline import worker_storm
from tests.pipeline.storm import PipelineStorm


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{}, {"ordered": True, "fair": True}], ids=["plain", "ordered and fair"])
def test_kill_9_loses_nothing_and_repeats_only_what_was_leased(flags):
    result = storm(6, workers=3, seed=5, kind=PipelineStorm, **flags)
    assert not result.faults
    assert result.kills == 6


@pytest.mark.slow
@pytest.mark.parametrize("durable", [False, True], ids=["memory", "SQLite"])
def test_kill_9_of_workers_of_handlers_costs_nothing_but_a_try(durable):
    """`python -m tests.pipeline.worker_storm` kills 100."""
    result = worker_storm.run(5, seed=3, durable=durable)
    assert not result["faults"], result
    assert result["kills"] == 5
