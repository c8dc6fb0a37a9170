"""Pipelines that are killed lose nothing; `python -m tests.pipeline.storm` kills 200."""

import pytest

from tests.pipeline.storm import storm


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{}, {"ordered": True, "fair": True}], ids=["plain", "ordered and fair"])
def test_kill_9_loses_nothing_and_repeats_only_what_was_leased(flags):
    result = storm(6, workers=3, seed=5, **flags)
    assert not result.faults
    assert result.kills == 6
