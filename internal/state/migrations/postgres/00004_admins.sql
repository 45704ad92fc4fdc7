-- +goose Up

-- "admins" is the clock of what follows: each change of an admin moves it.
INSERT INTO counter (name, value) VALUES ('admins', 0);

-- Who may use the admin API, besides those whom a configuration names. digest is SHA-256 of the token, which cannot be had back from it.
-- Times are nanoseconds since 1970, UTC; 0 is none.
CREATE TABLE admin (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name       TEXT COLLATE "C" NOT NULL,
    role       TEXT   NOT NULL,
    digest     BYTEA  NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT   NOT NULL,
    revision   BIGINT NOT NULL
);
-- Names stand in the audit: "Ada" and "ada" would be taken for one.
CREATE UNIQUE INDEX admin_name ON admin (lower(name));
CREATE UNIQUE INDEX admin_digest ON admin (digest);
