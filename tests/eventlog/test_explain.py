"""How an entity got where it is: what each of its events has changed, and what became of it."""

from headgate.eventlog import Event, Projection, archive, explain, reverse
from headgate.eventlog.replay import MISSING
from tests.eventlog.conftest import run
from tests.eventlog.ledger import Deposited, balances, types


def test_what_was_undone_is_told_as_such_in_an_archive_too(place, tmp_path):
    @run
    async def _():
        async with place.log(types=types) as log:
            await log.append("a", [Deposited(1), Deposited(2)])
            await reverse(log, 1)
            await log.append("a", [Deposited(4)])
            await reverse(log, 2)
            for until in (0, 3, 4):
                await archive(log, tmp_path, until)
                steps = await explain(log, balances, "a")
                assert [(each.undone_by, each.undoes) for each in steps] == [
                    (3, None),
                    (5, None),
                    (None, 1),
                    (None, None),
                    (None, 2),
                ]


def test_states_of_any_form_begin_and_end_with_nothing(place):
    def last(state, event):
        return event.plain["n"]

    @run
    async def _():
        async with place.log() as log:
            await log.append(
                "a", [Event("e", {"n": each}) for each in (5, [1], None, {"b": 1, "c": 2}, {"b": 1}, None)]
            )
            steps = await explain(log, Projection("p", last), "a")
            changes = [[(each.path, each.before, each.after) for each in step.changes] for step in steps]
            assert changes == [
                [("state", MISSING, 5)],
                [("state", 5, [1])],
                [("state", [1], MISSING)],
                [("b", MISSING, 1), ("c", MISSING, 2)],
                [("c", 2, MISSING)],
                [("b", 1, MISSING)],
            ]
