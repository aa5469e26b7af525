package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/history"
	"heliograph/infra/views"
	"heliograph/projector/threads"
	"heliograph/projector/verify"
	"heliograph/tools/operator"
)

// ViewComparison is a view compared with a fold of the log, row by row.
type ViewComparison struct {
	Place string `json:"place"`
	*verify.Report
}

// wrong counts what keeps the view from being what the log gives. Nothing moves while it is compared, so a watermark
// that cannot be judged counts too.
func (c ViewComparison) wrong() int {
	n := len(c.Differences) + c.Moved
	if !c.Comparable() {
		n++
	}
	return n
}

// row is the comparison's line in the table of those.
func (c ViewComparison) row() []string {
	got, want := 0, 0
	for _, t := range c.Tables {
		got, want = got+t.Got, want+t.Want
	}
	return []string{c.Place, fmt.Sprint(len(c.Tables)), fmt.Sprint(got), fmt.Sprint(want), verdictOf(c.wrong())}
}

func verdictOf(wrong int) string {
	if wrong > 0 {
		return fmt.Sprintf("%d differ", wrong)
	}
	return "same"
}

// stores are the connections to both views.
type stores struct {
	pool *pgxpool.Pool
	conn driver.Conn
}

func (s stores) close() {
	s.pool.Close()
	_ = s.conn.Close() // read only
}

// wait waits until both views have every event before the ends.
func (s stores) wait(ctx context.Context, ends operator.Ends) error {
	v := operator.NewViews(views.New(s.pool), history.New(s.conn))
	for {
		behind, err := v.Behind(ctx, ends)
		if err != nil || behind == "" {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", behind, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// compareViews compares both views with a fold of the log.
func (p *play) compareViews(ctx context.Context, s stores) ([]ViewComparison, error) {
	cfg := verify.Config{Kafka: p.kafka(), Partitions: p.c.Partitions(), Retention: threads.DefaultRetention}
	inViews, err := verify.Threads(ctx, cfg, s.pool)
	if err != nil {
		return nil, err
	}
	inHistory, err := verify.History(ctx, cfg, s.conn)
	if err != nil {
		return nil, err
	}
	return []ViewComparison{{"Postgres", inViews}, {"ClickHouse", inHistory}}, nil
}
