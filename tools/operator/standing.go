package operator

import (
	"context"
	"fmt"

	"heliograph/infra/clickhouse"
	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
)

// Stores are both stores, for those who ask more of them than a Views does.
type Stores struct {
	Views   *views.Views
	History *history.History
	close   func()
}

// OpenStores opens both stores, which need not answer yet. The caller closes them.
func OpenStores(ctx context.Context, pg postgres.Config, ch clickhouse.Config) (*Stores, error) {
	pool, err := postgres.Open(ctx, pg)
	if err != nil {
		return nil, err
	}
	conn, err := clickhouse.Open(ch)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &Stores{views.New(pool), history.New(conn), func() {
		pool.Close()
		_ = conn.Close() // read only
	}}, nil
}

// Close gives up the connections.
func (s *Stores) Close() { s.close() }

// Standing returns where the thread views stand in the log.
func Standing(ctx context.Context, v *views.Views) ([]kafka.Standing, error) {
	found, err := v.Freshness(ctx)
	if err != nil {
		return nil, fmt.Errorf("where the thread views stand: %w", err)
	}
	out := make([]kafka.Standing, 0, len(found))
	for _, f := range found {
		if f.Topic != "" { // else of a version that knows more topics
			out = append(out, kafka.Standing{Topic: f.Topic, Slot: f.Slot, Next: f.Next, Mark: f.Mark, Time: f.Time})
		}
	}
	return out, nil
}

// StandingOfHistory returns where the history stands in the log.
func StandingOfHistory(ctx context.Context, h *history.History) ([]kafka.Standing, error) {
	found, err := h.Freshness(ctx)
	if err != nil {
		return nil, fmt.Errorf("where the history stands: %w", err)
	}
	out := make([]kafka.Standing, 0, len(found))
	for _, f := range found {
		if f.Topic != "" {
			out = append(out, kafka.Standing{Topic: f.Topic, Slot: f.Slot, Next: f.Next, Mark: f.Mark, Time: f.Time})
		}
	}
	return out, nil
}
