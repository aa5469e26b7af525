-- +goose Up
-- A PIN that was used stays until it expires, for the device that used it: whose answer was lost, or whose registration could not be finished, asks again.
ALTER TABLE pins ADD COLUMN used_by bytea; -- digest of the device's id and key; null: not used
