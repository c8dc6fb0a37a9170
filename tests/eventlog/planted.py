"""Bugs to plant in the event log, as `tests.mutants.planted`: each breaks one thing, in this process, for good.

Each has the tests that should find it: arguments for pytest, or the name of a function of `tests.eventlog.mutants`.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any

from headgate.eventlog import checkpoints, codecs, planning, postgres_schema, projection, record, registry
from headgate.eventlog.archive import Archives
from headgate.eventlog.groups import Group, Held
from headgate.eventlog.leases import Leases
from headgate.eventlog.masking import Policy
from headgate.eventlog.planning import Plan
from headgate.eventlog.projection import Projection
from headgate.eventlog.projector import Projector, _Beside
from headgate.eventlog.source import LogSource
from headgate.eventlog.sqlite import SqliteStore
from headgate.eventlog.stages import LogProducer
from headgate.eventlog.vault import Vault
from tests.mutants.planted import CannotPlantError, edit

# The package has functions of these names.
archive, reverse, verify, replay = (
    sys.modules[f"headgate.eventlog.{name}"] for name in ("archive", "reverse", "verify", "replay")
)
MUTANTS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {}
TESTS = "tests/eventlog/"


def mutant(*found_by):
    def put(function):
        MUTANTS[function.__name__] = function, found_by
        return function

    return put


def edit_function(module, name, *changes):
    """Replace text in the source of a function, in all modules that have it."""
    function = getattr(module, name)
    source = "from __future__ import annotations\n" + inspect.getsource(function)
    for old, new in changes:
        if old not in source:
            raise CannotPlantError(f"{module.__name__}.{name} has no {old!r}")
        source = source.replace(old, new)
    namespace: dict[str, Any] = {}
    exec(compile(source, f"<mutant of {module.__name__}.{name}>", "exec"), vars(module), namespace)
    for each in list(sys.modules.values()):
        if getattr(each, "__name__", "").startswith("headgate") and vars(each).get(name) is function:
            setattr(each, name, namespace[name])


@mutant("scale_postgres")
def positions_are_given_before_the_commit():
    """Writers no longer wait for each other: a later position can be committed first."""
    lock = "PERFORM pg_advisory_xact_lock(7235, hashtext('{s}'));"
    for name in ("EVENTS", "ARCHIVED_IN"):
        script = getattr(postgres_schema, name)
        if script.count(lock) != 1:
            raise CannotPlantError(f"postgres_schema.{name}")
        setattr(postgres_schema, name, script.replace(lock, ""))


@mutant(TESTS + "test_faults_disk.py", "-k", "half")
def checkpoint_in_a_second_transaction():
    edit(
        Projector,
        "_write",
        (
            "await self.log.store.transact(steps)",
            "await self.log.store.transact(steps[1:]); await self.log.store.transact(steps[:1])",
        ),
    )


@mutant(TESTS + "test_append.py", TESTS + "test_stages.py")
def acknowledged_before_the_commit():
    edit(
        SqliteStore,
        "_write",
        ("self._begin()", "self._db.in_transaction or self._begin()"),
        ('self._db.execute("COMMIT")', "pass"),
    )


@mutant("storm_sqlite")
def acknowledged_and_committed_with_the_next_one():
    """The reader is the writer's own connection here, so that nobody sees it but after a kill."""
    edit(
        SqliteStore,
        "_write",
        ("self._begin()", "self._db.in_transaction or self._begin()"),
        (
            'self._db.execute("COMMIT")',
            "self._turns = getattr(self, '_turns', 0) + 1; self._turns % 2 or self._db.execute('COMMIT')",
        ),
    )
    edit(SqliteStore, "_transact", ("self._begin()", "self._db.in_transaction or self._begin()"))


@mutant(TESTS + "test_power.py", "-k", "storm")
def acknowledged_before_it_is_on_the_disk():
    edit(SqliteStore, "_open", ("{'FULL' if self._durability == 'power' else 'NORMAL'}", "NORMAL"))


@mutant(TESTS + "test_power.py", "-k", "synced_when")
def what_was_left_by_one_who_was_killed_is_taken_for_safe():
    edit(SqliteStore, "_open", ('if self._durability == "power"', "if False"))


@mutant(TESTS + "test_power.py", "-k", "synced_when")
def what_is_there_already_is_taken_for_safe():
    edit(SqliteStore, "_write", ('if self._durability == "power" and', "if False and"))


@mutant(TESTS + "test_faults_tail.py")
def a_gap_is_not_waited_for():
    """What is committed between the read and the look at the end is passed over."""
    edit(LogProducer, "_page", ("else upto + 1", "else (await log.head()) + 1"))


