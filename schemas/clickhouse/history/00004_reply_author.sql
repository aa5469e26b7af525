-- Whose message is answered: ids of messages are unique per author only. Zero in messages from before it was said.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS reply_author UUID AFTER reply_to;
