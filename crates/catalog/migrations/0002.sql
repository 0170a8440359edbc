-- How pools were from time to time, what nodes take turns at, and an index for what is removed.

-- The newest of each hour, and of each day.
CREATE TABLE pool_samples (
    id {id},
    pool_id BIGINT NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    -- hour or day, and when that began.
    grain {text} NOT NULL,
    bucket BIGINT NOT NULL,
    -- When it was measured.
    at BIGINT NOT NULL,
    images BIGINT NOT NULL,
    chunks BIGINT NOT NULL,
    logical_bytes BIGINT NOT NULL,
    unique_bytes BIGINT NOT NULL,
    unique_stored_bytes BIGINT NOT NULL,
    stored_bytes BIGINT NOT NULL,
    disk_bytes BIGINT NOT NULL,
    -- Null: a disk didn't say.
    capacity_bytes BIGINT,
    free_bytes BIGINT,
    room_bytes BIGINT,
    missing_disks BIGINT NOT NULL,
    bad_copies BIGINT NOT NULL
);
CREATE UNIQUE INDEX pool_samples_bucket ON pool_samples (pool_id, grain, bucket);
CREATE INDEX pool_samples_at ON pool_samples (grain, at);

-- What only one node does at a time, who does it, and until when that one is thought to be alive.
CREATE TABLE leases (
    name {text} PRIMARY KEY,
    holder {text} NOT NULL,
    until BIGINT NOT NULL
);

CREATE INDEX jobs_ended ON jobs (ended_at);
CREATE INDEX jobs_pool_kind ON jobs (pool_id, kind, ended_at);
