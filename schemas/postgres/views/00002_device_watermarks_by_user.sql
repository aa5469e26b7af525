-- +goose Up
-- A device id is its user's word, and every member of a thread sees the ids of the others' devices: who takes another's for his own must not move the other's
-- cursor.
ALTER TABLE device_watermarks DROP CONSTRAINT device_watermarks_pkey, ADD PRIMARY KEY (thread_id, device_id, user_id);
