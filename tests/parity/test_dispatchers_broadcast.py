"""The broadcast dispatcher: what the consumers have in common is asked for, and delivered to all of them."""

import pytest

from headgate import BroadcastDispatcher, SubscriptionError
from tests.parity.bench import Bench
from tests.parity.stages import refused


def broadcast(*consumers):
    bench = Bench(BroadcastDispatcher())
    for name in consumers:
        assert bench.subscribe(name) == 0
    return bench


def test_subscribing_and_cancelling_ask_for_nothing():
    """G144: and leave nothing behind."""
    bench = broadcast("a")
    assert bench.pending() == {"a": 0}
    assert bench.cancel("a") == 0
    assert bench.pending() == {}
    assert bench.wanted() == 0


def test_a_single_consumer():
    """G145: it asks for 10, and when it leaves the 10 stay known as requested; events for nobody come back."""
    bench = broadcast("a")
    assert bench.ask("a", 10) == 10
    assert bench.cancel("a") == 0
    assert bench.side.requested == 10
    assert bench.dispatch(1, 2, 3) == [1, 2, 3]
    assert bench.received() == []
    assert bench.subscribe("b") == 0
    assert bench.ask("b", 7) == 0


def test_a_second_subscriber_holds_up_the_first():
    """G146: when the first leaves, the second's 10 are requested already."""
    bench = broadcast("a")
    assert bench.ask("a", 10) == 10
    assert bench.subscribe("b") == 0
    assert bench.wanted() == 0
    assert bench.dispatch(1) == [1]
    bench.side.requested += 1
    assert bench.cancel("a") == 0
    assert bench.ask("b", 10) == 0
    assert bench.dispatch(*range(12)) == [10, 11]
    assert bench.received() == [("b", list(range(10)))]


def test_demand_goes_upstream_when_the_slowest_has_asked():
    """G147: cancelling the one that never did lets the other's 10 through, and a later ask adds 10."""
    bench = broadcast("a", "b")
    assert bench.ask("a", 10) == 0
    assert bench.cancel("b") == 10
    assert bench.ask("a", 10) == 10
    assert bench.side.requested == 20


def test_everybody_gets_what_all_have_asked_for():
    """G148: over several consumers, with leftovers, without demand, and with one that comes late."""
    bench = broadcast("a", "b")
    assert bench.ask("a", 3) == 0
    assert bench.ask("b", 2) == 2
    assert bench.dispatch("a", "b") == []
    assert bench.received() == [("a", ["a", "b"]), ("b", ["a", "b"])]
    assert bench.pending() == {"a": 1, "b": 0}

    assert bench.ask("b", 2) == 1
    assert bench.dispatch("c", "d") == ["d"]
    assert bench.received() == [("a", ["c"]), ("b", ["c"])]
    assert bench.pending() == {"a": 0, "b": 1}

    assert bench.dispatch("d") == ["d"]
    assert bench.received() == []

    assert bench.ask("a", 1) == 1
    assert bench.subscribe("c") == 0
    assert bench.pending() == {"a": 1, "b": 1, "c": 0}
    assert bench.wanted() == 0
    assert bench.dispatch("d", "e") == ["d", "e"]
    assert bench.received() == []

    assert bench.ask("c", 1) == 1
    assert bench.dispatch("d", "e") == ["e"]
    assert bench.received() == [("a", ["d"]), ("b", ["d"]), ("c", ["d"])]
    assert bench.ask("a", 2) == 0
    assert bench.ask("b", 2) == 0
    assert bench.ask("c", 3) == 2
    assert bench.dispatch("e", "f") == []
    assert bench.received() == [("a", ["e", "f"]), ("b", ["e", "f"]), ("c", ["e", "f"])]
    assert bench.pending() == {"a": 0, "b": 0, "c": 1}


def test_a_late_subscriber_that_asks_for_more_than_is_left():
    """G149: only the common 7 can be delivered; both get them, and the other 13 of the late one are remembered."""
    bench = broadcast("a")
    assert bench.ask("a", 10) == 10
    assert bench.dispatch(*range(3)) == []
    assert bench.subscribe("b") == 0
    assert bench.ask("b", 20) == 0
    bench.received()
    assert bench.dispatch(*range(3, 11)) == [10]
    assert bench.received() == [("a", list(range(3, 10))), ("b", list(range(3, 10)))]
    assert bench.pending() == {"a": 0, "b": 13}
    assert bench.ask("a", 13) == 13


