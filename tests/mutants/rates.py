"""Bugs to plant in rate limits, circuit breakers and look-ups. As `tests.mutants.planted`."""

from __future__ import annotations

from headgate.pipeline.augment import Augment
from headgate.pipeline.lookups import Calls, _Call
from headgate.pipeline.rates import RateLimiter
from headgate.protocol.circuits import Circuit
from headgate.protocol.limits import Bucket, KeyedBuckets
from tests.mutants.planted import edit, mutant


@mutant
def bucket_set_back_at_fixed_times() -> None:
    edit(Bucket, "_drain", ("self._level - came", "self._level - (self._level if passed >= 1 else came)"))


@mutant
def bucket_admits_when_anything_is_left() -> None:
    edit(Bucket, "wait", ("excess = self._level + ahead + n - self.burst", "excess = self._level + ahead - self.burst"))


@mutant
def bucket_charged_for_what_it_refused() -> None:
    edit(Bucket, "take", ("if not wait:", "if True:"))


@mutant
def reserved_tokens_not_taken() -> None:
    edit(Bucket, "reserve", ("self._level += n", "self._level += n if not wait else 0"))


@mutant
def all_given_back_however_late() -> None:
    edit(Bucket, "give_back", ("max(0.0, n - lost)", "n"))


@mutant
def given_back_under_reservations() -> None:
    edit(Bucket, "give_back", ("if self._level <= self.burst:", "if True:"))


@mutant
def new_rate_for_the_time_before() -> None:
    edit(Bucket, "update", ("self._drain(now)", "pass"))


@mutant
def update_fills_the_bucket() -> None:
    edit(Bucket, "update", ("self._drain(now)", "self._drain(now); self._level = 0.0"))


@mutant
def clock_set_back_refills() -> None:
    edit(Bucket, "_drain", ("if passed > 0.0:", "if passed < 0.0: passed = -passed\n    if passed > 0.0:"))


@mutant
def clock_set_back_stops_it() -> None:
    edit(Bucket, "_drain", ("-passed * self.rate > self.burst", "False"))


@mutant
def buckets_in_debt_forgotten() -> None:
    edit(KeyedBuckets, "_forget", ("if not bucket.full(now):", "if False:"))


@mutant
def a_key_never_forgotten() -> None:
    edit(KeyedBuckets, "_forget", ("del self._buckets[key]", "return"))


@mutant
def waiters_woken_without_a_check() -> None:
    edit(RateLimiter, "_turn", ("if not wait:", "if not wait or waiter.timer is None and wait < 0.1:"))


@mutant
def cancelled_waiter_stalls_its_line() -> None:
    edit(RateLimiter, "_leave", ("            _wake_first(line)", "            pass"))


@mutant
def cancelled_waiter_stays_in_line() -> None:
    edit(RateLimiter, "_leave", ("line.pop(waiter, None)", "pass"))


@mutant
def newcomers_overtake_the_line() -> None:
    edit(RateLimiter, "acquire", ("if line is None:", "if line is None or True:"))


@mutant
def given_up_call_leaves_its_place() -> None:
    edit(
        _Call,
        "_expire",
        ("_ring(self._over)", "calls.slots.release(); self.task.remove_done_callback(self._ended); _ring(self._over)"),
    )


@mutant
def place_given_back_twice() -> None:
    edit(_Call, "drop", ("self._dropped = True", "self._dropped = True; self._calls.slots.release()"))


@mutant
def place_lost_when_the_circuit_opens() -> None:
    edit(Calls, "call", ("self.slots.release()", "pass"))


@mutant
def retries_pass_the_limit_by() -> None:
    edit(_Call, "_run", ("if calls.rate is not None:", "if calls.rate is not None and not self._calls.timeouts:"))


@mutant
def place_held_while_nobody_calls() -> None:
    edit(_Call, "_ended", ("calls.slots.release()", "task.cancelled() or calls.slots.release()"))


@mutant
def keys_looked_up_twice_at_once() -> None:
    edit(Augment, "_fetch", ("flight = self._flights.get(key)", "flight = None"))


@mutant
def who_joined_ends_with_the_first() -> None:
    edit(
        Augment,
        "_fetch",
        ("if not flight.waiters and not flight.landed:", "if not flight.landed:\n            flight.waiters.clear()"),
    )


@mutant
def abandoned_key_cannot_be_joined() -> None:
    edit(Augment, "_abandon", ("trip = flight.trip", "trip = flight.trip; self._forget(flight)"))


@mutant
def results_of_a_batch_shifted() -> None:
    edit(Augment, "_spread", ("found = list(results)", "found = list(results[1:]) + [results[0]]"))


@mutant
def trip_cancelled_before_it_began_never_ends() -> None:
    edit(Augment, "_end", ("self._trips.discard(trip)", "trip.flights[0].landed and self._trips.discard(trip)"))


@mutant
def failures_remembered_by_the_cache() -> None:
    edit(Augment, "_land", ("if error is None and self._cache", "if self._cache"))


@mutant
def cache_never_asked() -> None:
    edit(Augment, "_fetch", ("(known := self._cache.get(key, _MISSING))", "(known := _MISSING)"))


@mutant
def trial_that_was_cancelled_blocks_the_circuit() -> None:
    edit(Circuit, "abandoned", ("self._trying -= 1", "pass"))


@mutant
def circuit_forgets_who_waits_for_it() -> None:
    edit(Calls, "tell", ("_ring(held)", "pass"))
