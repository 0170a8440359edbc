-- Volumes, and how initiators reach them.

-- Rows of volumes and snapshots mirror what pools have, which is right where they differ.
CREATE TABLE volumes (
    id {id},
    pool_id BIGINT NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    -- What the pool calls it: 32 hexadecimal digits.
    uuid {text} NOT NULL,
    -- 40 hexadecimal digits that follow from it, for dialects.
    public_id {text} NOT NULL UNIQUE,
    name {text} NOT NULL,
    -- In bytes.
    size BIGINT NOT NULL,
    block_size BIGINT NOT NULL,
    sector_size BIGINT NOT NULL,
    -- Whether it takes only the room of what was written.
    thin BIGINT NOT NULL,
    deduplicated BIGINT NOT NULL,
    compressed BIGINT NOT NULL,
    cached BIGINT NOT NULL,
    -- transactional or sequential.
    io_type {text} NOT NULL,
    -- Its share of the bandwidth beside others: 4 to 128.
    priority BIGINT NOT NULL,
    -- What it was made from; empty: nothing.
    origin {text} NOT NULL,
    created_at BIGINT NOT NULL,
    -- Bytes that it holds, and that only its snapshots do; null: not measured yet.
    used BIGINT,
    snapshots_used BIGINT,
    measured_at BIGINT,
    -- Persistent reservations, as the target keeps them.
    reservations {bytes},
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX volumes_uuid ON volumes (pool_id, uuid);
CREATE UNIQUE INDEX volumes_name ON volumes (pool_id, name);
CREATE INDEX volumes_organisation ON volumes (organisation_id, name);

CREATE TABLE snapshots (
    id {id},
    volume_id BIGINT NOT NULL REFERENCES volumes (id) ON DELETE CASCADE,
    pool_id BIGINT NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    uuid {text} NOT NULL,
    public_id {text} NOT NULL UNIQUE,
    name {text} NOT NULL,
    -- Bytes of the volume then.
    size BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Bytes that nothing but it holds; null: not measured yet.
    reserved BIGINT,
    -- Whether a schedule made it, which removes it again.
    scheduled BIGINT NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX snapshots_uuid ON snapshots (volume_id, uuid);
CREATE UNIQUE INDEX snapshots_name ON snapshots (volume_id, name);
CREATE INDEX snapshots_organisation ON snapshots (organisation_id, created_at);

CREATE TABLE snapshot_schedules (
    volume_id BIGINT PRIMARY KEY REFERENCES volumes (id) ON DELETE CASCADE,
    enabled BIGINT NOT NULL,
    -- In microseconds.
    every BIGINT NOT NULL,
    -- So many snapshots of it stay.
    keep BIGINT NOT NULL,
    next_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE INDEX snapshot_schedules_next ON snapshot_schedules (next_at);

-- Who may log in to targets.
CREATE TABLE auth_groups (
    id {id},
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    public_id {text} NOT NULL UNIQUE,
    name {text} NOT NULL,
    -- What initiators prove, and what the target proves to them; the secrets are sealed.
    chap_user {text},
    chap_secret {bytes},
    mutual_user {text},
    mutual_secret {bytes},
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX auth_groups_name ON auth_groups (organisation_id, name);

-- The initiators that an auth group names; none: all.
CREATE TABLE initiators (
    id {id},
    auth_group_id BIGINT NOT NULL REFERENCES auth_groups (id) ON DELETE CASCADE,
    public_id {text} NOT NULL UNIQUE,
    iqn {text} NOT NULL,
    alias {text} NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX initiators_iqn ON initiators (auth_group_id, iqn);

-- Where targets are reached. No group has another's address.
CREATE TABLE portal_groups (
    id {id},
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    public_id {text} NOT NULL UNIQUE,
    name {text} NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX portal_groups_name ON portal_groups (organisation_id, name);

CREATE TABLE portals (
    id {id},
    portal_group_id BIGINT NOT NULL REFERENCES portal_groups (id) ON DELETE CASCADE,
    public_id {text} NOT NULL UNIQUE,
    -- An address and a port.
    address {text} NOT NULL UNIQUE
);

CREATE TABLE targets (
    id {id},
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    public_id {text} NOT NULL UNIQUE,
    name {text} NOT NULL,
    iqn {text} NOT NULL UNIQUE,
    -- Null: everybody may log in.
    auth_group_id BIGINT REFERENCES auth_groups (id),
    portal_group_id BIGINT NOT NULL REFERENCES portal_groups (id),
    enabled BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE UNIQUE INDEX targets_name ON targets (organisation_id, name);
CREATE INDEX targets_auth_group ON targets (auth_group_id);
CREATE INDEX targets_portal_group ON targets (portal_group_id);

CREATE TABLE luns (
    target_id BIGINT NOT NULL REFERENCES targets (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    volume_id BIGINT NOT NULL REFERENCES volumes (id),
    PRIMARY KEY (target_id, number)
);
CREATE UNIQUE INDEX luns_volume ON luns (volume_id, target_id);

-- The dialect that a key is for; null: the native API.
ALTER TABLE api_keys ADD COLUMN dialect {text};
