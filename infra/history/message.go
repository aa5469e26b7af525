package history

import (
	"context"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Place is where a message stands.
type Place struct {
	Thread   id.ThreadID
	Position topic.Position
	Ordinal  int64
	Sender   id.UserID
}

func (r *Place) scan(into func(...any) error) error {
	return into((*key)(&r.Thread), (*int64)(&r.Position), &r.Ordinal, (*key)(&r.Sender))
}

const sqlMessage = `
SELECT thread_id, position, ordinal, sender_id FROM messages WHERE message_id = toUUID(?) ORDER BY position LIMIT 1`

// Message finds a message by its id, by reading the ids of all of them. Ids are unique per author only: of several it
// is the one with the lowest position.
func (h *History) Message(ctx context.Context, m id.MessageID) (Place, bool, error) {
	return one[Place](ctx, h, "message", sqlMessage, canonical(m))
}
