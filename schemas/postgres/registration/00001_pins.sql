-- +goose Up
-- One row per phone number that asked for a PIN. Nothing here can be rebuilt, and nothing needs to be.
CREATE TABLE pins (
  phone_hash uuid PRIMARY KEY,
  pin_hash   bytea       NOT NULL,
  salt       bytea       NOT NULL,
  expires    timestamptz NOT NULL,
  tries      integer     NOT NULL DEFAULT 0, -- wrong ones for this PIN
  failures   integer     NOT NULL DEFAULT 0, -- wrong ones since the last success: the delay grows with it
  not_before timestamptz NOT NULL DEFAULT 'epoch' -- no try and no new PIN is taken before
);

-- Token buckets by phone, address and prefix, shared by all edges.
CREATE TABLE limits (
  bucket  text PRIMARY KEY,
  tokens  double precision NOT NULL,
  updated timestamptz      NOT NULL
);
