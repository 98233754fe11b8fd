"""What the Postgres store says to the server: constant statements (floor 3).

``{s}`` in a statement is the quoted schema, whose name is checked to be a plain one; nothing else is ever
put into a statement's text. A batch travels as arrays, so it is one statement however many writes it holds.
"""

from __future__ import annotations

SCHEMA_VERSION = 1

# `last` and the counters are in no index and the pages have room: an append's update stays on its page
# and touches no index (HOT). Frames are compressed already, so the server is not to try once more.
CREATE = """
CREATE TABLE {s}.chains (
    no bigint GENERATED ALWAYS AS IDENTITY, id text COLLATE "C" PRIMARY KEY, token bigint NOT NULL,
    owner bytea NOT NULL, lease_until float8 NOT NULL, status text NOT NULL, reason text NOT NULL,
    grp text COLLATE "C" NOT NULL, label text COLLATE "C" NOT NULL, until float8 NOT NULL,
    opened_at float8 NOT NULL, updated_at float8 NOT NULL, last bigint NOT NULL,
    records bigint NOT NULL, checkpoints bigint NOT NULL, raw bigint NOT NULL, stored bigint NOT NULL,
    oldest float8, newest float8
) WITH (fillfactor = 60);
CREATE INDEX chains_by_time ON {s}.chains (updated_at, id);
CREATE INDEX chains_by_status ON {s}.chains (status, updated_at, id);
CREATE INDEX chains_by_group ON {s}.chains (grp, updated_at, id) WHERE grp <> '';
CREATE INDEX chains_by_label ON {s}.chains (label, updated_at, id) WHERE label <> '';
CREATE TABLE {s}.log (
    chain bigint NOT NULL, last bigint NOT NULL, first bigint NOT NULL, token bigint NOT NULL,
    at float8 NOT NULL, checkpoints bigint NOT NULL, raw bigint NOT NULL, frame bytea NOT NULL,
    PRIMARY KEY (chain, last)
) WITH (toast_tuple_target = 4080);
ALTER TABLE {s}.log ALTER COLUMN frame SET STORAGE EXTERNAL;
CREATE TABLE {s}.cells (
    name text COLLATE "C" PRIMARY KEY, value bytea NOT NULL, version bigint NOT NULL
) WITH (fillfactor = 60);
CREATE TABLE {s}.format (version bigint NOT NULL);
"""

# The frames stay in their array until they are inserted: to carry them through the join and its result takes
# a fifth of the statement's time.
_APPEND = """
WITH moved AS (
    UPDATE {s}.chains AS c SET last = g.last,
        records = c.records + g.last - g.first + 1, checkpoints = c.checkpoints + g.checkpoints,
        raw = c.raw + g.raw, stored = c.stored + g.size,
        oldest = CASE WHEN g.checkpoints > 0 THEN least(c.oldest, g.at) ELSE c.oldest END,
        newest = CASE WHEN g.checkpoints > 0 THEN greatest(c.newest, g.at) ELSE c.newest END{changes}
    FROM unnest(%b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::float8[], %b::bigint[],
                %b::bigint[], %b::bigint[]{arrays}) WITH ORDINALITY
        AS g(id, token, first, last, at, checkpoints, raw, size{names}, place)
    WHERE c.id = g.id AND c.token = g.token AND c.last = g.first - 1
    RETURNING c.no, g.first, g.last, g.token, g.at, g.checkpoints, g.raw, g.place
), logged AS (
    INSERT INTO {s}.log (chain, last, first, token, at, checkpoints, raw, frame)
    SELECT no, last, first, token, at, checkpoints, raw, (%b::bytea[])[place] FROM moved
)
SELECT place FROM moved
"""


def _append(changes: str = "", arrays: str = "", names: str = "") -> str:
    filled = _APPEND.replace("{changes}", changes)
    return filled.replace("{arrays}", arrays).replace("{names}", names)


