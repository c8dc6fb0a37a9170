"""The tables of a log on SQLite, and how old ones are brought up.

Events cannot be changed or deleted: triggers refuse it. Only what an archive holds may go (`Retention`).
"""

from __future__ import annotations

from typing import Final

EVENTS: Final = """
CREATE TABLE headgate_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE headgate_events (
    position INTEGER PRIMARY KEY,
    stream TEXT NOT NULL,
    version INTEGER NOT NULL,
    type TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    event_id BLOB NOT NULL,
    recorded_at INTEGER NOT NULL,
    effective_at INTEGER,
    correlation_id TEXT,
    causation_id TEXT,
    reverses BLOB,
    actor TEXT,
    subject TEXT,
    data TEXT NOT NULL,
    meta TEXT,
    digest BLOB
);
CREATE UNIQUE INDEX headgate_events_stream ON headgate_events (stream, version);
CREATE UNIQUE INDEX headgate_events_id ON headgate_events (event_id);
CREATE INDEX headgate_events_type ON headgate_events (type);
CREATE UNIQUE INDEX headgate_events_reverses ON headgate_events (reverses) WHERE reverses IS NOT NULL;
CREATE INDEX headgate_events_correlation ON headgate_events (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE TABLE headgate_archives (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, file TEXT NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE headgate_archived_streams (stream TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER headgate_events_no_update BEFORE UPDATE ON headgate_events
    BEGIN SELECT RAISE(ABORT, 'headgate: an event is never changed'); END;
CREATE TRIGGER headgate_events_no_delete BEFORE DELETE ON headgate_events
    WHEN OLD.position > (SELECT coalesce(max(last), 0) FROM headgate_archives)
    BEGIN SELECT RAISE(ABORT, 'headgate: an event is never deleted before it is archived'); END;
"""

BESIDE: Final = """
CREATE TABLE headgate_checkpoints (
    name TEXT NOT NULL,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    owner TEXT,
    lease_until INTEGER,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (name, partition)
) WITHOUT ROWID;
CREATE TABLE headgate_projections (
    name TEXT PRIMARY KEY, generation INTEGER NOT NULL, logic TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE headgate_states (
    projection TEXT NOT NULL,
    generation INTEGER NOT NULL,
    entity TEXT NOT NULL,
    position INTEGER NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (projection, generation, entity)
) WITHOUT ROWID;
CREATE TABLE headgate_snapshots (
    name TEXT NOT NULL,
    logic TEXT NOT NULL,
    entity TEXT NOT NULL,
    position INTEGER NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (name, logic, entity, position)
) WITHOUT ROWID;
CREATE TABLE headgate_data_keys (
    subject TEXT PRIMARY KEY, sealed BLOB, created_at INTEGER NOT NULL, destroyed_at INTEGER
);
CREATE TABLE headgate_accesses (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT,
    command TEXT NOT NULL,
    details TEXT NOT NULL
);
CREATE TRIGGER headgate_accesses_no_update BEFORE UPDATE ON headgate_accesses
    BEGIN SELECT RAISE(ABORT, 'headgate: what was looked at stays written'); END;
CREATE TRIGGER headgate_accesses_no_delete BEFORE DELETE ON headgate_accesses
    BEGIN SELECT RAISE(ABORT, 'headgate: what was looked at stays written'); END;
"""

ARCHIVED: Final = """
CREATE TABLE headgate_archived_ids (
    event_id BLOB PRIMARY KEY, position INTEGER NOT NULL, stream TEXT NOT NULL, version INTEGER NOT NULL
) WITHOUT ROWID;
"""

ARCHIVED_IN: Final = """
CREATE TABLE headgate_archived_in (
    first INTEGER NOT NULL, stream TEXT NOT NULL, PRIMARY KEY (first, stream)
) WITHOUT ROWID;
INSERT INTO headgate_archived_in
    SELECT DISTINCT (SELECT max(first) FROM headgate_archives WHERE first <= position), stream
    FROM headgate_archived_ids;
ALTER TABLE headgate_archived_ids ADD COLUMN reverses BLOB;
ALTER TABLE headgate_archives ADD COLUMN discarded_at INTEGER;
CREATE TABLE headgate_parked (
    name TEXT NOT NULL,
    position INTEGER NOT NULL,
    reason TEXT NOT NULL,
    traceback TEXT NOT NULL,
    deliveries INTEGER NOT NULL,
    parked_at INTEGER NOT NULL,
    PRIMARY KEY (name, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX headgate_archived_reverses ON headgate_archived_ids (reverses) WHERE reverses IS NOT NULL;
"""

MIGRATIONS: Final[tuple[str, ...]] = (EVENTS + BESIDE, ARCHIVED, ARCHIVED_IN)
"""The script at index N brings a file from version N to N + 1; 0 is a file without our tables."""
