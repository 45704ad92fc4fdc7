-- +goose Up

-- One audit of everything: documents, too, are in it from here on, and what else is changed. "audit" is its clock; before, that was the one of
-- identities. Whoever moves several counters in one transaction moves this one last, so that nobody waits for one another.
-- Where there is something already, replicas of an older version may be at work, which number their entries by the clock of identities: it begins
-- far above that, so that nobody takes a number of theirs, and what they revoke meanwhile is revoked.
INSERT INTO counter (name, value) SELECT 'audit', CASE WHEN value > 0 THEN value + 1000000000 ELSE 0 END FROM counter WHERE name = 'identity';

-- What was deleted, under the value of the clock of identities: whoever follows that clock learns of it here.
CREATE TABLE gone (
    revision BIGINT NOT NULL PRIMARY KEY,
    kind     TEXT   NOT NULL,
    id       TEXT   NOT NULL
);

-- Tells the pepper that a key was made under from another one of that version; 0 is not known.
ALTER TABLE api_key ADD COLUMN pepper_mark BIGINT NOT NULL DEFAULT 0;

-- What one actor did, what became of one thing whatever it is, and what was done lately, is found among millions of entries.
CREATE INDEX audit_of_actor ON audit (actor, sequence);
CREATE INDEX audit_of_id ON audit (id, sequence);
CREATE INDEX audit_of_time ON audit (made_at, sequence);

ALTER TABLE change ADD COLUMN role TEXT NOT NULL DEFAULT '';
ALTER TABLE change ADD COLUMN request_id TEXT NOT NULL DEFAULT '';

-- What is left of the history of documents goes into the audit, which is not bounded. No entry that was there is touched: these get sequences
-- below them, -1 and down, in their own order. content may be anything.
INSERT INTO audit (sequence, made_at, actor, role, action, kind, id, organization, before_content, after_content, reason, request_id)
    SELECT revision - 1 - (SELECT max(revision) FROM change), made_at, actor, '', action, kind, id,
        CASE WHEN named <> '' AND length(named) <= 128 AND named NOT GLOB '*[^A-Za-z0-9._-]*' THEN named ELSE '' END,
        before_content, after_content, reason, ''
    FROM (
        SELECT *, CASE WHEN kind IN ('RoutingPolicy', 'Mark') AND json_valid(coalesce(after_content, before_content))
            THEN CAST(coalesce(json_extract(coalesce(after_content, before_content), '$.organization'),
                json_extract(coalesce(after_content, before_content), '$.OrganizationID'), '') AS TEXT) ELSE '' END AS named
        FROM change
    ) AS found;
