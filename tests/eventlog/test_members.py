"""Members of a group in virtual time, by seed: each event once, in the order of its stream, come what may."""

from collections import Counter

import pytest

from tests.eventlog.members import play

SEEDS = 48
PIECES = 6


@pytest.mark.slow
@pytest.mark.parametrize("piece", range(PIECES))
def test_what_a_group_handles_is_handled_once_and_in_order(piece, tmp_path):
    happened: Counter[str] = Counter()
    for seed in range(piece, SEEDS, PIECES):
        world = play(seed, tmp_path)
        assert not world.faults, f"python -m tests.eventlog.members --first {seed} --seeds 1: {world.faults[:5]}"
        happened.update(world.happened)
    assert {"killed", "stopped", "failed", "left", "fenced", "cancelled"} <= set(happened)
