"""Pipelines that are killed lose nothing; `python -m tests.pipeline.storm` kills 200."""

import pytest

from tests.connectors.queue_storm import storm
from tests.pipeline.storm import PipelineStorm


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{}, {"ordered": True, "fair": True}], ids=["plain", "ordered and fair"])
def test_kill_9_loses_nothing_and_repeats_only_what_was_leased(flags):
    result = storm(6, workers=3, seed=5, kind=PipelineStorm, **flags)
    assert not result.faults
    assert result.kills == 6
