-- Messages as they were sent. Edits and deletions are in message_changes; messages_current shows the outcome.
CREATE TABLE IF NOT EXISTS messages (
  thread_id     UUID,
  position      Int64 CODEC(Delta, ZSTD),
  ordinal       Int64 CODEC(Delta, ZSTD),
  slot          Int32 CODEC(ZSTD),
  sender_id     UUID,
  sender_device UUID,
  message_id    UUID,
  reply_to      UUID CODEC(ZSTD),                     -- all zero: none
  log_time      DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
  client_time   DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
  key_id        UInt64 CODEC(ZSTD),                   -- 0: body is plain text
  body          String CODEC(ZSTD),
  event         String CODEC(ZSTD)                    -- the event as it stands in the log
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(log_time)
ORDER BY (thread_id, position)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every other accepted event of a thread.
CREATE TABLE IF NOT EXISTS thread_events (
  thread_id UUID,
  position  Int64 CODEC(Delta, ZSTD),
  ordinal   Int64 CODEC(Delta, ZSTD),
  slot      Int32 CODEC(ZSTD),
  kind      LowCardinality(String),
  actor_id  UUID,
  log_time  DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
  title     String CODEC(ZSTD),                       -- of thread_created and thread_renamed
  event     String CODEC(ZSTD)
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(log_time)
ORDER BY (thread_id, position)
SETTINGS non_replicated_deduplication_window = 10000;

-- Edits, deletions and reactions.
CREATE TABLE IF NOT EXISTS message_changes (
  thread_id  UUID,
  author_id  UUID,
  message_id UUID,
  position   Int64 CODEC(Delta, ZSTD),
  slot       Int32 CODEC(ZSTD),
  change     LowCardinality(String),                  -- edited, deleted, reaction
  actor_id   UUID,
  log_time   DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
  key_id     UInt64,
  body       String CODEC(ZSTD),                      -- of an edit
  emoji      String CODEC(ZSTD)                       -- of a reaction; empty: taken away
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(log_time)
ORDER BY (thread_id, author_id, message_id, position)
SETTINGS non_replicated_deduplication_window = 10000;

-- One row for each member that an event changed. The last by position is how things stand.
CREATE TABLE IF NOT EXISTS memberships (
  thread_id UUID,
  user_id   UUID,
  position  Int64 CODEC(Delta, ZSTD),
  slot      Int32 CODEC(ZSTD),
  kind      Int16,                                    -- of the thread: 1 direct, 2 group
  active    Bool,
  role      Int16,                                    -- 1 member, 2 admin
  ordinal   Int64,                                    -- of the last message before this event
  log_time  DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(log_time)
ORDER BY (thread_id, user_id, position)
SETTINGS non_replicated_deduplication_window = 10000;

-- Watermarks as devices reported them. position is the place in helio.receipts.
CREATE TABLE IF NOT EXISTS receipts (
  thread_id          UUID,
  user_id            UUID,
  device_id          UUID,
  position           Int64 CODEC(Delta, ZSTD),
  slot               Int32 CODEC(ZSTD),
  delivered_position Int64 CODEC(Delta, ZSTD),
  delivered_ordinal  Int64 CODEC(Delta, ZSTD),
  read_position      Int64 CODEC(Delta, ZSTD),
  read_ordinal       Int64 CODEC(Delta, ZSTD),
  log_time           DateTime64(3, 'UTC') CODEC(Delta, ZSTD)
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(log_time)
ORDER BY (thread_id, user_id, device_id, position)
SETTINGS non_replicated_deduplication_window = 10000;

-- Events that could not be applied, and behind the first of a subject all its later ones.
CREATE TABLE IF NOT EXISTS quarantine (
  topic    Int16,
  slot     Int32,
  position Int64,
  subject  UUID,
  reason   String,
  log_time DateTime64(3, 'UTC')
) ENGINE = ReplacingMergeTree
ORDER BY (topic, slot, position)
SETTINGS non_replicated_deduplication_window = 1000;

-- The range that an insert is about to take in ('begun') and then has ('done'). Everything before the highest done next is in the tables; a range that was
-- begun there and is not done is inserted again, exactly, with the same tokens. A rebuild in place takes a higher generation.
CREATE TABLE IF NOT EXISTS positions (
  topic         Int16,                                -- 1 threads, 2 receipts
  slot          Int32,
  from_position Int64,
  next          Int64,
  state         Enum8('begun' = 1, 'done' = 2),
  generation    UInt32,
  log_time      DateTime64(3, 'UTC'),                 -- of the last event of the range
  written       DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree(next)
ORDER BY (generation, topic, slot, state)
SETTINGS non_replicated_deduplication_window = 1000;