APPEND = _append(
    """,
        status = CASE WHEN g.changed THEN g.status ELSE c.status END,
        reason = CASE WHEN g.changed THEN g.reason ELSE c.reason END,
        grp = CASE WHEN g.changed THEN g.grp ELSE c.grp END,
        until = CASE WHEN g.changed THEN g.until ELSE c.until END,
        updated_at = CASE WHEN g.changed THEN g.changed_at ELSE c.updated_at END,
        owner = CASE WHEN g.release THEN ''::bytea ELSE c.owner END,
        lease_until = CASE WHEN g.release THEN 0 ELSE c.lease_until END""",
    ", %b::bool[], %b::text[], %b::text[], %b::text[], %b::float8[], %b::float8[], %b::bool[]",
    ", changed, status, reason, grp, until, changed_at, release",
)
# For runs whose entries do not change, as nearly all appends are.
APPEND_PLAIN = _append()

# The same for one such run: values that are not arrays cost half as much.
APPEND_ONE = """
WITH moved AS (
    UPDATE {s}.chains SET last = %b, records = records + %b, checkpoints = checkpoints + %b,
        raw = raw + %b, stored = stored + %b, oldest = least(oldest, %b::float8),
        newest = greatest(newest, %b::float8)
    WHERE id = %b AND token = %b AND last = %b RETURNING no
)
INSERT INTO {s}.log (chain, last, first, token, at, checkpoints, raw, frame)
SELECT no, %b, %b, %b, %b, %b, %b, %b FROM moved
"""

OPEN = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest(
        %b::text[], %b::bigint[], %b::bytea[], %b::float8[], %b::text[], %b::text[], %b::text[],
        %b::text[], %b::float8[], %b::float8[], %b::float8[], %b::bigint[], %b::bigint[], %b::float8[],
        %b::bigint[], %b::bigint[], %b::bytea[])
        AS g(id, token, owner, lease_until, status, reason, grp, label, until, opened_at, updated_at,
             first, last, at, checkpoints, raw, frame)
), opened AS (
    INSERT INTO {s}.chains (id, token, owner, lease_until, status, reason, grp, label, until, opened_at,
        updated_at, last, records, checkpoints, raw, stored, oldest, newest)
    SELECT id, token, owner, lease_until, status, reason, grp, label, until, opened_at, updated_at, last,
        last - first + 1, checkpoints, raw, octet_length(frame),
        CASE WHEN checkpoints > 0 THEN at END, CASE WHEN checkpoints > 0 THEN at END FROM given
    ON CONFLICT (id) DO NOTHING RETURNING no, id
), logged AS (
    INSERT INTO {s}.log (chain, last, first, token, at, checkpoints, raw, frame)
    SELECT opened.no, last, first, token, at, checkpoints, raw, frame FROM given JOIN opened USING (id)
)
SELECT id FROM opened
"""

# Asked of the catalogue's tables: to_regclass() may answer from what the session remembers of the time
# before it waited for a lock.
HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %b)"
HAS_FORMAT = """
SELECT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
               WHERE n.nspname = %b AND c.relname = 'format')
"""
ENTRY = """
SELECT id, token, owner, lease_until, status, reason, grp, label, until, opened_at, updated_at, last
FROM {s}.chains
"""
ONE_ENTRY = ENTRY + "WHERE id = %b"
ROWS = """
SELECT first, last, token, at, checkpoints, frame, raw FROM {s}.log
WHERE chain = (SELECT no FROM {s}.chains WHERE id = %b) AND last >= %b AND first <= %b
AND last <= coalesce((SELECT min(last) FROM {s}.log
    WHERE chain = (SELECT no FROM {s}.chains WHERE id = %b) AND last >= %b), %b)
