-- +goose Up
-- What was trimmed from a thread's tail: every accepted event at a later position, and every one of a later log time, is in messages. A thread that is not here
-- has its whole past there. Written by the statement that trims, and by nothing else.
CREATE TABLE trimmed (
  thread_id uuid PRIMARY KEY,
  position  bigint      NOT NULL,
  log_time  timestamptz NOT NULL
) WITH (fillfactor = 70);

-- What was trimmed before this was noted: whatever is older than a tail that does not have its thread's first event, which for a direct thread (kind 1) is its
-- first message and for a group its creation (kind 14).
INSERT INTO trimmed (thread_id, position, log_time)
SELECT t.thread_id, coalesce(m.position - 1, t.last_position), now()
  FROM threads t
  LEFT JOIN LATERAL (SELECT position, ordinal, kind FROM messages WHERE thread_id = t.thread_id ORDER BY position LIMIT 1) m ON true
 WHERE m.position IS NULL OR NOT (m.kind = 14 OR t.kind = 1 AND m.kind = 10 AND m.ordinal = 1);
