"""What the documentation of the original shows."""

import operator
from collections import deque

from headgate import Flow
from headgate.flow import Side, triggers, watermarks, windows
from tests.parity.flows import resets, states, total
from tests.parity.registry import different

WORDS = ["the quick brown fox", "jumps over the lazy dog"]


def of(*lists, workers=2):
    """Begin a flow with several workers."""
    return Flow.from_iterables(lists).options(workers=workers)


def count(counts, word):
    return {**counts, word: counts.get(word, 0) + 1}


def test_elements():
    """FD01, FD02, FD03, FD05, FD06: filter, map of one list and of several, flat_map, reject."""
    assert sorted(of([1, 2, 3]).filter(lambda n: n % 2 == 0).to_list()) == [2]
    assert sorted(of([1, 2, 3]).map(lambda n: n * 2).to_list()) == [2, 4, 6]
    assert sorted(of([1, 2, 3], range(4, 7)).map(lambda n: n * 2).to_list()) == [2, 4, 6, 8, 10, 12]
    assert sorted(of([1, 2, 3]).flat_map(lambda n: [n, n * 2]).to_list()) == [1, 2, 2, 3, 4, 6]
    assert sorted(of([1, 2, 3]).reject(lambda n: n % 2 == 0).to_list()) == [1, 3]


def test_map_values():
    """FD04: pairs whose values are replaced."""
    pairs = of([("a", 1), ("b", 2), ("c", 3)]).map_values(lambda n: n * 2)
    assert sorted(pairs.to_list()) == [("a", 2), ("b", 4), ("c", 6)]


POSTS = [{"id": 1, "title": "hello"}, {"id": 2, "title": "world"}]
COMMENTS = [(1, "excellent"), (1, "outstanding"), (2, "great follow up"), (3, "unknown")]


def test_a_join():
    """FD07: an inner join by a field and an index."""
    both = Flow.from_iterable(POSTS).join(
        Flow.from_iterable(COMMENTS), "id", 0, join=lambda post, comment: (post["title"], comment[1]), workers=2
    )
    assert sorted(both.to_list()) == [
        ("hello", "excellent"),
        ("hello", "outstanding"),
        ("world", "great follow up"),
    ]


def test_a_join_in_windows():
    """FD08: events of one and the same window."""
    posts = [{"id": 1, "title": "hello", "at": 0}, {"id": 2, "title": "world", "at": 1000}]
    comments = [(1, "excellent", 0), (1, "outstanding", 1000), (2, "great follow up", 1000), (3, "unknown", 1000)]
    both = Flow.from_iterable(posts).join(
        Flow.from_iterable(comments),
        "id",
        0,
        window=windows.fixed(1000, by="at"),
        other_by=2,
        join=lambda post, comment: (post["title"], comment[1]),
    )
    assert sorted(both.to_list()) == [("hello", "excellent"), ("world", "great follow up")]


async def test_a_stream():
    """FD10: a flow is iterated, in plain programs and in async ones."""
    flow = of([1, 2, 3]).map(lambda n: n * 2)
    assert sorted(flow) == [2, 4, 6]
    assert sorted([n async for n in flow]) == [2, 4, 6]


def test_reduce():
    """FD11: letters are counted in a mapping, whose pairs come out."""
    letters = of(WORDS, workers=1).flat_map(lambda line: [letter for letter in line if letter != " "])
    expected = {letter: " ".join(WORDS).count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"}
    assert dict(letters.reduce(dict, count).to_list()) == expected
    assert dict(letters.options(workers=3).partition(workers=3).reduce(dict, count).to_list()) == expected


def test_emit_and_reduce():
    """FD12: a window that slides over three numbers."""

    def slide(last, n):
        last = [*last, n][-3:]
        return ([last] if len(last) == 3 else []), last

    flow = of(range(1, 6), workers=1).emit_and_reduce(list, slide).emit("nothing")
    assert flow.to_list() == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]


def test_take_sort():
    """FD13: the word that comes most often, from all partitions."""
    words = of(WORDS, workers=2).flat_map(str.split).partition(workers=2).reduce(dict, count)
    assert words.take_sort(1, by=1, reverse=True).to_list() == [[("the", 2)]]


def test_group_by():
    """FD14, FD15: words by length; values by the first of a pair; in the order of their coming."""
    words = of(WORDS, workers=1).flat_map(str.split)
    groups = dict(words.group_by(len).to_list())
    assert groups[3] == ["the", "fox", "the", "dog"]
    assert {*groups} == {3, 4, 5}
    assert dict(words.group_by(len, str.upper).to_list())[4] == ["OVER", "LAZY"]
    pairs = Flow.from_iterable([("foo", 1), ("foo", 2), ("bar", 3), ("foo", 4)])
    assert pairs.group_by(0, 1).emit("state").to_list() == [{"foo": [1, 2, 4], "bar": [3]}]


