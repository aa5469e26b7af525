package operator

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"heliograph/infra/kafka"
	"heliograph/infra/lag"
)

// Snapshot is what waits where in a deployment, at a moment.
type Snapshot struct {
	At        time.Time  `json:"at"`
	Processes []Gauges   `json:"processes"` // the fullest first
	Roster    string     `json:"roster_error,omitempty"`
	Views     []lag.View `json:"views"`
	Log       string     `json:"log_error,omitempty"`
}

// Look asks every process, both stores and the log, all at the same time. What does not answer is told in the answer.
func Look(ctx context.Context, cfg kafka.Config, l *Lag) Snapshot {
	s := Snapshot{At: time.Now(), Processes: []Gauges{}, Views: []lag.View{}}
	var asked sync.WaitGroup
	asked.Go(func() {
		all, err := Processes(ctx, cfg)
		if err != nil {
			s.Roster = err.Error()
			return
		}
		s.Processes = Scrape(ctx, all)
	})
	asked.Go(func() {
		views, err := l.Ask(ctx)
		if err != nil {
			s.Log = err.Error()
			return
		}
		s.Views = views
	})
	asked.Wait()
	slices.SortStableFunc(s.Processes, func(a, b Gauges) int {
		silent := func(g Gauges) int {
			if g.Error != "" {
				return 0
			}
			return 1
		}
		return cmp.Or(
			cmp.Compare(silent(a), silent(b)), cmp.Compare(b.Waiting(), a.Waiting()),
			cmp.Compare(b.Oldest(), a.Oldest()),
		)
	})
	return s
}
