"""Signals at random moments: a share of what ``python -m tests.running.storm --sigterm 200 --double 100`` does."""

import pytest

from tests.running.storm import storm


@pytest.mark.slow
@pytest.mark.parametrize(("sigterm", "double", "seed"), [(10, 0, 1), (2, 4, 2)])
def test_signals_lose_nothing_and_acknowledge_nothing_unfinished(sigterm, double, seed):
    result = storm(sigterm, double, seed=seed)
    assert not result.faults, str(result)
    assert result.acked
