"""Handlers in the transaction of their checkpoints that do what they must not: nothing is marked as handled."""

import functools

import pytest

from headgate import EventLogError, OptionError
from headgate.eventlog.store import Statement
from tests.eventlog.conftest import Place, run
from tests.eventlog.test_faults_groups import checkpoints, events


@pytest.fixture(params=["memory", "file"])
def sqlite(request, tmp_path):
    return Place(request.param, tmp_path)


async def plain(batch, db):
    raise AssertionError("it is never run")


class Callable:
    async def __call__(self, batch, db):
        raise AssertionError("it is never run")


@pytest.mark.parametrize("handler", [plain, functools.partial(plain), Callable()])
def test_an_async_handler_in_the_transaction_is_refused(sqlite, handler):
    group = sqlite.log().group("g")
    with pytest.raises(OptionError, match="handler"):
        group.consumer(handler, transaction=True)
    group.consumer(handler)


@pytest.mark.slow
def test_an_async_handler_in_the_transaction_is_taken_by_postgres(tmp_path):
    Place("postgres", tmp_path).log("postgresql://nowhere/log").group("g").consumer(plain, transaction=True)


def with_db(db):
    with db:
        db.execute("INSERT INTO mine VALUES (1)")


def commits(db):
    db.execute("INSERT INTO mine VALUES (1)")
    db.commit()


def rolls_back(db):
    db.execute("INSERT INTO mine VALUES (1)")
    db.rollback()


def gives_a_coroutine(db):
    db.execute("INSERT INTO mine VALUES (1)")
    return plain([], db)


@pytest.mark.parametrize(
    ("work", "error", "written"),
    [
        (with_db, EventLogError, 1),
        (commits, EventLogError, 1),
        (rolls_back, EventLogError, 0),
        (gives_a_coroutine, OptionError, 0),
    ],
)
def test_a_function_that_does_not_leave_its_transaction_alone_marks_nothing(sqlite, work, error, written):
    @run
    async def _():
        async with sqlite.log() as log:
            await log.store.run(lambda db: db.execute("CREATE TABLE mine (n integer)"))
            await log.append("s", events(1))
            group = log.group("g", partitions=1)
            await group.join()
            taken = await group.take(1)
            with pytest.raises(error):
                await group.done_in(taken, work)
            assert await checkpoints(log) == {0: 0}
            (rows,) = await log.store.transact([Statement("SELECT n FROM mine")])
            assert len(rows) == written
            await group.done_in(group.mine(taken), lambda db: None)
            assert await checkpoints(log) == {0: 1}
            await group.leave()
