-- +goose Up
-- Finds what a thread has accepted within the window of the rule on repeats, and the latest log time of its messages, without reading its whole tail: stamps need
-- not come in the order of positions. By its condition on log_time it serves only what asks for log times: nothing else is to be planned with it, even while the
-- tables are empty. While it is built over a large tail, projectors of the version before wait, and take up the log where they were.
CREATE INDEX messages_by_time ON messages (thread_id, log_time) WHERE kind = 10 AND log_time IS NOT NULL;
