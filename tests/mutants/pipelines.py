"""Bugs to plant in the machines of pipelines: batches, the intake, retries. As `tests.mutants.planted`."""

from __future__ import annotations

from headgate.protocol.batches import Batches
from headgate.protocol.intake import Intake
from headgate.protocol.retries import Retries, RetryPolicy
from headgate.protocol.turns import Classes, Fair
from tests.mutants.planted import edit, mutant


@mutant
def timer_of_a_closed_batch_closes_the_next() -> None:
    old = "self.__dict__.setdefault('_timers', {}).setdefault(key, self._now)"
    edit(Batches, "_begin", ("Batch(key, self._now)", f"Batch(key, {old})"))


@mutant
def timeout_since_the_last_item() -> None:
    edit(Batches, "add", ("batch.items += items", "batch.items += items; batch.opened_at = self._now"))


@mutant
def splitter_state_discarded() -> None:
    edit(Batches, "_keep", ("if self._splitter is None:", "if True:"))


@mutant
def splitter_state_of_half_a_batch_kept() -> None:
    edit(Batches, "_close", ("del self._open[key]", "del self._open[key]; self._keep(key, batch.state)"))


@mutant
def splitter_state_shared_by_all_keys() -> None:
    edit(Batches, "_keep", ("states[key] = state", "states.update(dict.fromkeys([*self._open, key], state))"))


@mutant
def serial_batches_ignored() -> None:
    edit(Batches, "_close", ("if self._serial:", "if False:"))
    edit(Batches, "done", ("if not self._serial:", "if True:"))


@mutant
def batch_given_back_to_the_tail() -> None:
    edit(Batches, "give_back", ("ready.insert(place, batch)", "ready.append(batch)"))


@mutant
def batches_given_back_in_reverse() -> None:
    edit(Batches, "give_back", ("while place < len(ready) and", "while False and"))


@mutant
def batch_with_too_many_bytes() -> None:
    edit(Batches, "_put_each", ("batch.bytes + weight <= most", "batch.bytes < most"))


@mutant
def bytes_never_full_at_the_bound() -> None:
    edit(Batches, "_put_each", ("elif batch.bytes >= most:", "elif batch.bytes > most:"))


@mutant
def newest_batch_closed_at_the_limit() -> None:
    edit(Batches, "_begin", ("next(iter(self._open.values()))", "next(reversed(self._open.values()))"))


@mutant
def only_one_key_flushed() -> None:
    edit(Batches, "_add_mixed", ("for key in flushed:", "for key in list(flushed)[:1]:"))


@mutant
def batch_that_is_just_full_stays_open() -> None:
    edit(Batches, "add", ("< self._size", "<= self._size"))


@mutant
def key_of_a_done_batch_blocked_for_ever() -> None:
    edit(Batches, "done", ("self._lines.pop(batch.key)", "self._lines.get(batch.key)"))


@mutant
def put_back_in_reverse() -> None:
    edit(Intake, "put_back", ("self._items[keep:first] = items", "self._items[keep:first] = items[::-1]"))


@mutant
def put_back_to_the_tail() -> None:
    edit(Intake, "_put_first", ("self._turns.put_front(entry)", "self._turns.put(entry)"))


@mutant
def put_back_and_still_out() -> None:
    edit(Intake, "put_back", ("self._out.pop(id(item), None)", "self._out.get(id(item))"))


@mutant
def put_back_behind_the_next_of_its_key() -> None:
    edit(Intake, "_put_before", (".appendleft(behind)", ".append(behind)"))


@mutant
def two_of_a_key_at_once() -> None:
    edit(Intake, "_put_before", ("self._turns.remove(head)", "pass"))


@mutant
def key_order_ignored() -> None:
    edit(Intake, "_add", ("elif key in self._heads:", "elif False:"))


@mutant
def released_key_never_forgotten() -> None:
    edit(Intake, "_next", ("    del self._heads[key]", "    pass"))


@mutant
def failed_follower_ends_its_key() -> None:
    edit(Intake, "_next", ("continue", "break"))


@mutant
def oldest_overflows() -> None:
    edit(Intake, "overflow", ("line.pop()", "line.popleft()"))


@mutant
def overflow_forgotten_at_a_put_back() -> None:
    edit(Intake, "_note", ("if self._key_limit is not None and", "if False and"))


@mutant
def withdrawn_and_still_counted() -> None:
    edit(Intake, "withdraw", ("self.waiting -= len(line)", "pass"))


@mutant
def cleared_by_turns() -> None:
    edit(Intake, "clear", ("entries.sort(", "list(entries).sort("))


@mutant
def fair_between_items_not_users() -> None:
    edit(Fair, "take", ("again(user)", "line.appendleft(user)"))


@mutant
def interrupted_turn_lost() -> None:
    edit(Fair, "_take_shares", ("line.appendleft(user)", "line.append(user)"))


@mutant
def weight_of_one_user_for_the_next() -> None:
    edit(Fair, "_enter", ("user.share = share", "pass"))


@mutant
def classes_do_not_age() -> None:
    edit(Classes, "_turn", ("or self._ageing is None", "or True"))


@mutant
def taken_items_not_counted_for_ageing() -> None:
    edit(Classes, "take", ("self._served += len(got)", "pass"))


@mutant
def one_attempt_too_many() -> None:
    edit(RetryPolicy, "decide", ("failed_attempts >= self.attempts", "failed_attempts > self.attempts"))


@mutant
def first_retry_without_a_wait() -> None:
    edit(RetryPolicy, "decide", ("delay(failed_attempts, chance)", "delay(failed_attempts - 1, chance)"))


@mutant
def any_error_retried() -> None:
    edit(RetryPolicy, "decide", ("if not issubclass(class_of(error), self.on):", "if False:"))


@mutant
def less_specific_class_chosen() -> None:
    edit(Retries, "policy", ("class_of(error).__mro__", "reversed(class_of(error).__mro__)"))


@mutant
def never_means_look_further() -> None:
    edit(Retries, "policy", ("if each in policies:", "if policies.get(each) is not None:"))
