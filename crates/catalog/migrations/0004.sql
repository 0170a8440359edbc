-- Where the audit trail is sent as it grows, and how far that is: one row, or none.

CREATE TABLE audit_sender (
    id BIGINT PRIMARY KEY,
    -- JSON.
    settings {text} NOT NULL,
    -- The number of the last line that was sent, and when.
    last BIGINT NOT NULL,
    sent_at BIGINT,
    -- Why it can't be sent at the moment.
    trouble {text},
    -- The node that sends, until when it is thought to be alive.
    worker {text},
    lease_until BIGINT,
    version BIGINT NOT NULL
);
