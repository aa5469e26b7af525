-- +goose Up
-- Messages that the log has and the fold did not accept, for their senders, who have an acknowledgement. Only those by rules from 3 on, so that a view that was
-- here before this table has what a rebuilt one has. They are trimmed like messages.
CREATE TABLE rejected (
  user_id    uuid        NOT NULL,
  device_id  uuid        NOT NULL,
  thread_id  uuid        NOT NULL,
  position   bigint      NOT NULL,
  message_id uuid        NOT NULL,
  reason     text        NOT NULL, -- thread.Reason
  log_time   timestamptz NOT NULL,
  slot       integer     NOT NULL,
  PRIMARY KEY (user_id, device_id, thread_id, position)
);