@mutant(TESTS + "test_verify.py", TESTS + "test_faults_damage.py")
def the_chain_does_not_cover_who_did_it():
    edit(Plan, "_write", ("{actor or ''}", ""))
    edit_function(record, "digest_of", ("{actor or ''}", ""))


@mutant(TESTS + "test_faults_damage.py")
def nothing_and_an_empty_text_are_the_same_to_verify():
    edit_function(verify, "_fits", ("    if not all", "    return True\n    if not all"))


@mutant(TESTS + "test_append.py", TESTS + "test_reverse.py")
def reversed_twice():
    edit(Plan, "_check_reversals", ("if by is not None:", "if False:"))


@mutant(TESTS + "test_reverse.py", TESTS + "test_properties.py")
def what_was_undone_is_undone_again_with_its_command():
    edit_function(reverse, "in_effect", ("if length % 2:", "if True:"))


@mutant(TESTS + "test_faults_damage.py", "-k", "undone")
def archived_and_reversed_twice():
    edit_function(reverse, "_undo", ("if event.position <= archived:", "if False:"))


@mutant(TESTS + "test_fork.py")
def masks_differ_from_event_to_event():
    edit(Policy, "_digest", ("hmac.new(self._key,", "hmac.new(os.urandom(16),"))


@mutant(TESTS + "test_append.py")
def an_event_that_is_there_is_appended_again():
    edit_function(planning, "needs", ("if draft.known:", "if False:"))


@mutant(TESTS + "test_append.py")
def expected_versions_are_not_looked_at():
    edit(Plan, "_place", ("expected is not None and expected != version", "False"))


@mutant(TESTS + "test_append.py", TESTS + "test_properties.py")
def a_refused_append_is_written_by_half():
    edit(Plan, "place", ("del self.rows[rows:]", "pass"))


@mutant(TESTS + "test_append.py", TESTS + "test_properties.py")
def times_go_back_with_the_clock():
    edit(Plan, "__init__", ("max(now, head.recorded_at)", "now"))


@mutant(TESTS + "test_append.py", TESTS + "test_properties.py")
def what_others_have_written_is_not_noticed():
    edit(SqliteStore, "_plan", ("if now != self._seen:", "if self._seen < 0:"))


@mutant(TESTS + "test_faults_disk.py", "-k", "not postgres and not every")
def versions_of_what_was_taken_back_stay_known():
    edit(
        SqliteStore,
        "_write",
        (
            "insert(self._db, plan.rows)",
            "self._head = plan.head; self._versions.update(plan.versions); insert(self._db, plan.rows)",
        ),
    )
    edit(SqliteStore, "_rollback", ("self._seen = -1", "pass"))


@mutant(TESTS + "test_faults_disk.py", "-k", "archive")
def removed_before_it_is_archived():
    edit_function(
        archive,
        "archive",
        ("\n        await _remove(log, file, rows)\n        done", "\n        done"),
        (
            "        try:\n            if not",
            "        await _remove(log, file, rows)\n        try:\n            if not",
        ),
    )


@mutant(TESTS + "test_faults_damage.py", TESTS + "test_properties.py", "-k", "not postgres and not every")
def ids_are_forgotten_with_their_events():
    edit_function(archive, "_remove", ("Statement(ids, (rows[-1][0],)),", ""))


@mutant(TESTS + "test_faults_damage.py", "-k", "two_logs")
def archives_of_others_are_overwritten():
    edit_function(archive, "_is_there", ("if not file.exists():", "if True:"))


@mutant(TESTS + "test_faults_damage.py", "-k", "archive")
def an_archive_that_was_cut_is_taken_for_whole():
    edit_function(
        archive,
        "read_file",
        ("end is None or", "end is not None and ("),
        ("total.hexdigest():", "total.hexdigest()):"),
    )


@mutant(TESTS + "test_faults_damage.py", "-k", "read_before")
def verify_trusts_what_is_in_memory():
    setattr(Archives, "forget", lambda self: None)  # noqa: B010 (as mypy wants it)


@mutant(TESTS + "test_stages.py", TESTS + "test_projection.py")
def the_replaced_move_checkpoints():
    edit_function(
        checkpoints, "moved", ("AND position = ? AND epoch = ?", ""), (", old.position, old.epoch)", ")")
    )  # fmt: skip


@mutant(TESTS + "test_stages.py")
def a_checkpoint_passes_what_is_not_handled():
    setattr(Held, "reached", property(lambda self: self.read))  # noqa: B010