def test_uniq():
    """FD16, FD17, FD18: over all; in partitions that do not go by the key; and in some that do."""
    pairs = [(1, "x"), (2, "y"), (2, "z"), (1, "r")]
    assert of(pairs, workers=1).uniq(0).to_list() == [(1, "x"), (2, "y")]
    apart = of(pairs, workers=1).partition(workers=4).uniq(0).to_list()
    assert {*apart} <= {*pairs}
    assert {key for key, _ in apart} == {1, 2}
    by_key = of(pairs, workers=1).partition(hash=lambda pair: pair[0] - 1, workers=2).uniq(0)
    assert sorted(by_key.to_list()) == [(1, "x"), (2, "y")]


def test_on_trigger():
    """FD19: how many words there are in each partition, added up."""
    words = of(WORDS, workers=2).flat_map(str.split).partition(workers=4).reduce(dict, count)
    sizes = words.on_trigger(lambda counts: ([len(counts)], counts)).to_list()
    assert len(sizes) == 4
    assert sum(sizes) == 8


def test_triggers():
    """FD20, FD21: the sums so far of each ten numbers; the sums of each ten."""
    spec = windows.global_(trigger=triggers.every(10))
    numbers = of(range(1, 101), workers=1)
    so_far = [sum(range(1, stop + 1)) for stop in range(10, 101, 10)]
    assert states(total(numbers.window(spec))).to_list() == [*so_far, 5050]
    assert total(numbers.window(spec)).emit("state").to_list() == so_far
    tens = [sum(range(start, start + 10)) for start in range(1, 101, 10)]
    assert resets(total(numbers.partition(workers=1, window=spec))).to_list() == [*tens, 0]


DATA = [("elixir", 0), ("erlang", 1_000), ("elixir", 30_000), ("erlang", 60_000), ("elixir", 70_000)]


def counted(data, **options):
    """Count words in each minute; times are milliseconds."""
    spec = windows.fixed(60_000, by=1, **options)
    side = Side()
    flow = Flow.from_iterable(data, max_demand=1).partition(workers=1, window=spec)
    reduced = flow.reduce(dict, lambda counts, event: count(counts, event[0]), late=side)
    return reduced.emit("state").to_list(), side.events


def test_fixed_windows():
    """FD22: words by the minute."""
    assert counted(DATA)[0] == [{"elixir": 2, "erlang": 1}, {"erlang": 1, "elixir": 1}]
    words = Flow.from_iterable(DATA).window(windows.fixed(60_000, by=1)).count_by(0)
    assert [(each.window.start, each.key, each.value) for each in words.to_list()] == [
        (0, "elixir", 2),
        (0, "erlang", 1),
        (60_000, "erlang", 1),
        (60_000, "elixir", 1),
    ]


LATE = [*DATA, ("elixir", 2_000)]


@different("FD23", "only where the watermark follows events is any of them late; then it is counted, and can be had")
def test_a_late_event():
    """FD23: it is not in its window, which has closed."""
    follows = watermarks.out_of_order(0)
    assert counted(LATE, watermark=follows) == (
        [{"elixir": 2, "erlang": 1}, {"erlang": 1, "elixir": 1}],
        [("elixir", 2_000)],
    )
    assert counted(LATE) == ([{"elixir": 3, "erlang": 1}, {"erlang": 1, "elixir": 1}], [])


def test_a_late_event_with_lateness():
    """FD24: with lateness it is in it."""
    follows = watermarks.out_of_order(0)
    got, late = counted(LATE, watermark=follows, allowed_lateness=3_600_000, trigger=triggers.on_watermark())
    assert late == []
    assert got[-2:] == [{"elixir": 3, "erlang": 1}, {"erlang": 1, "elixir": 1}]
    assert {"elixir": 2, "erlang": 1} in got


def test_count_windows():
    """FD25: the sums of each ten numbers."""
    flow = of(range(1, 101), workers=1).window(windows.count(10))
    tens = [sum(range(start, start + 10)) for start in range(1, 101, 10)]
    assert total(flow).emit("state").to_list() == tens
    assert [each.value for each in flow.sum().to_list()] == tens


def test_sessions():
    """FD26: by hand, with what is sent on while reducing; and as windows."""
    clicks = [("ann", 0), ("bob", 1), ("ann", 5), ("bob", 30), ("ann", 40), ("ann", 41)]

    def step(open_, click):
        user, at = click
        last = open_.get(user)
        if last is not None and at - last[-1] > 10:
            return [(user, last)], {**open_, user: [at]}
        return [], {**open_, user: [*(last or []), at]}

    by_hand = Flow.from_iterable(clicks).emit_and_reduce(dict, step).to_list()
    spec = windows.session(10, by=1)
    words = Flow.from_iterable(clicks).window(spec).group_by(0, 1).to_list()
    expected = [("ann", [0, 5]), ("ann", [40, 41]), ("bob", [1]), ("bob", [30])]
    assert sorted(by_hand) == expected
    assert sorted((each.key, each.value) for each in words) == expected


def test_a_state_of_ones_own():
    """FD12: any state does, also one that is changed where it is."""

    def slide(last, n):
        last.append(n)
        return ([sum(last)] if len(last) == 3 else []), last

    flow = of(range(1, 6), workers=1).emit_and_reduce(lambda: deque(maxlen=3), slide).emit("state")
    assert flow.to_list() == [6, 9, 12, deque([3, 4, 5])]
    assert of([1, 2], [3], workers=3).reduce(int, operator.add, combine=operator.add).to_list() == [6]
