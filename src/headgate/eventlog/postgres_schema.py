"""The tables of a log on PostgreSQL, and how old ones are brought up."""

from __future__ import annotations

EVENTS = """
CREATE SCHEMA IF NOT EXISTS "{s}";
CREATE TABLE {s}.meta (name text PRIMARY KEY, value text NOT NULL);
CREATE SEQUENCE {s}.positions;
CREATE TABLE {s}.events (
    position bigint PRIMARY KEY DEFAULT nextval('{s}.positions'),
    stream text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    schema_version integer NOT NULL DEFAULT 1,
    event_id bytea NOT NULL,
    recorded_at bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    effective_at bigint,
    correlation_id text,
    causation_id text,
    reverses bytea,
    actor text,
    subject text,
    data json NOT NULL,
    meta json,
    digest bytea
);
CREATE UNIQUE INDEX events_stream ON {s}.events (stream, version);
CREATE UNIQUE INDEX events_id ON {s}.events (event_id);
CREATE INDEX events_type ON {s}.events (type, position);
CREATE UNIQUE INDEX events_reverses ON {s}.events (reverses) WHERE reverses IS NOT NULL;
CREATE INDEX events_correlation ON {s}.events (correlation_id) WHERE correlation_id IS NOT NULL;
CREATE TABLE {s}.archives (first bigint PRIMARY KEY, last bigint NOT NULL, file text NOT NULL, digest bytea NOT NULL);
CREATE TABLE {s}.archived_streams (stream text COLLATE "C" PRIMARY KEY, version bigint NOT NULL);

CREATE FUNCTION {s}.lock_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7235, hashtext('{s}'));
    RETURN NULL;
END $$;
CREATE TRIGGER lock_end BEFORE INSERT ON {s}.events FOR EACH STATEMENT EXECUTE FUNCTION {s}.lock_end();

CREATE FUNCTION {s}.tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('headgate_{s}', '');
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON {s}.events FOR EACH STATEMENT EXECUTE FUNCTION {s}.tell();

CREATE FUNCTION {s}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'headgate: what is written in %.% stays', TG_TABLE_SCHEMA, TG_TABLE_NAME;
END $$;
CREATE FUNCTION {s}.refuse_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.position > (SELECT coalesce(max(last), 0) FROM {s}.archives) THEN
        RAISE EXCEPTION 'headgate: an event is never deleted before it is archived';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER no_update BEFORE UPDATE ON {s}.events FOR EACH ROW EXECUTE FUNCTION {s}.refuse();
CREATE TRIGGER no_delete BEFORE DELETE ON {s}.events FOR EACH ROW EXECUTE FUNCTION {s}.refuse_delete();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON {s}.events FOR EACH STATEMENT EXECUTE FUNCTION {s}.refuse();
"""

BESIDE = """
CREATE TABLE {s}.checkpoints (
    name text NOT NULL, partition integer NOT NULL, position bigint NOT NULL, epoch bigint NOT NULL, owner text,
    lease_until bigint, updated_at bigint NOT NULL, PRIMARY KEY (name, partition)
);
CREATE TABLE {s}.projections (name text PRIMARY KEY, generation bigint NOT NULL, logic text NOT NULL);
CREATE TABLE {s}.states (
    projection text NOT NULL, generation bigint NOT NULL, entity text COLLATE "C" NOT NULL, position bigint NOT NULL,
    data json NOT NULL, PRIMARY KEY (projection, generation, entity)
);
CREATE TABLE {s}.snapshots (
    name text NOT NULL, logic text NOT NULL, entity text COLLATE "C" NOT NULL, position bigint NOT NULL,
    data json NOT NULL, PRIMARY KEY (name, logic, entity, position)
);
CREATE TABLE {s}.data_keys (subject text PRIMARY KEY, sealed bytea, created_at bigint NOT NULL, destroyed_at bigint);
CREATE TABLE {s}.accesses (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at bigint NOT NULL, actor text NOT NULL, reason text,
    command text NOT NULL, details text NOT NULL
);
CREATE TRIGGER no_update BEFORE UPDATE OR DELETE ON {s}.accesses FOR EACH ROW EXECUTE FUNCTION {s}.refuse();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON {s}.accesses FOR EACH STATEMENT EXECUTE FUNCTION {s}.refuse();
"""

