"""Bugs that are easily made in pipelines, planted one by one: the simulation finds each of them."""

import pytest

from headgate.testing.shell import ShellError, run_seed
from tests.shell.planted import Planting
from tests.shell.planted_pipelines import MUTANTS

SEEDS = 300


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.filterwarnings("ignore")  # a broken pipeline leaves coroutines behind that nobody can close
def test_a_planted_bug_is_found(name):
    plant_it, families = MUTANTS[name]
    with Planting() as plant:
        plant_it(plant)
        with pytest.raises(ShellError):
            for seed in range(SEEDS):
                for family in families:
                    run_seed(family, seed)
