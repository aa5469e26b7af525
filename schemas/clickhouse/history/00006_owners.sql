-- Who writes a slot: the highest epoch of its slot and generation. Whoever takes a slot over writes down a higher one than there is, before it reads
-- positions; a writer whose epoch is not the highest any more stops.
CREATE TABLE IF NOT EXISTS owners (
  generation UInt32,
  slot       Int32,
  epoch      UInt64,
  written    DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = ReplacingMergeTree(epoch)
ORDER BY (generation, slot)
SETTINGS non_replicated_deduplication_window = 1000;
