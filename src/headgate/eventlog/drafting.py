"""From what a user appends to orders: events that lack nothing but their place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from headgate.errors import EventError, OptionError
from headgate.eventlog import sealing
from headgate.eventlog.codecs import dumps, loads
from headgate.eventlog.events import Event, check_text, reference
from headgate.eventlog.planning import Alike, Draft, Order
from headgate.eventlog.record import to_micros
from headgate.eventlog.registry import BOX, Kind, Types
from headgate.eventlog.vault import Vault

_SEVERAL: Final = 4  # events from which on it is worth a look whether they are alike


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
        largest: Characters that the data or metadata of an event may have.
    """

    def __init__(self, types: Types, vault: Vault | None, largest: int) -> None:
        """Keep them."""
        self._types = types
        self._vault = vault
        self._largest = largest

    async def order(
        self, stream: str, expected: int | None, events: list[Any], common: Defaults, ids: Iterator[bytes]
    ) -> Order:
        """Encode events for a stream; those of types with personal fields are sealed.

        Args:
            stream: Its name.
            expected: The version that it has to be at.
            events: What is to be appended to it.
            common: What holds for all of them.
            ids: New ids, at least one for each.
        """
        meta = None if common.reason is None else self._meta({"reason": common.reason}, "append")
        alike = self._alike(events, common, meta, ids) if len(events) >= _SEVERAL else None
        if alike is not None:
            return Order(stream, expected, [], special=False, alike=alike)
        drafts: list[Draft] = []
        personal: list[tuple[int, Kind]] = []
        special = False
        largest, of_event, of_data = self._largest, self._of_event, self._of_data
        for event, event_id in zip(events, ids, strict=False):  # ids go on to the next stream
            if type(event) is Event:
                kind, draft = of_event(event, event_id, common, meta)
                if draft[3] or draft[7] is not None:  # known, reverses
                    special = True
            else:
                kind, draft = of_data(event, event_id, common, meta)
            for text in draft[10:]:  # data, meta
                if text is not None and (len(text) > largest or not text.isascii()):
                    self._check(draft)
            if kind is not None and kind.personal:
                personal.append((len(drafts), kind))
                if type(event) is Event:  # while keys are looked up, it may be appended by somebody else too
                    draft, special = draft._replace(known=True), True
            drafts.append(draft)
        if personal:
            await self._seal(stream, drafts, personal)
        return Order(stream, expected, drafts, special)

    def _alike(self, events: list[Any], common: Defaults, meta: str | None, ids: Iterator[bytes]) -> Alike | None:
        """Return events that are all of one class and need no closer look; None: they do."""
        cls = type(events[0])
        if cls is Event or any(type(each) is not cls for each in events):
            return None
        kind = self._types.kind(cls)
        if kind.personal or (meta is not None and not meta.isascii()):
            return None
        encode = self._types.encode
        texts = [encode(each, kind) for each in events]
        if max(map(len, texts)) > self._largest or not all(map(str.isascii, texts)):
            return None
        own = list(itertools.islice(ids, len(events)))
        return Alike(
            kind.name, kind.version, common.correlation_id, common.causation_id, common.actor, meta, own, texts
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

    def _of_data(self, data: Any, event_id: bytes, common: Defaults, meta: str | None) -> tuple[Kind, Draft]:
        kind = self._types.kind(type(data))
        actor, _, correlation, causation = common
        text = self._types.encode(data, kind)
        # As Draft(...), in half of the time.
        fields = (kind.name, kind.version, event_id, False, None, correlation, causation, None, actor, None, text, meta)
        return kind, tuple.__new__(Draft, fields)

    def _of_event(self, event: Event, event_id: bytes, common: Defaults, meta: str | None) -> tuple[Kind | None, Draft]:
        name = event.type
        if name is None:
            kind: Kind | None = self._types.kind(type(event.data))
            name, version = kind.name, kind.version  # type: ignore[union-attr]
        else:
            kind = self._types.find(name)
            version = 1 if kind is None else kind.version
        text = self._types.encode(event.data, kind, name)
        if event.event_id is None:
            known = False
            event.event_id = event_id  # so that the same object is never appended twice
        else:
            known, event_id = True, event.event_id
        if event.meta is not None:
            meta = self._meta(event.meta if common.reason is None else {"reason": common.reason, **event.meta}, name)
        if event.subject is not None and BOX in text:
            _refuse_box(name, loads(text))
        effective = None if event.effective_at is None else to_micros(event.effective_at)
        fields = (
            name,
            version,
            event_id,
            known,
            effective,
            event.correlation_id or common.correlation_id,
            event.causation_id or common.causation_id,
            event.reverses,
            event.actor or common.actor,
            event.subject,
            text,
            meta,
        )
        return kind, tuple.__new__(Draft, fields)

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
            _refuse_box(drafts[index].type, fields)
            found.append((index, kind, self._subject(stream, drafts[index], kind, fields), fields))
        keys = await self._vault.ensure(subject for _, _, subject, _ in found)
        for index, kind, subject, fields in found:
            draft = drafts[index]
            if subject not in keys:
                raise EventError(draft.type, "its subject", "one whose key was not destroyed", subject)
            secret = {name: fields.pop(name) for name in kind.personal if name in fields}
            if not secret and kind.codec is not None and not kind.codec.omits:
                expected = f"one with at least one of its personal fields ({', '.join(kind.personal)})"
                raise EventError(draft.type, "data", expected, sorted(fields))
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


def _refuse_box(name: str, fields: dict[str, Any]) -> None:
    if BOX in fields:
        raise EventError(name, "data", f"without a field {BOX!r}, which stands for sealed ones", fields)
