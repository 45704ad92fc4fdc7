-- +goose Up

-- What is old is taken out, by one replica at a time: "retention" is when one was last at it, in nanoseconds since 1970, UTC.
-- Deletions up to the value of "gone" are not in the table of that name any more: whoever has followed the clock of identities less far reads
-- everything anew. "gone_next" is where "gone" goes next, once "gone_next_at", in nanoseconds, is long enough ago.
-- "audit_since" is before when entries of the audit were taken out, in nanoseconds; 0: none ever was.
INSERT INTO counter (name, value) VALUES ('retention', 0), ('gone', 0), ('gone_next', 0), ('gone_next_at', 0), ('audit_since', 0);
