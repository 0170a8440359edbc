-- What is to be forgotten is looked for pool by pool, by each pool's own clock.
CREATE INDEX images_pool_expires ON images (pool_id, expires_at) WHERE expires_at IS NOT NULL;

-- The secret that a pool is getting, sealed, until its disks have it; then it is in `secret`.
ALTER TABLE pools ADD COLUMN secret_next {bytes};
