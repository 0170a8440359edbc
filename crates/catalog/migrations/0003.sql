-- Who else knows users: directories, and issuers of tokens.

CREATE TABLE sources (
    id {id},
    -- ldap or oidc, as in users.
    kind {text} NOT NULL,
    name {text} NOT NULL UNIQUE,
    -- Where the users belong that come from it.
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    enabled BIGINT NOT NULL,
    -- JSON.
    settings {text} NOT NULL,
    -- What the appliance itself logs in with, sealed.
    secret {bytes},
    created_at BIGINT NOT NULL,
    version BIGINT NOT NULL DEFAULT 1
);
CREATE VIEW directories AS SELECT * FROM sources WHERE kind = 'ldap';
CREATE VIEW issuers AS SELECT * FROM sources WHERE kind = 'oidc';

-- Whoever is in a group there has a role here.
CREATE TABLE source_grants (
    source_id BIGINT NOT NULL REFERENCES sources (id) ON DELETE CASCADE,
    -- The group as it was written, and as it is compared.
    group_name {text} NOT NULL,
    folded {text} NOT NULL,
    role_id BIGINT NOT NULL REFERENCES roles (id),
    organisation_id BIGINT NOT NULL REFERENCES organisations (id),
    PRIMARY KEY (source_id, folded, role_id, organisation_id)
);
CREATE INDEX source_grants_role ON source_grants (role_id);
CREATE INDEX source_grants_organisation ON source_grants (organisation_id);

-- Where a user came from; null: made here.
ALTER TABLE users ADD COLUMN source_id BIGINT REFERENCES sources (id);
DROP INDEX users_external;
CREATE UNIQUE INDEX users_external ON users (source_id, external_id);

-- The groups that a user was in at the last login, of those that mattered then.
CREATE TABLE user_groups (
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    folded {text} NOT NULL,
    PRIMARY KEY (user_id, folded)
);

-- Every role of every user: what was granted here, and what follows from groups.
CREATE VIEW all_grants AS
    SELECT user_id, role_id, organisation_id FROM grants
    UNION
    SELECT g.user_id, m.role_id, m.organisation_id
    FROM user_groups g
    JOIN users u ON u.id = g.user_id
    JOIN source_grants m ON m.source_id = u.source_id AND m.folded = g.folded;
