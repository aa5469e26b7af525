-- The identity of the record before next: the id of the topic in Kafka, and the record's digest (schemas/topic, Mark). Zero is not known: an older version says
-- nothing of it.
ALTER TABLE positions ADD COLUMN IF NOT EXISTS log_id UUID;
ALTER TABLE positions ADD COLUMN IF NOT EXISTS digest UInt64 DEFAULT 0;
