-- A row that says released takes back the one that was written before at its position: the event is in the other tables now.
ALTER TABLE quarantine ADD COLUMN IF NOT EXISTS released Bool DEFAULT false;
