-- +goose Up

-- "identity" is the clock of what follows: each change of an organization, a project or a key moves it, and is in the audit under its value.
-- "keys" is how many keys there are.
INSERT INTO counter (name, value) VALUES ('identity', 0), ('keys', 0);

-- Times are nanoseconds since 1970, UTC; 0 is none.
CREATE TABLE organization (
    id         TEXT NOT NULL PRIMARY KEY,
    name       TEXT    NOT NULL,
    time_zone  TEXT    NOT NULL,
    disabled   BOOLEAN NOT NULL,
    created_at BIGINT  NOT NULL,
    revision   BIGINT  NOT NULL
);
CREATE UNIQUE INDEX organization_revision ON organization (revision);

CREATE TABLE project (
    organization TEXT NOT NULL REFERENCES organization (id),
    id           TEXT NOT NULL,
    name         TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    revision     BIGINT NOT NULL,
    PRIMARY KEY (organization, id)
);

-- What is kept of a key; the key itself cannot be had back from it. scopes is JSON.
CREATE TABLE api_key (
    id           TEXT NOT NULL PRIMARY KEY,
    organization TEXT NOT NULL REFERENCES organization (id),
    project      TEXT NOT NULL,
    name         TEXT    NOT NULL,
    scopes       TEXT    NOT NULL,
    digest       BLOB    NOT NULL,
    pepper       INTEGER NOT NULL,
    sealed       BLOB,
    expires_at   BIGINT  NOT NULL,
    revoked_at   BIGINT  NOT NULL,
    rotated_to   TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    created_by   TEXT    NOT NULL,
    revision     BIGINT  NOT NULL
);
CREATE UNIQUE INDEX api_key_digest ON api_key (digest);
CREATE UNIQUE INDEX api_key_revision ON api_key (revision);
CREATE INDEX api_key_of_organization ON api_key (organization, id);
CREATE INDEX api_key_of_project ON api_key (organization, project);

-- When a key was used last. It stands apart from the key: it changes all the time and is no change of the key.
CREATE TABLE api_key_use (
    id      TEXT NOT NULL PRIMARY KEY,
    used_at BIGINT NOT NULL
);

-- Who changed what. It is written together with the change, holds no secret, and is never shortened by the program.
CREATE TABLE audit (
    sequence       BIGINT NOT NULL PRIMARY KEY,
    made_at        BIGINT NOT NULL,
    actor          TEXT   NOT NULL,
    role           TEXT   NOT NULL,
    action         TEXT   NOT NULL,
    kind           TEXT   NOT NULL,
    id             TEXT NOT NULL,
    organization   TEXT NOT NULL,
    before_content TEXT,
    after_content  TEXT,
    reason         TEXT   NOT NULL,
    request_id     TEXT   NOT NULL
);
CREATE INDEX audit_of_organization ON audit (organization, sequence);
CREATE INDEX audit_of_one ON audit (kind, id, sequence);
