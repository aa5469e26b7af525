-- The thread's clock as the message has left it: its log time, as far as that counts (schemas/thread, MaxAhead).
ALTER TABLE messages ADD COLUMN IF NOT EXISTS counted_time DateTime64(3, 'UTC') DEFAULT log_time AFTER log_time;
