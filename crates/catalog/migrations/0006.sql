-- The one token of the appliance's administration interface.

CREATE TABLE admin_token (
    -- Always 1: there is one, or none.
    id BIGINT PRIMARY KEY,
    -- The API key that it is: whose it is, what it may, until when.
    key_id BIGINT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    -- What HMACs are made with, sealed; it follows from the token, which is not kept.
    sealed {bytes} NOT NULL,
    -- It is a passphrase that is good for setting another, and nothing else.
    first_run BIGINT NOT NULL
);
