-- +goose Up
-- Which building of the views this schema holds. The live one is in the schema that the roles name; others stand beside it in schemas of their own names: they
-- are filled by a replay, and renamed when one takes the place of the live one.
CREATE TABLE generation (
  id     uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
  number integer     NOT NULL DEFAULT 1,
  state  text        NOT NULL DEFAULT 'live', -- or building; asof: up to a place, and never to be live; retired: it was live
  until  text        NOT NULL DEFAULT '', -- asof: up to where
  since  timestamptz NOT NULL DEFAULT now() -- of the state
);
INSERT INTO generation DEFAULT VALUES;

-- Lets a transaction write that goes by this generation, and holds it: it cannot be renamed before that ends. One that goes by another has read rows that were
-- replaced: HE409.
-- +goose StatementBegin
CREATE FUNCTION hold_generation(id_ uuid) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM generation g WHERE g.id = id_;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'another generation of the views has taken the place of %', id_ USING ERRCODE = 'HE409';
  END IF;
END
$$;
-- +goose StatementEnd
