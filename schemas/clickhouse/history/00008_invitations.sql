-- One row for each user whose invitation into a group an event changed. The last by position is how things stand; what became of an invitation says
-- the kind of the event that ended it, and who joined by it memberships at the same position.
CREATE TABLE IF NOT EXISTS invitations (
  thread_id UUID,
  user_id   UUID,                                     -- who is invited
  position  Int64 CODEC(Delta, ZSTD),
  slot      Int32 CODEC(ZSTD),
  open      Bool,
  kind      LowCardinality(String),                   -- of the event, as in thread_events: member_invited, invitation_accepted, …
  actor_id  UUID,                                     -- who did it: of an open one who invited
  log_time  DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(log_time)
ORDER BY (thread_id, user_id, position)
SETTINGS non_replicated_deduplication_window = 10000;