@mutant(TESTS + "test_faults_groups.py")
def a_lost_partition_is_kept():
    async def look(self):
        pass

    setattr(Group, "_look_again", look)  # noqa: B010


@mutant(TESTS + "test_members.py")
def a_checkpoint_goes_back_when_its_partition_is_let_go():
    edit(
        Leases,
        "_released",
        ("CASE WHEN position < ? THEN ? ELSE position END", "?"),
        ("(reached, reached,", "(reached,"),
    )


@mutant(TESTS + "test_members.py")
def what_was_written_without_an_answer_stays_open():
    edit(Group, "_compare", ("elif found.position > held.checkpoint.position:", "elif False:"))


@mutant(TESTS + "test_groups_lost.py")
def what_was_lost_since_it_was_chosen_is_handed_out():
    edit(Group, "_hand_out", ("if self._held.get(partition) is held and not held.leaving", "if True"))


@mutant(TESTS + "test_groups_lost.py")
def what_was_taken_up_meanwhile_is_let_go():
    edit(Group, "_compare", ("before.items()", "list(self._held.items())"))


@mutant(TESTS + "test_groups_outage.py")
def a_read_that_has_failed_is_kept():
    edit(
        LogSource,
        "fetch",
        ("taking, self._taking = self._taking, None", "taking = self._taking"),
        ("for event in taking.result()]", "for event in taking.result()]; self._taking = None"),
    )


@mutant(TESTS + "test_groups_outage.py")
def one_failed_renewal_is_the_last():
    edit(Group, "_keep", ("failures += 1", "return"))


@mutant(TESTS + "test_groups_outage.py", TESTS + "test_members.py")
def what_cannot_be_renewed_is_kept():
    edit(Group, "_renewed", ("self._end = asyncio", "asyncio"), ("self._let_go)", "lambda: None)"))


@mutant(TESTS + "test_groups_joining.py", "-k", "rows_that_another_one_changes")
def partitions_are_made_with_each_renewal():
    add = (
        "INSERT INTO ~checkpoints (name, partition, position, epoch, updated_at) VALUES (?, ?, 0, 0, 0) "
        "ON CONFLICT (name, partition) DO NOTHING"
    )
    rows = f"Statement({add!r}, many=[(self._name, each) for each in range(self._partitions)]),"
    edit(Leases, "renew", ("Statement(members,", f"{rows} Statement(members,"))


@mutant(TESTS + "test_groups_transaction.py")
def an_async_function_in_a_transaction_is_passed_over():
    edit(SqliteStore, "_work", ("if inspect.isawaitable(result):", "if False:"))


@mutant(TESTS + "test_groups_transaction.py")
def a_transaction_that_was_ended_counts():
    edit(SqliteStore, "_work", ("if not self._db.in_transaction:", "if False:"))


@mutant(TESTS + "test_groups_joining.py")
def another_number_of_partitions_is_taken():
    edit(Leases, "begin", ("if found != self._partitions:", "if False:"))


@mutant(TESTS + "test_groups_joining.py", "-k", "begin_a_group and not postgres")
def two_make_the_partitions_of_a_group():
    edit(Leases, "_make", ("changes=1, otherwise=late", ""))


@mutant(TESTS + "test_groups_joining.py")
def who_joins_twice_is_there_twice():
    edit(Group, "join", ("async with self._turn:", "if True:"))


@mutant(TESTS + "test_following.py")
def what_was_not_acknowledged_is_passed_over_by_one_who_is_started_again():
    edit(LogProducer, "_note", ("min(map(_first, batches), default=self._next)", "self._next"))


@mutant(TESTS + "test_following.py")
def a_projection_is_not_told_how_far_was_looked():
    edit(LogProducer, "take", ("elif self._told < self._next - 1 and", "elif False and"))


@mutant(TESTS + "test_projection.py", TESTS + "test_properties.py")
def a_snapshot_from_the_future():
    edit_function(projection, "_snapshot", ("AND position <= ? ", "AND position <= ? + 5 "))


@mutant(TESTS + "test_projection.py")
def a_rebuild_does_not_fence_off_the_old_one():
    edit(_Beside, "swap", ("Statement(fence, (checkpoint_name(projection, self._live_one), now)),", ""))


@mutant(TESTS + "test_rebuilding.py")
def two_build_a_projection_anew():
    edit(_Beside, "begin", ("WHERE old.lease_until IS NULL OR old.lease_until < excluded.updated_at", ""))


@mutant(TESTS + "test_rebuilding.py")
def a_rebuild_begins_on_what_was_swapped_meanwhile():
    edit(_Beside, "begin", ("Statement(unchanged, (name, self._live_one), changes=1, otherwise=other),", ""))


