-- +goose Up

-- slot, position, slot, position …: where the slots of helio.threads ended in which the user had threads when the device
-- registered. NULL: it is shown what is not before "since", as by rules before 3.
ALTER TABLE devices ADD COLUMN shown_from bigint[];
