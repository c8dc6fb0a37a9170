"""Events that are settled in several places at once, in a producer's record of what is in flight."""

import itertools
import random

from headgate.protocol.ledger import Subscriber
from headgate.protocol.messages import Subscription, Terms


class Token:
    def __init__(self):
        self.settled = 0

    def settle(self, count):
        self.settled += count

    def part(self, start, stop):
        return self


def ranges(events):
    """Return neighbouring events as ranges."""
    found: list[tuple[int, int]] = []
    for event in sorted(events):
        if found and found[-1][1] == event:
            found[-1] = (found[-1][0], event + 1)
        else:
            found.append((event, event + 1))
    return found


def test_whatever_is_settled_in_several_places_leaves_the_others_in_order():
    for seed in range(500):
        rng = random.Random(seed)
        subscriber = Subscriber(Subscription(1, None, None, Terms()))
        token = Token()
        for _ in range(rng.randrange(1, 9)):
            size = rng.randrange(1, 7)
            subscriber.ledger.append((range(subscriber.sent, subscriber.sent + size), size, token))
            subscriber.sent += size
        left = {*range(subscriber.sent)}
        for _ in range(rng.randrange(1, 7)):
            if rng.random() < 0.3:
                total = rng.randrange(subscriber.acked, subscriber.sent + 1)
                subscriber.ack(total)
                left -= {*range(total)}
            else:
                some = {event for event in left if rng.random() < 0.4}
                subscriber.settle(ranges(some))
                left -= some
            assert subscriber.in_flight == len(left), seed
            assert token.settled == subscriber.sent - len(left), seed
            holes = [piece[0] is None for piece in subscriber.ledger]
            assert not any(one and two for one, two in itertools.pairwise(holes)), seed
        back = [event for batch, _, _ in subscriber.unacked() if batch is not None for event in batch]
        assert back == sorted(left), seed