@mutant(TESTS + "test_rebuilding.py")
def one_who_was_taken_for_dead_swaps():
    edit(_Beside, "swap", ("checkpoints.moved(store, checkpoint, checkpoint.position, now),", ""))


@mutant(TESTS + "test_personal.py")
def personal_fields_are_looked_for_by_the_names_that_the_class_has():
    edit_function(registry, "_encoded", ("if codec is None or not fields:", "if True:"))


@mutant(TESTS + "test_personal.py")
def any_master_key_writes():
    edit(Vault, "ensure", ("await self._prove()", "pass"))
    edit(Vault, "_check", ("for (proof,) in proofs:", "for (proof,) in ():"))


@mutant(TESTS + "test_personal.py", "-k", "snapshot and not postgres")
def a_snapshot_is_kept_of_what_was_read_with_a_destroyed_key():
    edit_function(projection, "_keep", ("no_shred_since(shredded, _ShreddedError()), ", ""))


@mutant(TESTS + "test_personal.py", "-k", "no_file or reads_meanwhile")
def a_destroyed_key_stays_in_the_wal():
    edit(SqliteStore, "_emptied", ("wal_checkpoint(TRUNCATE)", "wal_checkpoint(PASSIVE)"))


@mutant(TESTS + "test_types.py", "-k", "no_number or lost_number")
def what_is_no_number_is_written_as_nothing():
    edit_function(codecs, "_model_text", ('if "null" in text or', "if"))
    edit(codecs.StructCodec, "encode", ('if "null" in text', "if False"))


@mutant(TESTS + "test_projector.py", TESTS + "test_schedules.py")
def several_use_a_projector_at_once():
    for name in ("take_up", "handle", "catch_up"):
        edit(Projector, name, ("async with self._turn:", "if True:"))


@mutant(TESTS + "test_projector.py", TESTS + "test_schedules.py")
def states_that_were_not_written_are_gone_on_with():
    edit(Projector, "_fold", ("self._checkpoint = None", "pass"))


@mutant(TESTS + "test_projector.py", TESTS + "test_schedules.py")
def states_that_were_swapped_away_are_taken_up():
    edit(Projector, "_take_up", ("if now_live == generation:", "if True:"))


@mutant(TESTS + "test_projector.py", TESTS + "test_schedules.py")
def a_batch_is_taken_for_all_that_there_was():
    edit(Projector, "_handle", ("if before > at", "if False"))


@mutant(TESTS + "test_projector.py", TESTS + "test_schedules.py")
def a_first_rebuild_is_taken_up_half_built():
    known = "SELECT coalesce(max(generation), 0), '' FROM ~projections WHERE name = ?"
    look = f'(await self.log.store.transact([Statement("{known}", (self.projection.name,))]))[0][0]'
    edit(Projector, "rebuild", ("await self._entered()", look))


@mutant(TESTS + "test_projection.py")
def entities_need_not_be_text():
    edit(Projection, "entities", ("if not all(", "if False and not all("))


@mutant(TESTS + "test_projection.py")
def an_event_counts_twice_for_an_entity_that_it_names_twice():
    edit(Projection, "entities", ("list(dict.fromkeys(several))", "several"))


@mutant(TESTS + "test_projection.py")
def a_fold_sees_what_the_projector_does_not():
    edit_function(projection, "fold", ("and matches(query, event.row)", ""))


@mutant(TESTS + "test_reverse.py")
def a_stream_goes_back_past_what_came_meanwhile():
    edit_function(reverse, "reverse_stream", ("inverse, options, read)", "inverse, options, {})"))


@mutant(TESTS + "test_reverse.py")
def a_command_is_undone_by_half():
    edit_function(reverse, "reverse_correlation", (", command, head)", ")"))


@mutant(TESTS + "test_projection.py")
def stored_states_are_compared_at_another_position():
    edit_function(
        replay,
        "_against_stored",
        (
            "position, before = await log.projector(new).stored(functools.partial(_load, new))",
            "position, before = await log.projector(new).position(), await log.projector(new).all()",
        ),
    )


@mutant(TESTS + "test_projection.py")
def a_part_that_was_asked_for_is_left_out_of_account():
    edit_function(replay, "compare", ("if old is None and given is not None:", "if False:"))


@mutant(TESTS + "test_verify.py", TESTS + "test_schedules.py")
def checkpoints_that_follow_a_look_are_taken_for_ahead():
    edit_function(verify, "verify", ("_ahead(furthest, last)", "_ahead(await _furthest(log), last)"))