ARCHIVED = """
CREATE TABLE {s}.archived_ids (
    event_id bytea PRIMARY KEY, position bigint NOT NULL, stream text COLLATE "C" NOT NULL, version bigint NOT NULL
);
"""

ARCHIVED_IN = """
CREATE TABLE {s}.archived_in (
    first bigint NOT NULL, stream text COLLATE "C" NOT NULL, PRIMARY KEY (first, stream)
);
INSERT INTO {s}.archived_in
    SELECT DISTINCT (SELECT max(first) FROM {s}.archives WHERE first <= position), stream FROM {s}.archived_ids;
ALTER TABLE {s}.archived_ids ADD COLUMN reverses bytea;
ALTER TABLE {s}.archives ADD COLUMN discarded_at bigint;
CREATE TABLE {s}.parked (
    name text COLLATE "C" NOT NULL, position bigint NOT NULL, reason text NOT NULL, traceback text NOT NULL,
    deliveries bigint NOT NULL, parked_at bigint NOT NULL, PRIMARY KEY (name, position)
);
CREATE UNIQUE INDEX archived_reverses ON {s}.archived_ids (reverses) WHERE reverses IS NOT NULL;

-- Takes the lock first: each statement below then sees what was committed before it.
CREATE OR REPLACE FUNCTION {s}.begin_append(
    IN streams text[], IN ids bytea[], IN reversals bytea[], IN count bigint,
    OUT first bigint, OUT recorded_at bigint, OUT digest bytea, OUT now bigint, OUT versions bigint[],
    OUT known_ids bytea[], OUT known_positions bigint[], OUT known_streams text[], OUT known_versions bigint[],
    OUT reversed_ids bytea[], OUT reversed_at bigint[]
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(7235, hashtext('{s}'));
    now := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    SELECT e.recorded_at, coalesce(e.digest, ''::bytea) INTO recorded_at, digest
        FROM {s}.events e ORDER BY e.position DESC LIMIT 1;
    IF NOT FOUND THEN
        recorded_at := 0;
        digest := decode(repeat('00', 16), 'hex');
    END IF;
    first := nextval('{s}.positions');
    PERFORM setval('{s}.positions', first + greatest(count, 1) - 1);
    SELECT array_agg(coalesce(
        (SELECT e.version FROM {s}.events e WHERE e.stream = t.name COLLATE "C" ORDER BY e.version DESC LIMIT 1),
        (SELECT a.version FROM {s}.archived_streams a WHERE a.stream = t.name COLLATE "C"), 0) ORDER BY t.place)
        INTO versions FROM unnest(streams) WITH ORDINALITY AS t (name, place);
    IF cardinality(ids) > 0 THEN
        SELECT array_agg(e.event_id), array_agg(e.position), array_agg(e.stream), array_agg(e.version)
            INTO known_ids, known_positions, known_streams, known_versions
            FROM (
                SELECT event_id, position, stream, version FROM {s}.events WHERE event_id = ANY (ids)
                UNION ALL
                SELECT event_id, position, stream, version FROM {s}.archived_ids WHERE event_id = ANY (ids)
            ) AS e;
    END IF;
    IF cardinality(reversals) > 0 THEN
        SELECT array_agg(e.reverses), array_agg(e.position) INTO reversed_ids, reversed_at
            FROM (
                SELECT reverses, position FROM {s}.events WHERE reverses = ANY (reversals)
                UNION ALL
                SELECT reverses, position FROM {s}.archived_ids WHERE reverses = ANY (reversals)
            ) AS e;
    END IF;
END $$;
"""


def migrations(schema: str) -> list[str]:
    """Return the scripts; the one at index N brings a schema from version N to N + 1."""
    # Quoted, as it may be a word of SQL; but not within texts.
    scripts = (EVENTS + BESIDE, ARCHIVED, ARCHIVED_IN)
    return [each.replace("{s}.", f'"{schema}".').replace("{s}", schema) for each in scripts]
