"""Recipes: what gen_stage calls a child specification."""

from headgate import Child
from tests.parity.stages import Counter, Log


def test_a_recipe_has_defaults_and_every_field_can_be_overridden():
    """G001: id, start and the rest come by themselves, and can be given where the child is declared."""
    log = Log()
    plain = Child(Counter, log)
    assert (plain.id, plain.cls, plain.args, plain.name) == ("Counter", Counter, (log,), None)
    assert (plain.restart, plain.shutdown) == ("permanent", 5.0)
    given = Child(Counter, log, id="id", name="counter", restart="temporary", shutdown=float("inf"))
    assert (given.id, given.name, given.restart, given.shutdown) == ("id", "counter", "temporary", float("inf"))
    first, second = given.build(), given.build()
    assert isinstance(first, Counter)
    assert first.log is log
    assert first is not second
