-- +goose Up
-- One row per phone number that asked for a PIN. Nothing here can be rebuilt, and nothing needs to be.
CREATE TABLE pins (
  phone_hash uuid PRIMARY KEY,
  pin_hash   bytea       NOT NULL,
  salt       bytea       NOT NULL,
  sent       timestamptz NOT NULL,
  expires    timestamptz NOT NULL,
  tries      integer     NOT NULL DEFAULT 0, -- made for this PIN
  deaths     integer     NOT NULL DEFAULT 0, -- PINs that died of wrong tries since the last success: the delay grows with it
  not_before timestamptz NOT NULL DEFAULT 'epoch' -- no try and no new PIN is taken before
);

-- Token buckets by phone, address and range of numbers, shared by all edges.
CREATE TABLE limits (
  bucket  text PRIMARY KEY,
  tokens  double precision NOT NULL,
  updated timestamptz      NOT NULL,
  granted boolean          NOT NULL DEFAULT true -- whether the last taker got what it asked for
);
