-- Which building of the history this database holds; the last row that was written counts. None: the first building, and the live one. It goes with the
-- other tables when another building takes their place.
CREATE TABLE IF NOT EXISTS generation (
  one     UInt8 DEFAULT 0,
  number  UInt32,
  state   LowCardinality(String),                     -- live; building; asof: up to a place, and never to be live; retired: it was live
  until   String,                                     -- asof: up to where
  since   DateTime64(3, 'UTC'),                       -- of the state
  version UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY one;

-- While it is open the tables of another database take the place of those here, one after the other, and nobody takes a slot over. The last row that was
-- written counts. It stays where it is.
CREATE TABLE IF NOT EXISTS switching (
  one     UInt8 DEFAULT 0,
  open    Bool,
  beside  String,                                     -- the other database
  number  UInt32,                                     -- of the building that comes
  leaves  UInt32,                                     -- of the one that goes
  tables  Array(String),
  was     Array(UUID),                                -- of the tables, before
  becomes Array(UUID),                                -- and after
  written DateTime64(3, 'UTC') DEFAULT now64(3),
  version UInt64
) ENGINE = ReplacingMergeTree(version)
ORDER BY one;
