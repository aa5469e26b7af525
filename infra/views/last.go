package views

import (
	"context"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

var sqlLastMessages = `
SELECT k.nth, m.position
  FROM unnest($1::uuid[]) WITH ORDINALITY AS k (thread_id, nth)
 CROSS JOIN LATERAL (
       SELECT position FROM messages WHERE thread_id = k.thread_id AND kind = ` + kindMessage + `
        ORDER BY position DESC LIMIT 1
       ) m`

// LastMessages returns the position of the last message in each thread's tail, -1 where there is none.
func (v *Views) LastMessages(ctx context.Context, threads []id.ThreadID) ([]topic.Position, error) {
	out := make([]topic.Position, len(threads))
	for i := range out {
		out[i] = -1
	}
	err := each(ctx, v, "last messages", sqlLastMessages, func(r *nthPosition) error {
		out[r.nth-1] = topic.Position(r.position)
		return nil
	}, uuids(threads))
	return out, err
}

type nthPosition struct{ nth, position int64 }

func (r *nthPosition) targets() []any { return []any{&r.nth, &r.position} }