ORDER BY last LIMIT %b
"""
ROWS_NEWEST_FIRST = ROWS.replace("ORDER BY last", "ORDER BY last DESC")
CLAIM = """
UPDATE {s}.chains SET token = token + 1, owner = %b, lease_until = %b WHERE id = %b AND token = %b
"""
# Rows are locked in one order before they are changed: two batches that meet must not wait for each other.
RENEW = """
WITH g AS (
    SELECT * FROM unnest(%b::text[], %b::bigint[], %b::bytea[], %b::float8[]) AS g(id, token, owner, until)
), held AS (
    SELECT c.id FROM {s}.chains AS c JOIN g ON c.id = g.id ORDER BY c.id FOR UPDATE OF c
)
UPDATE {s}.chains AS c SET owner = g.owner, lease_until = g.until FROM g JOIN held ON held.id = g.id
WHERE c.id = g.id AND c.token = g.token AND (g.owner = ''::bytea OR c.owner = g.owner)
RETURNING c.id
"""
FORGET = """
WITH g AS (
    SELECT * FROM unnest(%b::text[], %b::bigint[]) AS g(id, token)
), held AS (
    SELECT c.id FROM {s}.chains AS c JOIN g ON c.id = g.id ORDER BY c.id FOR UPDATE OF c
)
DELETE FROM {s}.chains AS c USING g JOIN held ON held.id = g.id
WHERE c.id = g.id AND c.token = g.token RETURNING c.no
"""
FORGET_ROWS = """
WITH gone AS (DELETE FROM {s}.log WHERE chain = ANY(%b::bigint[]) RETURNING checkpoints)
SELECT coalesce(sum(checkpoints), 0)::bigint FROM gone
"""
HELD = "SELECT no FROM {s}.chains WHERE id = %b AND token = %b AND last > %b FOR UPDATE"
COVERED = """
SELECT min(first), max(last), sum(checkpoints)::bigint, sum(raw)::bigint, sum(octet_length(frame))::bigint
FROM {s}.log WHERE chain = %b AND first >= %b AND last BETWEEN %b AND %b
"""
UNCOVER = "DELETE FROM {s}.log WHERE chain = %b AND first >= %b AND last BETWEEN %b AND %b"
REPLACE = """
WITH told AS (
    INSERT INTO {s}.log (chain, last, first, token, at, checkpoints, raw, frame)
    VALUES (%b, %b, %b, %b, %b, %b, %b, %b)
)
UPDATE {s}.chains SET checkpoints = checkpoints + %b, raw = raw + %b, stored = stored + %b WHERE no = %b
"""
RECOUNT = """
UPDATE {s}.chains SET oldest = found.oldest, newest = found.newest
FROM (SELECT min(at) AS oldest, max(at) AS newest FROM {s}.log WHERE chain = %b AND checkpoints > 0) AS found
WHERE no = %b
"""
CELLS = "SELECT name, value, version FROM {s}.cells WHERE name = ANY(%b::text[])"
SWAP_FIRST = "INSERT INTO {s}.cells (name, value, version) VALUES (%b, %b, 1) ON CONFLICT DO NOTHING"
SWAP = "UPDATE {s}.cells SET value = %b, version = version + 1 WHERE name = %b AND version = %b"
CELL_NAMES = """
SELECT name FROM {s}.cells WHERE name >= %b AND name > %b AND (%b = '' OR name < %b)
ORDER BY name LIMIT %b
"""
MEASURE = """
SELECT status, count(*), sum(checkpoints)::bigint, sum(records)::bigint, sum(raw)::bigint,
       sum(stored)::bigint, min(oldest), max(newest) FROM {s}.chains GROUP BY status
"""
SIZE = """
SELECT pg_total_relation_size('{s}.chains') + pg_total_relation_size('{s}.log')
     + pg_total_relation_size('{s}.cells') + pg_total_relation_size('{s}.format')
"""
SETTINGS = """
SELECT set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false),
       current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
       current_setting('synchronous_commit') <> 'off', current_setting('server_encoding'),
       current_setting('is_superuser') = 'on',
       extract(epoch FROM clock_timestamp())::float8
"""
