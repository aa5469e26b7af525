-- +goose Up

-- The identity of the record before next: the id of the topic in Kafka, and the record's digest (schemas/topic, Mark). It says something only where marked is
-- next: an older version moves next alone.
ALTER TABLE positions ADD COLUMN log_id uuid, ADD COLUMN digest bigint, ADD COLUMN marked bigint;

-- As the function with five arguments, with the mark of the record before next_; without one (null) what is stored stays.
-- +goose StatementBegin
CREATE FUNCTION advance_position(topic_ smallint, slot_ integer, expect bigint, next_ bigint, log_time_ timestamptz, log_id_ uuid, digest_ bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  UPDATE positions p SET next = next_, log_time = greatest(p.log_time, log_time_), log_id = coalesce(log_id_, p.log_id),
         digest = coalesce(digest_, p.digest), marked = CASE WHEN digest_ IS NULL THEN p.marked ELSE next_ END
   WHERE p.topic = topic_ AND p.slot = slot_ AND p.next = expect;
  IF FOUND THEN
    RETURN;
  END IF;
  IF expect = 0 THEN
    INSERT INTO positions (topic, slot, next, log_time, log_id, digest, marked)
    VALUES (topic_, slot_, next_, log_time_, log_id_, digest_, CASE WHEN digest_ IS NULL THEN NULL ELSE next_ END) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN;
    END IF;
  END IF;
  RAISE EXCEPTION 'position of topic % in slot % is not %', topic_, slot_, expect USING ERRCODE = 'HE409';
END
$$;
-- +goose StatementEnd
