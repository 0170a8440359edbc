-- The first schema. Words in braces: see migrate.rs. Times are microseconds since 1970.

CREATE TABLE counts (
    name {text} PRIMARY KEY,
    rows BIGINT NOT NULL
);

-- Who there is -------------------------------------------------------------------------------

CREATE TABLE organisations (
    id {id},
    parent_id BIGINT REFERENCES organisations (id),
    name {text} NOT NULL,
    description {text} NOT NULL DEFAULT '',
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX organisations_name ON organisations (COALESCE(parent_id, 0), name);

CREATE TABLE users (
    id {id},
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    name {text} NOT NULL,
    -- The name in lower case: names that differ in case alone are one name.
    folded {text} NOT NULL UNIQUE,
    full_name {text} NOT NULL DEFAULT '',
    email {text} NOT NULL DEFAULT '',
    -- local, ldap or oidc, and by what name it is known there.
    source {text} NOT NULL,
    external_id {text},
    password {text},
    must_change BIGINT NOT NULL DEFAULT 0,
    -- The secret of the second factor, sealed; the last time step that was used.
    totp {bytes},
    totp_step BIGINT,
    -- Whether a code has shown that the user has it.
    totp_confirmed BIGINT NOT NULL DEFAULT 0,
    -- The user for whom this one acts, with its own and no more than that one's rights.
    delegate_of BIGINT REFERENCES users (id),
    enabled BIGINT NOT NULL,
    failures BIGINT NOT NULL DEFAULT 0,
    blocked_until BIGINT,
    created_at BIGINT NOT NULL,
    last_login_at BIGINT,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX users_external ON users (source, external_id);
CREATE INDEX users_delegate ON users (delegate_of);
CREATE INDEX users_organisation ON users (organisation_id);

-- For one who lost the second factor: SHA-256 of codes that pass once.
CREATE TABLE recovery_codes (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash {bytes} NOT NULL,
    PRIMARY KEY (user_id, hash)
);

CREATE TABLE roles (
    id {id},
    name {text} NOT NULL UNIQUE,
    description {text} NOT NULL DEFAULT '',
    -- Separated by spaces.
    rights {text} NOT NULL,
    builtin BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);

-- A user has a role in an organisation and in those below it.
CREATE TABLE grants (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role_id BIGINT NOT NULL REFERENCES roles (id),
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    PRIMARY KEY (user_id, role_id, organisation_id)
);
CREATE INDEX grants_role ON grants (role_id);
CREATE INDEX grants_organisation ON grants (organisation_id);

CREATE TABLE api_keys (
    id {id},
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    name {text} NOT NULL,
    -- The part that is shown, and the SHA-256 of the whole.
    prefix {text} NOT NULL UNIQUE,
    hash {bytes} NOT NULL,
    -- The key itself, sealed, where it must be shown again.
    sealed {bytes},
    enabled BIGINT NOT NULL,
    -- Separated by spaces; null: all that the user has.
    rights {text},
    pools {text},
    operations {text},
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE INDEX api_keys_user ON api_keys (user_id);

-- What signed requests carry so that none passes twice.
CREATE TABLE nonces (
    key_id BIGINT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    nonce {text} NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (key_id, nonce)
);
CREATE INDEX nonces_expires ON nonces (expires_at);

CREATE TABLE sessions (
    id {id},
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The key that opened it; it narrows the session.
    key_id BIGINT REFERENCES api_keys (id) ON DELETE CASCADE,
    kind {text} NOT NULL,
    -- SHA-256 of the token that the client has, of the one that renews it, and of the part that
    -- all which ever renewed it have in common.
    hash {bytes} NOT NULL UNIQUE,
    refresh_hash {bytes} UNIQUE,
    family {bytes} UNIQUE,
    address {text} NOT NULL,
    agent {text} NOT NULL,
    created_at BIGINT NOT NULL,
    used_at BIGINT NOT NULL,
    -- Microseconds without use after which it ends; null: only at its end.
    idle BIGINT,
    expires_at BIGINT NOT NULL,
    refresh_expires_at BIGINT
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expires ON sessions (expires_at);

-- Every line holds the hash of the one before, see strongroom-identity.
CREATE TABLE audit (
    id BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    user_id BIGINT,
    user_name {text} NOT NULL,
    organisation_id BIGINT,
    via {text} NOT NULL,
    address {text} NOT NULL,
    operation {text} NOT NULL,
    object {text} NOT NULL,
    result {text} NOT NULL,
    detail {text} NOT NULL,
    previous {bytes} NOT NULL,
    hash {bytes} NOT NULL
);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_user ON audit (user_name, at);
CREATE INDEX audit_organisation ON audit (organisation_id, id);

-- The end of that chain: one row, which whoever appends locks.
CREATE TABLE audit_head (
    id BIGINT PRIMARY KEY,
    last BIGINT NOT NULL,
    hash {bytes} NOT NULL,
    mac {bytes}
);
--sqlite
INSERT INTO audit_head (id, last, hash) VALUES (1, 0, zeroblob(32));
--postgres
INSERT INTO audit_head (id, last, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));
--all

-- Deeds that need a second administrator.
CREATE TABLE approvals (
    id {id},
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    operation {text} NOT NULL,
    object {text} NOT NULL,
    -- SHA-256 of the request, in hexadecimal digits: only the same one passes.
    request {text} NOT NULL,
    -- Null: one at the appliance itself.
    asked_by BIGINT REFERENCES users (id) ON DELETE CASCADE,
    asker {text} NOT NULL,
    asked_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    state {text} NOT NULL,
    decided_by BIGINT REFERENCES users (id) ON DELETE SET NULL,
    decided_at BIGINT
);
CREATE INDEX approvals_asker ON approvals (asker, state);

CREATE TABLE settings (
    name {text} PRIMARY KEY,
    -- JSON.
    value {text} NOT NULL,
    changed_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);

-- What is kept --------------------------------------------------------------------------------

CREATE TABLE pools (
    id {id},
    -- What the pool calls itself: 32 hexadecimal digits.
    uuid {text} NOT NULL UNIQUE,
    name {text} NOT NULL UNIQUE,
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    -- The machine that its disks are on (empty: any), and where there.
    node {text} NOT NULL DEFAULT '',
    path {text} NOT NULL,
    -- The passphrase that opens it, sealed; null: it is not encrypted.
    secret {bytes},
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);

CREATE TABLE images (
    id {id},
    pool_id BIGINT NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    -- The root in the pool: 32 hexadecimal digits.
    root {text} NOT NULL,
    parent {text},
    name {text} NOT NULL,
    kind {text} NOT NULL,
    host {text} NOT NULL,
    user_name {text} NOT NULL,
    -- One per line.
    paths {text} NOT NULL,
    tags {text} NOT NULL,
    complete BIGINT NOT NULL,
    started_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    immutable_until BIGINT,
    files BIGINT NOT NULL,
    size BIGINT NOT NULL,
    new_size BIGINT NOT NULL,
    stored_size BIGINT NOT NULL,
    job_id BIGINT,
    search {text} NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX images_root ON images (pool_id, root);
CREATE INDEX images_created ON images (created_at);
CREATE INDEX images_name ON images (name, created_at);
CREATE INDEX images_host ON images (host, created_at);
CREATE INDEX images_pool ON images (pool_id, created_at);
CREATE INDEX images_size ON images (size, created_at);
CREATE INDEX images_organisation ON images (organisation_id, created_at);
CREATE INDEX images_by_root ON images (root, created_at);
--sqlite
CREATE INDEX images_expires ON images (expires_at, created_at);
--postgres
-- As SQLite has it: what isn't known comes first.
CREATE INDEX images_expires ON images (expires_at NULLS FIRST, created_at);
--all

-- What is done --------------------------------------------------------------------------------

CREATE TABLE jobs (
    id {id},
    kind {text} NOT NULL,
    state {text} NOT NULL,
    priority BIGINT NOT NULL,
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    user_id BIGINT REFERENCES users (id) ON DELETE SET NULL,
    user_name {text} NOT NULL,
    pool_id BIGINT,
    -- The machine that must do it; empty: any.
    node {text} NOT NULL DEFAULT '',
    host {text} NOT NULL DEFAULT '',
    -- What it is about, for people.
    object {text} NOT NULL DEFAULT '',
    -- JSON: what to do, how far it is so that it can go on, what came of it.
    parameters {text} NOT NULL,
    checkpoint {text},
    result {text},
    error {text},
    -- Which try this is, of how many; each is a job of its own.
    attempt BIGINT NOT NULL DEFAULT 1,
    attempts BIGINT NOT NULL DEFAULT 1,
    retry_of BIGINT,
    retried_as BIGINT,
    -- What else may run on its pool: 0 anything, 1 nothing that has 1, 2 nothing.
    alone BIGINT NOT NULL DEFAULT 0,
    queued_at BIGINT NOT NULL,
    -- Not before then; not begun after then.
    run_at BIGINT NOT NULL,
    run_until BIGINT,
    started_at BIGINT,
    ended_at BIGINT,
    -- Who works on it, until when it is thought to be alive, and how often it was taken up: a
    -- worker that lost it can't write any more.
    worker {text},
    lease_until BIGINT,
    fence BIGINT NOT NULL DEFAULT 0,
    -- How many workers died over it.
    deaths BIGINT NOT NULL DEFAULT 0,
    cancel BIGINT NOT NULL DEFAULT 0,
    phase {text} NOT NULL DEFAULT '',
    bytes_done BIGINT NOT NULL DEFAULT 0,
    bytes_total BIGINT,
    items_done BIGINT NOT NULL DEFAULT 0,
    items_total BIGINT,
    -- By the database's clock.
    changed_at BIGINT NOT NULL,
    search {text} NOT NULL DEFAULT ''
);
CREATE INDEX jobs_changed ON jobs (changed_at);
CREATE INDEX jobs_next ON jobs (state, priority, run_at);
CREATE INDEX jobs_state ON jobs (state, queued_at);
CREATE INDEX jobs_queued ON jobs (queued_at);
CREATE INDEX jobs_kind ON jobs (kind, queued_at);
CREATE INDEX jobs_pool ON jobs (pool_id, state);
CREATE INDEX jobs_organisation ON jobs (organisation_id, queued_at);

CREATE TABLE job_log (
    id {id},
    job_id BIGINT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    level {text} NOT NULL,
    message {text} NOT NULL
);
CREATE INDEX job_log_job ON job_log (job_id, id);

CREATE TABLE events (
    id {id},
    at BIGINT NOT NULL,
    severity {text} NOT NULL,
    kind {text} NOT NULL,
    organisation_id BIGINT NOT NULL,
    object {text} NOT NULL DEFAULT '',
    job_id BIGINT,
    message {text} NOT NULL,
    search {text} NOT NULL
);
CREATE INDEX events_at ON events (at);
CREATE INDEX events_kind ON events (kind, at);
CREATE INDEX events_severity ON events (severity, at);
CREATE INDEX events_job ON events (job_id, at);
CREATE INDEX events_organisation ON events (organisation_id, at);

-- Answers to requests that may be sent twice.
CREATE TABLE idempotency (
    user_id BIGINT NOT NULL,
    key {text} NOT NULL,
    -- SHA-256 of the request.
    request {bytes} NOT NULL,
    status BIGINT,
    answer {text},
    created_at BIGINT NOT NULL,
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

-- Looking for words ---------------------------------------------------------------------------

--sqlite
CREATE VIRTUAL TABLE images_trigrams USING fts5 (search, content='images', content_rowid='id', tokenize='trigram', detail='none', columnsize=0);
CREATE TRIGGER images_inserted AFTER INSERT ON images BEGIN
    INSERT INTO images_trigrams (rowid, search) VALUES (new.id, new.search);
    UPDATE counts SET rows = rows + 1 WHERE name = 'images';
END;
CREATE TRIGGER images_deleted AFTER DELETE ON images BEGIN
    INSERT INTO images_trigrams (images_trigrams, rowid, search) VALUES ('delete', old.id, old.search);
    UPDATE counts SET rows = rows - 1 WHERE name = 'images';
END;
CREATE TRIGGER images_updated AFTER UPDATE OF search ON images BEGIN
    INSERT INTO images_trigrams (images_trigrams, rowid, search) VALUES ('delete', old.id, old.search);
    INSERT INTO images_trigrams (rowid, search) VALUES (new.id, new.search);
END;
CREATE VIRTUAL TABLE jobs_trigrams USING fts5 (search, content='jobs', content_rowid='id', tokenize='trigram', detail='none', columnsize=0);
CREATE TRIGGER jobs_inserted AFTER INSERT ON jobs BEGIN
    INSERT INTO jobs_trigrams (rowid, search) VALUES (new.id, new.search);
    UPDATE counts SET rows = rows + 1 WHERE name = 'jobs';
END;
CREATE TRIGGER jobs_deleted AFTER DELETE ON jobs BEGIN
    INSERT INTO jobs_trigrams (jobs_trigrams, rowid, search) VALUES ('delete', old.id, old.search);
    UPDATE counts SET rows = rows - 1 WHERE name = 'jobs';
END;
CREATE TRIGGER jobs_updated AFTER UPDATE OF search ON jobs BEGIN
    INSERT INTO jobs_trigrams (jobs_trigrams, rowid, search) VALUES ('delete', old.id, old.search);
    INSERT INTO jobs_trigrams (rowid, search) VALUES (new.id, new.search);
END;
CREATE VIRTUAL TABLE events_trigrams USING fts5 (search, content='events', content_rowid='id', tokenize='trigram', detail='none', columnsize=0);
CREATE TRIGGER events_inserted AFTER INSERT ON events BEGIN
    INSERT INTO events_trigrams (rowid, search) VALUES (new.id, new.search);
    UPDATE counts SET rows = rows + 1 WHERE name = 'events';
END;
CREATE TRIGGER events_deleted AFTER DELETE ON events BEGIN
    INSERT INTO events_trigrams (events_trigrams, rowid, search) VALUES ('delete', old.id, old.search);
    UPDATE counts SET rows = rows - 1 WHERE name = 'events';
END;
INSERT INTO counts (name, rows) VALUES ('images', 0), ('jobs', 0), ('events', 0);
--postgres
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE INDEX images_trigrams ON images USING gin (search gin_trgm_ops);
CREATE INDEX jobs_trigrams ON jobs USING gin (search gin_trgm_ops);
CREATE INDEX events_trigrams ON events USING gin (search gin_trgm_ops);
--all
