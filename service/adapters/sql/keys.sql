-- :create
-- Keep a new key.
INSERT INTO api_keys (id, secret_sha256, owner, scopes, name, expires_at)
VALUES ($1, $2, $3, $4, $5, now() + $6::bigint * interval '1 second')
RETURNING *;

-- :find
-- The key with this id, whether it is still good or not.
SELECT * FROM api_keys WHERE id = $1;

-- :list
-- The newest keys.
SELECT * FROM api_keys ORDER BY created_at DESC, id DESC LIMIT $1;

-- :revoke
-- Have a key refused from now on; the first time is the one that stays.
UPDATE api_keys SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING *;

-- :token_key
-- What stream tokens are signed with.
SELECT token_key FROM schema_version;
