package views

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

func (r *Place) targets() []any {
	return []any{(*key)(&r.Thread), (*int64)(&r.Position), &r.Ordinal, (*key)(&r.Sender)}
}

var sqlMessage = `
SELECT thread_id, position, ordinal, sender_id FROM messages
 WHERE message_id = $1 AND kind = ` + kindMessage + ` ORDER BY position LIMIT 1`

// Message finds a message in the tails by its id. Ids are unique per author only: of several it is the one with the
// lowest position.
func (v *Views) Message(ctx context.Context, m id.MessageID) (Place, bool, error) {
	return one[Place](ctx, v, "message", sqlMessage, uuid(m))
}
