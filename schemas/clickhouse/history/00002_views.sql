-- Messages as they stand: with the last edit, and empty when taken back.
CREATE OR REPLACE VIEW messages_current AS
SELECT
  m.thread_id AS thread_id, m.position AS position, m.ordinal AS ordinal, m.sender_id AS sender_id, m.sender_device AS sender_device,
  m.message_id AS message_id, m.reply_to AS reply_to, m.log_time AS log_time, m.client_time AS client_time,
  multiIf(c.deletions > 0, 0, c.edits > 0, c.new_key_id, m.key_id) AS key_id,
  multiIf(c.deletions > 0, '', c.edits > 0, c.new_body, m.body) AS body,
  c.edits > 0 AS edited,
  c.deletions > 0 AS deleted,
  if(c.edits > 0, c.edit_time, NULL) AS edited_at,
  if(c.deletions > 0, c.deletion_time, NULL) AS deleted_at
FROM (SELECT * FROM messages FINAL) AS m
LEFT JOIN (
  SELECT
    thread_id, author_id, message_id,
    countIf(change = 'edited') AS edits,
    countIf(change = 'deleted') AS deletions,
    argMaxIf(key_id, position, change = 'edited') AS new_key_id,
    argMaxIf(body, position, change = 'edited') AS new_body,
    maxIf(log_time, change = 'edited') AS edit_time,
    minIf(log_time, change = 'deleted') AS deletion_time
  FROM message_changes
  WHERE change IN ('edited', 'deleted')
  GROUP BY thread_id, author_id, message_id
) AS c ON c.thread_id = m.thread_id AND c.author_id = m.sender_id AND c.message_id = m.message_id;

-- How long each message took to each of its recipients, in milliseconds of log time; NULL: not yet. Recipients are those who were members, the sender not.
CREATE OR REPLACE VIEW delivery_latency AS
WITH
  spans AS (
    SELECT thread_id, user_id, position AS from_position, active,
      leadInFrame(position, 1, toInt64(9223372036854775807)) OVER (PARTITION BY thread_id, user_id ORDER BY position
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS until_position
    FROM memberships FINAL
  ),
  sent AS (
    SELECT m.thread_id AS thread_id, m.position AS position, m.message_id AS message_id, m.sender_id AS sender_id, s.user_id AS recipient_id, m.log_time AS log_time
    FROM (SELECT thread_id, position, message_id, sender_id, log_time FROM messages FINAL) AS m
    INNER JOIN spans AS s ON s.thread_id = m.thread_id
    WHERE s.active AND m.position >= s.from_position AND m.position < s.until_position AND s.user_id != m.sender_id
  ),
  delivered AS (
    SELECT thread_id, user_id, upto, min(first) OVER (PARTITION BY thread_id, user_id ORDER BY upto DESC
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS at
    FROM (SELECT thread_id, user_id, delivered_position AS upto, min(log_time) AS first FROM receipts WHERE delivered_ordinal > 0 GROUP BY thread_id, user_id, upto)
  ),
  seen AS (
    SELECT thread_id, user_id, upto, min(first) OVER (PARTITION BY thread_id, user_id ORDER BY upto DESC
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS at
    FROM (SELECT thread_id, user_id, read_position AS upto, min(log_time) AS first FROM receipts WHERE read_ordinal > 0 GROUP BY thread_id, user_id, upto)
  )
SELECT
  x.thread_id AS thread_id, x.position AS position, x.message_id AS message_id, x.sender_id AS sender_id, x.recipient_id AS recipient_id, x.log_time AS log_time,
  x.delivered_ms AS delivered_ms,
  if(r.upto >= x.position, dateDiff('millisecond', x.log_time, r.at), NULL) AS read_ms
FROM (
  SELECT s.thread_id AS thread_id, s.position AS position, s.message_id AS message_id, s.sender_id AS sender_id, s.recipient_id AS recipient_id,
    s.log_time AS log_time, if(d.upto >= s.position, dateDiff('millisecond', s.log_time, d.at), NULL) AS delivered_ms
  FROM sent AS s
  ASOF LEFT JOIN delivered AS d ON d.thread_id = s.thread_id AND d.user_id = s.recipient_id AND d.upto >= s.position
) AS x
ASOF LEFT JOIN seen AS r ON r.thread_id = x.thread_id AND r.user_id = x.recipient_id AND r.upto >= x.position;

-- Users who wrote, changed something or confirmed a delivery on a day of log time (UTC).
CREATE OR REPLACE VIEW daily_active_users AS
SELECT toDate(log_time) AS day, uniqExact(user_id) AS users
FROM (
  SELECT sender_id AS user_id, log_time FROM messages
  UNION ALL SELECT actor_id AS user_id, log_time FROM thread_events
  UNION ALL SELECT user_id, log_time FROM receipts
)
GROUP BY day
ORDER BY day;

-- The same by month.
CREATE OR REPLACE VIEW monthly_active_users AS
SELECT toStartOfMonth(log_time) AS month, uniqExact(user_id) AS users
FROM (
  SELECT sender_id AS user_id, log_time FROM messages
  UNION ALL SELECT actor_id AS user_id, log_time FROM thread_events
  UNION ALL SELECT user_id, log_time FROM receipts
)
GROUP BY month
ORDER BY month;

-- Messages accepted in each minute of log time, their senders and threads.
CREATE OR REPLACE VIEW messages_per_minute AS
SELECT toStartOfMinute(log_time) AS minute, count() AS messages, uniqExact(sender_id) AS senders, uniqExact(thread_id) AS threads
FROM messages FINAL
GROUP BY minute
ORDER BY minute;

-- Threads by number of messages, the busiest first.
CREATE OR REPLACE VIEW busiest_threads AS
SELECT m.thread_id AS thread_id, t.title AS title, m.messages AS messages, m.senders AS senders, m.first_time AS first_time, m.last_time AS last_time
FROM (
  SELECT thread_id, count() AS messages, uniqExact(sender_id) AS senders, min(log_time) AS first_time, max(log_time) AS last_time
  FROM messages FINAL GROUP BY thread_id
) AS m
LEFT JOIN (
  SELECT thread_id, argMax(title, position) AS title FROM thread_events WHERE kind IN ('thread_created', 'thread_renamed') GROUP BY thread_id
) AS t ON t.thread_id = m.thread_id
ORDER BY messages DESC, last_time DESC;
