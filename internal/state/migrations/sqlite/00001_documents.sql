-- +goose Up

-- Whoever writes past the program has to do as it does, in one transaction: raise the counter, add the change under the new revision with
-- an empty actor, and write the document with that revision. Otherwise what was written is not noticed.

-- Numbers that the whole book shares. "revision" is that of the last change.
CREATE TABLE counter (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counter (name, value) VALUES ('revision', 0);

-- What is there now. content is JSON, as it was written.
CREATE TABLE document (
    kind     TEXT   NOT NULL,
    id       TEXT   NOT NULL,
    revision BIGINT NOT NULL,
    content  TEXT   NOT NULL,
    PRIMARY KEY (kind, id)
);

-- The journal: each change with who, why and when (nanoseconds since 1970, UTC). before_content is null for a creation,
-- after_content for a deletion. It is the history of each document, the audit of all, and tells a watch what changed.
CREATE TABLE change (
    revision       BIGINT NOT NULL PRIMARY KEY,
    action         TEXT   NOT NULL,
    kind           TEXT   NOT NULL,
    id             TEXT   NOT NULL,
    before_content TEXT,
    after_content  TEXT,
    actor          TEXT   NOT NULL,
    reason         TEXT   NOT NULL,
    made_at        BIGINT NOT NULL
);
CREATE INDEX change_of_document ON change (kind, id, revision);
