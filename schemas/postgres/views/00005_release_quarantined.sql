-- +goose Up
-- Takes released out of quarantine, of a topic in a slot, for a writer that goes by expected: when one of those is not there any more, somebody else has
-- written, which is HE409 and fails the whole transaction. What is released is in no log position that would come again, so here the transaction waits for the
-- disk.
-- +goose StatementBegin
CREATE FUNCTION release_quarantined(topic_ smallint, slot_ integer, expected bigint[], released bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'on', true);
  IF (SELECT count(*) FROM quarantine q WHERE q.topic = topic_ AND q.slot = slot_ AND q.position = ANY (expected)) <> cardinality(expected) THEN
    RAISE EXCEPTION 'quarantine of topic % in slot % was changed by another writer', topic_, slot_ USING ERRCODE = 'HE409';
  END IF;
  DELETE FROM quarantine q WHERE q.topic = topic_ AND q.slot = slot_ AND q.position = ANY (released);
END
$$;
-- +goose StatementEnd
