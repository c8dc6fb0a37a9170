"""What is done event by event, by two workers, by four, and in four partitions."""

import operator

import pytest

from headgate import Flow, OperatorError
from tests.parity.flows import even, four, parted, states, total, two
from tests.parity.registry import different
from tests.parity.stages import refused

SHAPES = pytest.mark.parametrize(
    ("flow", "numbers"),
    [(two(), range(1, 7)), (four(), range(1, 7)), (parted(), range(1, 11))],
    ids=["2", "4", "by key"],
)


@SHAPES
def test_sources_alone(flow, numbers):
    """F013, F038, F060: everything comes, once."""
    assert sorted(flow.to_list()) == list(numbers)
    assert sorted(flow) == list(numbers)


def test_the_groups_of_partitions():
    """F060: and in partitions, each event is in the group of its key, and in no other."""
    groups = parted().reduce(list, lambda group, number: [*group, number]).emit("state").to_list()
    assert len(groups) == 4
    assert sorted(number for group in groups for number in group) == list(range(1, 11))
    again = parted().reduce(list, lambda group, number: [*group, number]).emit("state").to_list()
    assert sorted(map(sorted, groups)) == sorted(map(sorted, again))


@SHAPES
def test_a_function_raises(flow, numbers):
    """F014, F039, F061: what a function raises comes to the caller, with the operator and the event."""

    def fail(number):
        raise ValueError("oops")

    for run in (flow.map(fail).to_list, flow.map(fail).run, lambda: list(flow.map(fail))):
        with refused(OperatorError, "map(fail)", "ValueError: oops") as caught:
            run()
        assert caught.value.event in numbers


@SHAPES
def test_filter(flow, numbers):
    """F015, F040, F062: what a function is true for stays."""
    assert sorted(flow.filter(even).to_list()) == [n for n in numbers if n % 2 == 0]


@SHAPES
def test_flat_map(flow, numbers):
    """F016, F041, F063: an event becomes any number of them; one level is taken away."""
    assert sorted(flow.flat_map(lambda n: [n, n]).to_list()) == sorted([*numbers, *numbers])
    assert flow.flat_map(lambda n: []).to_list() == []
    assert sorted(flow.flat_map(lambda n: [[n]]).to_list()) == [[n] for n in numbers]


@pytest.mark.parametrize("flow", [two(), four()], ids=["2", "4"])
def test_map_batches(flow):
    """F017, F042: each list is one batch; what comes of it can be mapped, by batches and one by one."""
    summed = flow.map_batches(lambda batch: [sum(batch)])
    assert sorted(summed.to_list()) == [6, 15]
    assert sorted(summed.map(lambda n: n * 2).to_list()) == [12, 30]
    both = flow.map_batches(lambda batch: batch + batch).map_batches(lambda batch: [len(batch)])
    assert both.to_list() == [6, 6]


def test_map_batches_in_partitions():
    """F065: in partitions, a batch is what one list has for one of them."""
    sums = parted().map_batches(lambda batch: [sum(batch)]).to_list()
    assert sum(sums) == 55
    assert 4 <= len(sums) <= 10


@SHAPES
def test_map(flow, numbers):
    """F043, F064: each event is replaced."""
    assert sorted(flow.map(lambda n: n * 2).to_list()) == [n * 2 for n in numbers]


@SHAPES
def test_reject(flow, numbers):
    """F019, F044, F066: what a function is true for goes."""
    assert sorted(flow.reject(even).to_list()) == [n for n in numbers if n % 2]


@pytest.mark.parametrize("flow", [two(), four()], ids=["2", "4"])
def test_uniq(flow):
    """F020, F047: one of each key, over all workers."""
    found = flow.uniq(lambda n: n % 2).to_list()
    assert sorted(n % 2 for n in found) == [0, 1]


def test_uniq_in_partitions():
    """F069: behind a partition, one of each key in each."""
    remainders = parted().uniq(lambda n: n % 2)
    assert 4 <= len(remainders.to_list()) <= 8
    alone = Flow.from_iterable(range(1, 11)).partition(lambda n: n % 2, workers=4).uniq(lambda n: n % 2)
    assert len(alone.to_list()) == 2


@SHAPES
def test_a_chain(flow, numbers):
    """F021, F048, F070: operators are done in the order in which they are written."""
    chain = flow.filter(even).map(lambda n: n + 1).map(lambda n: n * 2)
    assert sorted(chain.to_list()) == [(n + 1) * 2 for n in numbers if n % 2 == 0]


@different("F022", "without partitions there is one result, however many workers there are; behind one, one for each")
@pytest.mark.parametrize("flow", [two(), four()], ids=["2", "4"])
def test_reduce(flow):
    """F022, F045: the totals that on_trigger gives add up to that of all."""
    assert states(total(flow)).to_list() == [21]
    apart = states(total(flow.shuffle(workers=2))).to_list()
    assert len(apart) == 2
    assert sum(apart) == 21


def test_reduce_in_partitions():
    """F067: each partition gives its state, those without events too."""
    assert sum(states(total(parted())).to_list()) == 55
    assert len(states(total(parted())).to_list()) == 4
    lonely = Flow.from_iterable([8, 4, 8]).partition(workers=4)
    assert sorted(states(total(lonely)).to_list()) == [0, 0, 0, 20]
    assert sorted(states(total(lonely.reject(even))).to_list()) == [0, 0, 0, 0]


@pytest.mark.parametrize("flow", [two(), four()], ids=["2", "4"])
def test_emit_and_reduce(flow):
    """F023, F046: what it sends on comes, and the state at the end."""
    both = states(flow.emit_and_reduce(int, lambda state, n: ([n], state + n)))
    assert sum(both.to_list()) == 42
    assert sorted(both.to_list())[:6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("flow", [two(), four()], ids=["2", "4"])
def test_flat_map_before_emit_and_reduce(flow):
    """F024: also behind other operators."""
    twice = flow.flat_map(lambda n: [n, n])
    assert sum(states(twice.emit_and_reduce(int, lambda state, n: ([n], state + n))).to_list()) == 84


def test_emit_and_reduce_in_partitions():
    """F068: and in partitions."""
    flow = states(parted().emit_and_reduce(int, lambda state, n: ([n], state + n)))
    assert sum(flow.to_list()) == 110
    assert len(flow.to_list()) == 14


def test_a_state_that_is_a_collection_gives_what_is_in_it():
    """F022: unless somebody says otherwise, a state's elements come out of it; of a mapping, its pairs."""
    flow = Flow.from_iterable([1, 2, 3])
    assert flow.reduce(list, lambda state, n: [*state, n]).to_list() == [1, 2, 3]
    assert flow.reduce(dict, lambda state, n: {**state, n: n * n}).to_list() == [(1, 1), (2, 4), (3, 9)]
    assert flow.reduce(dict, lambda state, n: {**state, n: n * n}).emit("state").to_list() == [{1: 1, 2: 4, 3: 9}]
    assert flow.reduce(int, operator.add).to_list() == [6]
    assert flow.reduce(int, operator.add).emit("nothing").to_list() == []
