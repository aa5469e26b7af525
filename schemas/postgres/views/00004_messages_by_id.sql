-- +goose Up
-- Tells whether a message was sent before without reading a day of its thread. The ids begin with the time (UUIDv7), so new entries come side by side.
-- While the index is built over a large tail, projectors of the version before wait, and take up the log where they were.
CREATE INDEX messages_by_id ON messages (message_id, thread_id) WHERE kind = 10;
