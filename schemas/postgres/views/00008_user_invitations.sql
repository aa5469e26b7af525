-- +goose Up

-- Who may put the user into groups: event.v1.MayAdd; 0, or NULL: everybody. It may be NULL because a projector of the
-- version before copies rows into a table that is made like this one, where no default fills it.
ALTER TABLE users ADD COLUMN may_add smallint DEFAULT 0;

-- The open invitations of users, as they were told of them. Whether somebody is invited says the thread.
CREATE TABLE user_invitations (
  user_id    uuid        NOT NULL,
  thread_id  uuid        NOT NULL,
  inviter_id uuid        NOT NULL,
  title      text        NOT NULL, -- the thread's at that time
  position   bigint      NOT NULL, -- in helio.users
  log_time   timestamptz NOT NULL,
  PRIMARY KEY (user_id, thread_id)
) WITH (fillfactor = 85);
