-- +goose Up
-- How far each topic of each slot has been taken in: everything before next. Written in the transaction that writes the rows.
CREATE TABLE positions (
  topic   smallint    NOT NULL, -- 1 threads, 2 receipts, 3 users
  slot    integer     NOT NULL,
  next    bigint      NOT NULL,
  log_time timestamptz NOT NULL DEFAULT 'epoch', -- of the last event taken in
  PRIMARY KEY (topic, slot)
) WITH (fillfactor = 50);

-- Moves a position from expect to next, for the writer whose batch begins there; expect 0 is a position that was never stored. Any other stored position means
-- that somebody else has written: HE409, and with it the whole transaction fails. The transaction need not wait for the disk, since rows and
-- position vanish together and the log has them.
-- +goose StatementBegin
CREATE FUNCTION advance_position(topic_ smallint, slot_ integer, expect bigint, next_ bigint, log_time_ timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  UPDATE positions p SET next = next_, log_time = greatest(p.log_time, log_time_)
   WHERE p.topic = topic_ AND p.slot = slot_ AND p.next = expect;
  IF FOUND THEN
    RETURN;
  END IF;
  IF expect = 0 THEN
    INSERT INTO positions (topic, slot, next, log_time) VALUES (topic_, slot_, next_, log_time_) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN;
    END IF;
  END IF;
  RAISE EXCEPTION 'position of topic % in slot % is not %', topic_, slot_, expect USING ERRCODE = 'HE409';
END
$$;
-- +goose StatementEnd

-- Events that could not be applied, and behind the first of a subject all its later ones, in order.
CREATE TABLE quarantine (
  topic    smallint    NOT NULL,
  slot     integer     NOT NULL,
  position bigint      NOT NULL,
  subject  uuid        NOT NULL,
  reason   text        NOT NULL, -- 'parked' for those behind the first
  log_time timestamptz NOT NULL,
  PRIMARY KEY (topic, slot, position)
);
CREATE INDEX quarantine_subject ON quarantine (topic, subject);

-- By user.
CREATE TABLE users (
  user_id    uuid PRIMARY KEY,
  phone_hash uuid        NOT NULL,
  generation integer     NOT NULL,
  name       text        NOT NULL,
  registered timestamptz NOT NULL
) WITH (fillfactor = 85);
CREATE INDEX users_phone_hash ON users (phone_hash, generation DESC);

CREATE TABLE devices (
  user_id    uuid        NOT NULL,
  device_id  uuid        NOT NULL,
  public_key bytea       NOT NULL,
  name       text        NOT NULL,
  is_primary boolean     NOT NULL,
  revoked    boolean     NOT NULL,
  since_position bigint  NOT NULL,
  since      timestamptz NOT NULL, -- history before it is not shown to this device
  PRIMARY KEY (user_id, device_id)
) WITH (fillfactor = 85);

CREATE TABLE contacts (
  user_id    uuid NOT NULL,
  phone_hash uuid NOT NULL,
  name       text NOT NULL,
  PRIMARY KEY (user_id, phone_hash)
);

CREATE TABLE blocks (
  user_id    uuid NOT NULL,
  blocked_id uuid NOT NULL,
  PRIMARY KEY (user_id, blocked_id)
);

-- The threads of a user's list. Whether he is a member says members.
CREATE TABLE user_threads (
  user_id   uuid    NOT NULL,
  thread_id uuid    NOT NULL,
  joined_position bigint NOT NULL, -- in helio.users
  has_left  boolean NOT NULL,
  PRIMARY KEY (user_id, thread_id)
) WITH (fillfactor = 85);

-- By thread.
CREATE TABLE threads (
  thread_id     uuid PRIMARY KEY,
  kind          smallint    NOT NULL, -- 1 direct, 2 group
  title         text        NOT NULL,
  last_position bigint      NOT NULL, -- of the last accepted event
  last_ordinal  bigint      NOT NULL, -- the number of accepted messages
  last_time     timestamptz NOT NULL, -- of the last message; epoch before the first
  last_sender   uuid        NOT NULL,
  preview       text        NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

CREATE TABLE members (
  thread_id uuid     NOT NULL,
  user_id   uuid     NOT NULL,
  role      smallint NOT NULL, -- 1 member, 2 admin
  active    boolean  NOT NULL,
  spans     bigint[] NOT NULL, -- from, to, from, to …: positions of the events that began and ended each stretch; to 0 while it lasts
  base_ordinal bigint NOT NULL, -- of the last message before the last stretch began
  end_ordinal  bigint NOT NULL, -- of the last message when it ended; 0 while it lasts
  PRIMARY KEY (thread_id, user_id)
) WITH (fillfactor = 85);

-- How far each member has got: the highest of the devices'. Independent of membership, because receipts are a topic of their own.
CREATE TABLE watermarks (
  thread_id          uuid   NOT NULL,
  user_id            uuid   NOT NULL,
  delivered_position bigint NOT NULL,
  delivered_ordinal  bigint NOT NULL,
  read_position      bigint NOT NULL,
  read_ordinal       bigint NOT NULL,
  PRIMARY KEY (thread_id, user_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- The same for each device: the cursor from which it is synchronised.
CREATE TABLE device_watermarks (
  thread_id          uuid   NOT NULL,
  device_id          uuid   NOT NULL,
  user_id            uuid   NOT NULL,
  delivered_position bigint NOT NULL,
  delivered_ordinal  bigint NOT NULL,
  read_position      bigint NOT NULL,
  read_ordinal       bigint NOT NULL,
  PRIMARY KEY (thread_id, device_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- The recent tail of every accepted event of a thread, as it stands in the log.
CREATE TABLE messages (
  thread_id  uuid        NOT NULL,
  position   bigint      NOT NULL,
  ordinal    bigint      NOT NULL, -- of the message; for other events that of the last message before
  kind       smallint    NOT NULL, -- field number of the body in event.v1.Event: 10 is a message
  sender_id  uuid        NOT NULL,
  message_id uuid,
  log_time   timestamptz NOT NULL,
  slot       integer     NOT NULL, -- the tail is trimmed slot by slot
  event      bytea       NOT NULL,
  PRIMARY KEY (thread_id, position)
) PARTITION BY HASH (thread_id);
CREATE TABLE messages_0 PARTITION OF messages FOR VALUES WITH (MODULUS 4, REMAINDER 0);
CREATE TABLE messages_1 PARTITION OF messages FOR VALUES WITH (MODULUS 4, REMAINDER 1);
CREATE TABLE messages_2 PARTITION OF messages FOR VALUES WITH (MODULUS 4, REMAINDER 2);
CREATE TABLE messages_3 PARTITION OF messages FOR VALUES WITH (MODULUS 4, REMAINDER 3);
CREATE INDEX messages_log_time ON messages USING brin (log_time);
