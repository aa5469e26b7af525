-- +goose Up
-- PINs by number and by the device key that asked, so that nobody's wrong tries are another's. A table of its own: edges of the version before go on with pins
-- while both run.
CREATE TABLE device_pins (
  phone_hash uuid        NOT NULL,
  key_hash   bytea       NOT NULL, -- digest of the public key that asked; empty: it named none, and any device may use the PIN
  pin_hash   bytea       NOT NULL,
  salt       bytea       NOT NULL,
  sent       timestamptz NOT NULL,
  expires    timestamptz NOT NULL,
  tries      integer     NOT NULL DEFAULT 0, -- made for this PIN
  used_by    bytea,                          -- digest of the device's id and key; null: not used
  PRIMARY KEY (phone_hash, key_hash)
);

-- Networks from which a number was registered: what strangers ask and try elsewhere costs these nothing.
CREATE TABLE homes (
  home bytea PRIMARY KEY, -- keyed digest of number and network
  seen timestamptz NOT NULL
);
