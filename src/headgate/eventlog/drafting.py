"""From what a user appends to orders: events that lack nothing but their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from headgate.errors import EventError, OptionError
from headgate.eventlog import sealing
from headgate.eventlog.codecs import dumps, loads
from headgate.eventlog.events import Event, check_text, new_ids, reference
from headgate.eventlog.planning import Alike, Draft, Order
from headgate.eventlog.record import to_micros
from headgate.eventlog.registry import BOX, Kind, Types
from headgate.eventlog.vault import Vault


class Defaults(NamedTuple):
    """What holds for all events of an append that do not say otherwise."""

    actor: str | None = None
    reason: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None


def defaults(actor: Any, reason: Any, correlation_id: Any, causation_id: Any) -> Defaults:
    """Check what was given to an append."""
    return Defaults(
        None if actor is None else check_text("append", "actor", actor),
        reason,
        reference("correlation_id", correlation_id),
        reference("causation_id", causation_id),
    )


class Drafter:
    """Makes orders.

    Args:
        types: The registry.
        vault: The keys, for types with personal fields; None: there is no master key.
        largest: Bytes of data and metadata that an event may have.
        now: Unix time in seconds, for ids.
    """

    def __init__(self, types: Types, vault: Vault | None, largest: int) -> None:
        """Keep them."""
        self._types = types
        self._vault = vault
        self._largest = largest

    async def order(
        self, stream: str, expected: int | None, events: Iterable[Any], common: Defaults, now: float
    ) -> Order:
        """Encode events for a stream; those of types with personal fields are sealed."""
        wanted = list(events)
        meta = None if common.reason is None else self._meta({"reason": common.reason}, "append")
        alike = self._alike(wanted, common, meta, now)
        if alike is not None:
            return Order(stream, expected, [], special=False, alike=alike)
        actor, _, correlation, causation = common
        drafts: list[Draft] = []
        personal: list[tuple[int, Kind]] = []
        special = False
        kind: Kind | None = None
        last: type[Any] | None = None
        encode, largest, add, make = self._types.encode, self._largest, drafts.append, tuple.__new__
        for event, event_id in zip(wanted, new_ids(len(wanted), now), strict=True):
            if type(event) is Event:
                kind, draft = self._of_event(event, event_id, common, meta)
                last = None
                special = special or draft.known or draft.reverses is not None
            else:
                if type(event) is not last:
                    last = type(event)
                    kind = self._types.kind(last)
                text = encode(event, kind)
                # As Draft(...), which would take twice the time of all the rest of this loop.
                values = (kind.name, kind.version, event_id, False, None, correlation, causation, None)  # type: ignore[union-attr]
                draft = make(Draft, (*values, actor, None, text, meta))
            if len(draft[10]) > largest or not draft[10].isascii() or draft[11] is not None:
                self._check(draft)
            if kind is not None and kind.personal:
                personal.append((len(drafts), kind))
            add(draft)
        if personal:
            await self._seal(stream, drafts, personal)
        return Order(stream, expected, drafts, special)

    def _alike(self, events: list[Any], common: Defaults, meta: str | None, now: float) -> Alike | None:
        """Return events that are all of one class and need no closer look; None: they do."""
        cls = type(events[0]) if events else Event
        if cls is Event or any(type(each) is not cls for each in events):
            return None
        kind = self._types.kind(cls)
        if kind.personal or (meta is not None and not meta.isascii()):
            return None
        encode = self._types.encode
        texts = [encode(each, kind) for each in events]
        if max(map(len, texts)) > self._largest or not all(map(str.isascii, texts)):
            return None
        ids = new_ids(len(events), now)
        return Alike(
            kind.name, kind.version, common.correlation_id, common.causation_id, common.actor, meta, ids, texts
        )

    def _check(self, draft: Draft) -> None:
        size = max(len(draft.data), len(draft.meta or ""))
        if size > self._largest:
            raise EventError(draft.type, "its size", f"at most {self._largest} characters", size)
        try:  # no database stores halves of surrogate pairs, and all that is appended with them would fail too
            draft.data.encode()
            (draft.meta or "").encode()
        except UnicodeEncodeError as error:
            raise EventError(draft.type, "data", f"such that JSON can hold it ({error})", draft.data) from error

    def _of_event(self, event: Event, event_id: bytes, common: Defaults, meta: str | None) -> tuple[Kind | None, Draft]:
        kind, name = self._types.named(event.data, event.type)
        text = self._types.encode(event.data, kind, name)
        known = event.event_id is not None
        if not known:
            event.event_id = event_id  # so that the same object is never appended twice
        if event.meta is not None:
            meta = self._meta(event.meta if common.reason is None else {"reason": common.reason, **event.meta}, name)
        draft = Draft(
            name,
            1 if kind is None else kind.version,
            event.event_id or event_id,
            known,
            None if event.effective_at is None else to_micros(event.effective_at),
            event.correlation_id or common.correlation_id,
            event.causation_id or common.causation_id,
            event.reverses,
            event.actor or common.actor,
            event.subject,
            text,
            meta,
        )
        return kind, draft

    def _meta(self, meta: dict[str, Any], where: str) -> str:
        try:
            return dumps(meta)
        except (ValueError, TypeError, RecursionError) as error:
            raise EventError(where, "meta", f"such that JSON can hold it ({error})", meta) from error

    async def _seal(self, stream: str, drafts: list[Draft], personal: list[tuple[int, Kind]]) -> None:
        if self._vault is None:
            name = drafts[personal[0][0]].type
            raise OptionError("EventLog", "master_key", f"given, as type {name!r} has personal fields", None)
        found: list[tuple[int, Kind, str, dict[str, Any]]] = []
        for index, kind in personal:
            fields = loads(drafts[index].data)
            found.append((index, kind, self._subject(stream, drafts[index], kind, fields), fields))
        keys = await self._vault.ensure(subject for _, _, subject, _ in found)
        for index, kind, subject, fields in found:
            draft = drafts[index]
            if subject not in keys:
                raise EventError(draft.type, "its subject", "one whose key was not destroyed", subject)
            secret = {name: fields.pop(name) for name in kind.personal if name in fields}
            if secret:
                box = sealing.seal(keys[subject], secret, draft.event_id)
                fields[BOX] = {"fields": sorted(secret), "box": box}
            drafts[index] = draft._replace(subject=subject, data=dumps(fields))

    def _subject(self, stream: str, draft: Draft, kind: Kind, fields: dict[str, Any]) -> str:
        if draft.subject is not None:
            return draft.subject
        if kind.subject is None:
            return stream
        subject = fields.get(kind.subject) if isinstance(kind.subject, str) else kind.subject(fields)
        return check_text(draft.type, "subject", str(subject) if isinstance(subject, int) else subject)
