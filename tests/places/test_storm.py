"""A few kills of the storm; ``python -m tests.places.storm`` has the others."""

from tests.places.storm import run


def test_what_killed_workers_had_comes_back_and_nothing_is_left():
    result = run(kills=8, seed=1)
    assert result["faults"] == []
    assert result["events"] > 100
