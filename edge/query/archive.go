package query

import (
	"context"
	"fmt"

	"heliograph/infra/history"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// Archive reads threads forwards from the history in ClickHouse, for catch-ups that go further back than Postgres'
// tail. Its methods may be called concurrently.
type Archive struct {
	history    *history.History
	partitions int
}

// NewArchive returns an Archive over the history of a deployment with so many partitions.
func NewArchive(h *history.History, partitions int) *Archive {
	return &Archive{history: h, partitions: partitions}
}

// Events returns the accepted events of a thread at positions after < p <= upTo with a log time of at least floorMS
// (Unix milliseconds), in order, the first limit of them. It looks at nobody's membership. A history that has not got
// beyond upTo is an error, not a gap.
func (a *Archive) Events(
	ctx context.Context, t id.ThreadID, after, upTo topic.Position, floorMS int64, limit int,
) ([]*wirev1.Event, error) {
	f, err := a.history.FreshnessOf(ctx, topic.Threads, topic.SlotOf(topic.Subject(t), a.partitions))
	if err != nil {
		return nil, err
	}
	if f.Next <= upTo {
		return nil, fmt.Errorf("thread %v up to position %d: %w", t, upTo, errBehind)
	}
	found, err := a.history.Events(ctx, history.Stretch{Thread: t, After: after, UpTo: upTo, Since: floorMS}, limit)
	if err != nil {
		return nil, err
	}
	return archived(t, found), nil
}
