-- +goose Up
-- Who is invited into groups now; none of them is a member. Before there were such events nobody was.
CREATE TABLE invitations (
  thread_id  uuid        NOT NULL,
  user_id    uuid        NOT NULL,
  inviter_id uuid        NOT NULL,
  position   bigint      NOT NULL, -- of the event that invited him
  log_time   timestamptz NOT NULL,
  PRIMARY KEY (thread_id, user_id)
) WITH (fillfactor = 85);
