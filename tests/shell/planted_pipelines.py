"""Bugs to plant in pipelines, as `planted` does it in the shell: each function breaks one thing."""

from typing import Any

from headgate.pipeline import batching, processing
from headgate.pipeline.acknowledger import Acknowledger
from headgate.pipeline.batching import Box, _BatchProcessor
from headgate.pipeline.deferring import Handle
from headgate.pipeline.feed import Feed
from headgate.pipeline.processing import AsyncProcessor, Step
from headgate.pipeline.routes import Route
from headgate.pipeline.run import Run
from headgate.protocol.batches import Batches
from headgate.protocol.intake import Intake
from headgate.protocol.limits import Bucket
from headgate.types import Joint

MUTANTS: dict[str, tuple[Any, tuple[str, ...]]] = {}


def mutant(*families):
    """Put a mutant on the list, with the families that look for it."""

    def add(function):
        MUTANTS[function.__name__] = (function, families)
        return function

    return add


@mutant("batching")
def acknowledged_before_the_batch_is_handled(plant):
    plant.edit(
        Box, "add", ("machine = self.machine", "machine = self.machine\n    self.run.acknowledge(list(messages))")
    )


@mutant("retries", "letters")
def failed_messages_are_acknowledged(plant):
    plant.wrap(Run, "_settle_failed", lambda original, self, message, where: self.acknowledge([message]))


@mutant("draining")
def m16_unstarted_messages_are_kept_in_a_drain(plant):
    plant.put(Feed, "clear", lambda self: [])
    plant.put(Run, "give_back", lambda self, message, delay=0.0, *, counted=False: None)


@mutant("draining")
def m17_processors_hear_of_a_drain_too_late(plant):
    plant.edit(Run, "sift", ("self.draining and", "False and"))
    plant.edit(Run, "drain", ("self.give_back(message)", "pass"))
    plant.edit(AsyncProcessor, "handle_events", ("run.draining and", "False and"))


@mutant("batching")
def batches_of_a_dead_handler_are_forgotten(plant):
    plant.edit(Box, "recover", ("self.machine.give_back(batch)", "self.machine.done(batch)"))


@mutant("batching")
def m18_batches_never_expire(plant):
    plant.put(Batches, "expire", lambda self, now: 0)
    plant.put(Run, "_check_end", lambda self: None)


def _with(plant, **changes):
    """Let batches be made with other options."""

    def make(original, self, size, **options):
        original(self, changes["size"](size) if "size" in changes else size, **{**options, **changes.get("more", {})})

    plant.wrap(Batches, "__init__", make)


@mutant("batching")
def batches_are_one_too_large(plant):
    _with(plant, size=lambda size: size + 1 if isinstance(size, int) else size)


@mutant("batching")
def serial_batches_are_not_kept_apart(plant):
    _with(plant, more={"serial": False})


@mutant("leases", "draining")
def m14_outcomes_are_told_twice(plant):
    def told(original, self, method, messages, lost):
        original(self, method, messages, lost)
        if method == "ack" and self.link.direct:
            self.link.call(method, messages)

    plant.wrap(Acknowledger, "_told", told)


@mutant("leases")
def what_was_too_late_is_counted_twice(plant):
    plant.edit(Acknowledger, "_told", ("self.outcomes[message.outcome] -= 1", "pass"))


@mutant("joint")
def a_message_ends_with_the_first_of_its_parts(plant):
    plant.edit(Joint, "settle", ("if not self._left:", "if True:"))


@mutant("joint", "retries")
def a_message_ends_as_the_last_of_its_parts(plant):
    plant.edit(Joint, "settle", ("if order.index(outcome) > order.index(self._worst):", "if True:"))


@mutant("joint")
def a_handle_settles_as_often_as_it_is_used(plant):
    plant.edit(Handle, "_on_loop", ("if self not in self._run.deferred or not self.open:", "if False:"))


@mutant("limits")
def m33_a_rate_lets_twice_as_many_pass(plant):
    plant.wrap(Bucket, "available", lambda original, self, now: 2 * original(self, now))
    plant.wrap(Bucket, "take", lambda original, self, n, now: original(self, max(1, n // 2), now))


@mutant("limits")
def fetches_are_not_limited(plant):
    plant.put(Feed, "_admitted", lambda self, wanted: wanted)


@mutant("fairness")
def keys_are_let_go_when_they_are_taken(plant):
    def take(original, self, limit):
        items = original(self, limit)
        self.release(items)
        return items

    plant.wrap(Intake, "take", take)


@mutant("leases")
def leases_are_never_extended(plant):
    plant.put(Acknowledger, "_renew_later", lambda self: None)


@mutant("retries")
def messages_that_wait_to_be_tried_again_are_forgotten(plant):
    plant.edit(Run, "_go", ("self.feed_of(message).put_back([message])", "pass"))


@mutant("retries")
def retries_never_end(plant):
    plant.wrap(Run, "_delay", lambda original, self, message, retries: 0.01)


@mutant("limits", "routes")
def a_pause_is_not_heard_of(plant):
    plant.edit(Run, "gate", ("self.paused or", "False or"))
    plant.edit(Run, "quiet", ("return False", "return True"))


@mutant("routes")
def what_a_route_gives_back_is_forgotten(plant):
    plant.edit(Route, "nack", ("self._run.give_back(message.receipt, delay, counted=counted)", "pass"))


@mutant("routes")
def a_route_acknowledges_what_it_hands_out(plant):
    def fetch(original, self, count):
        messages = original(self, count)
        for message in messages or ():
            self._settle(message, "acknowledged")
        return messages

    plant.wrap(Route, "fetch", fetch)


@mutant("batching")
def a_full_batcher_never_opens_the_gate_again(plant):
    plant.edit(Box, "done", ("self.machine.done(batch)", "self.machine.done(batch)\n    self.run.gate = lambda: None"))


@mutant("letters")
def what_an_error_hook_takes_back_is_given_up_all_the_same(plant):
    plant.edit(Run, "_dispose", ("if message.reason is None:", "if False:"))


@mutant("retries", "letters")
def a_wrong_return_is_taken_for_success(plant):
    plant.put(processing, "parts_of", lambda message, result: [message])


@mutant("batching")
def messages_missing_in_a_result_are_acknowledged(plant):
    plant.edit(_BatchProcessor, "judge", ("message.reason = message.reason or error", "pass"))


@mutant("batching", "retries")
def a_batch_that_fails_fails_as_a_whole(plant):
    plant.edit(batching, "attempts", ("not options.isolate", "True"))


@mutant("retries")
def a_step_forgets_what_has_failed(plant):
    plant.edit(Step, "settle", ("if failed:", "if False:"))