def test_what_was_requested_for_a_leaver_serves_a_newcomer():
    """G150: nothing is asked for twice."""
    bench = broadcast("a")
    assert bench.ask("a", 10) == 10
    assert bench.dispatch(*range(4)) == []
    assert bench.cancel("a") == 0
    assert bench.subscribe("b") == 0
    assert bench.ask("b", 6) == 0
    bench.received()
    assert bench.dispatch(*range(4, 10)) == []
    assert bench.received() == [("b", list(range(4, 10)))]
    assert bench.ask("b", 5) == 5


def test_a_leaver_and_a_newcomer_among_others():
    bench = broadcast("a", "b")
    assert bench.ask("a", 10) == 0
    assert bench.ask("b", 10) == 10
    assert bench.cancel("a") == 0
    assert bench.subscribe("c") == 0
    assert bench.ask("c", 10) == 0
    assert bench.dispatch(*range(10)) == []
    assert bench.received() == [("b", list(range(10))), ("c", list(range(10)))]
    assert bench.side.requested == 0


def test_events_that_waited_for_a_successor_come_before_newer_ones():
    """In the original they wait for ever, and are overtaken."""
    bench = broadcast("a")
    assert bench.ask("a", 10) == 10
    bench.cancel("a")
    bench.emit(1, 2, 3)
    bench.subscribe("b")
    assert bench.ask("b", 10) == 0
    assert bench.received() == [("b", [1, 2, 3])]
    bench.emit(4, 5)
    assert bench.received() == [("b", [4, 5])]


def test_a_selector_chooses_and_what_it_leaves_out_is_asked_for_again():
    """G152: one that leaves out one event wants one more, and one that leaves out two wants two."""
    bench = Bench(BroadcastDispatcher())
    bench.subscribe("odd", selector=lambda event: event % 2 == 1)
    bench.subscribe("one", selector=lambda event: event == 1)
    assert bench.ask("odd", 3) == 0
    assert bench.ask("one", 3) == 3
    assert bench.dispatch(1, 2, 3) == []
    assert bench.received() == [("odd", [1, 3]), ("one", [1])]
    assert bench.pending() == {"odd": 1, "one": 2}
    assert bench._upstream() == 1
    assert bench.cancel("odd") == 1
    assert bench.dispatch(1, 1) == []
    assert bench.received() == [("one", [1, 1])]


def test_a_selector_that_leaves_out_everything_stops_nothing():
    bench = Bench(BroadcastDispatcher())
    bench.subscribe("none", selector=lambda event: False)
    bench.subscribe("all", selector=lambda event: True)
    bench.ask("none", 2)
    assert bench.ask("all", 2) == 2
    assert bench.dispatch(1, 2) == []
    assert bench.received() == [("all", [1, 2])]
    assert bench.ask("all", 2) == 2


def test_an_info_is_delivered_at_once():
    """G153: and nothing else changes."""
    bench = broadcast("a", "b")
    bench.ask("a", 3)
    bench.ask("b", 3)
    assert not bench.side.info("hello")
    assert bench.pending() == {"a": 3, "b": 3}
    assert bench.received() == []


def test_the_same_consumer_cannot_subscribe_twice():
    """G154: it is told, and nothing changes."""
    bench = Bench(BroadcastDispatcher())
    stage = type("Stage", (), {"name": "consumer"})()
    bench.subscribe("a", stage=stage)
    assert bench.ask("a", 5) == 5
    with refused(SubscriptionError, "'consumer'", "it has one already"):
        bench.subscribe("b", stage=stage)
    assert bench.pending() == {"a": 5}
    assert bench.dispatch(*range(5)) == []
    assert bench.received() == [("a", list(range(5)))]


@pytest.mark.parametrize("selector", [1, "odd", (lambda: True,)])
def test_a_selector_has_to_be_a_function(selector):
    """In the original a bad one kills the producer and everybody attached."""
    bench = broadcast("a")
    bench.ask("a", 5)
    with refused(SubscriptionError, "expected option 'selector' to be a function of an event"):
        bench.subscribe("b", selector=selector)
    assert bench.pending() == {"a": 5}
    assert bench.wanted() == 5
