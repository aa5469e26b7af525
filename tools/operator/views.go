package operator

import (
	"context"
	"fmt"
	"time"

	"heliograph/infra/clickhouse"
	"heliograph/infra/history"
	"heliograph/infra/postgres"
	"heliograph/infra/views"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// viewTime bounds each question to a view: one that does not answer is told, and the log is asked all the same.
const viewTime = 10 * time.Second

// ViewPlace is what a view knows of a message.
type ViewPlace struct {
	Has   bool           `json:"has"`
	Next  topic.Position `json:"next"` // the view has taken in every event before it
	State string         `json:"state"`
	// Parked is why the fold could not apply it, or that it waits behind such an event.
	Parked string `json:"parked,omitempty"`
	Error  string `json:"error,omitempty"`

	missing string // what it means that the view has passed the message without having it
}

// The states of a view.
const (
	// StateHas: the view has the message.
	// StateNotYet: the view has not taken in its place in the log.
	// StatePassed: it has, and does not have the message.
	// StateParked: the message is in the view's quarantine.
	// StateUnknown: the view does not say.
	StateHas     = "yes"
	StateNotYet  = "not yet"
	StatePassed  = "no"
	StateParked  = "parked"
	StateUnknown = "unknown"
)

// passed tells whether the view has taken in what is at a position, without having the message, and without having
// parked it.
func (v *ViewPlace) passed(position topic.Position) bool {
	return v.Error == "" && !v.Has && v.Parked == "" && v.Next > position
}

func (v *ViewPlace) word() string {
	switch {
	case v.Error != "":
		return StateUnknown
	case v.Has:
		return StateHas
	case v.Parked != "":
		return StateParked
	case v.missing != "":
		return StatePassed
	}
	return StateNotYet
}

// Detail says more about the state, in words.
func (v *ViewPlace) Detail() string {
	switch {
	case v.Error != "":
		return v.Error
	case v.Parked != "":
		return v.Parked
	case v.missing != "":
		return v.missing
	case v.Next == 0:
		return ""
	}
	return fmt.Sprintf("has everything before %d", v.Next)
}

func (v *ViewPlace) fail(err error) {
	if err != nil && v.Error == "" {
		v.Error = err.Error()
	}
}

// Received is a device that may see the message.
type Received struct {
	User      string `json:"user"`
	Device    string `json:"device"`
	Name      string `json:"name,omitempty"`
	Delivered bool   `json:"delivered"`
	Read      bool   `json:"read"`
}

// Views are the views in both stores.
type Views struct {
	views   *views.Views
	history *history.History
	close   func()
}

// OpenViews opens both stores, which need not answer yet. The caller closes them.
func OpenViews(ctx context.Context, pg postgres.Config, ch clickhouse.Config) (*Views, error) {
	s, err := OpenStores(ctx, pg, ch)
	if err != nil {
		return nil, err
	}
	return &Views{s.Views, s.History, s.Close}, nil
}

// NewViews returns the views over connections that somebody else has opened, and closes.
func NewViews(v *views.Views, h *history.History) *Views { return &Views{v, h, func() {}} }

// Ends are positions after the last events of the log.
type Ends map[topic.Topic]map[topic.Slot]topic.Position

// Behind says what the views have yet to take in of the log up to the ends, the first thing that is found; empty: they
// have everything.
func (v *Views) Behind(ctx context.Context, ends Ends) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	inViews, err := v.views.Freshness(ctx)
	if err != nil {
		return "", fmt.Errorf("positions of Postgres: %w", err)
	}
	have := Ends{}
	for _, f := range inViews {
		have.put(f.Topic, f.Slot, f.Next)
	}
	if s := have.lack(ends, topic.Threads, topic.Receipts, topic.Users); s != "" {
		return "Postgres " + s, nil
	}
	inHistory, err := v.history.Freshness(ctx)
	if err != nil {
		return "", fmt.Errorf("positions of ClickHouse: %w", err)
	}
	have = Ends{}
	for _, f := range inHistory {
		have.put(f.Topic, f.Slot, f.Next)
	}
	if s := have.lack(ends, topic.Threads, topic.Receipts); s != "" { // the history has no users
		return "ClickHouse " + s, nil
	}
	return "", nil
}

func (e Ends) put(t topic.Topic, s topic.Slot, next topic.Position) {
	if e[t] == nil {
		e[t] = map[topic.Slot]topic.Position{}
	}
	e[t][s] = next
}

// lack says what is missing up to the ends.
func (e Ends) lack(ends Ends, topics ...topic.Topic) string {
	for _, t := range topics {
		for s, end := range ends[t] {
			if e[t][s] < end {
				return fmt.Sprintf("has %s of slot %d up to %d of %d", t, s, e[t][s], end)
			}
		}
	}
	return ""
}

// Close gives up the connections that OpenViews has opened.
func (v *Views) Close() { v.close() }

// message asks both views for a message and returns where it is by those that have it; nil when none has.
func (v *Views) message(ctx context.Context, m id.MessageID, out *Place) *known {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	var k *known
	inViews, ok, err := v.views.Message(ctx, m)
	out.Postgres.fail(err)
	if ok {
		out.Postgres.Has, k = true, &known{inViews.Thread, inViews.Position, inViews.Ordinal}
	}
	inHistory, ok, err := v.history.Message(ctx, m)
	out.ClickHouse.fail(err)
	if ok {
		out.ClickHouse.Has = true
		if k == nil {
			k = &known{inHistory.Thread, inHistory.Position, inHistory.Ordinal}
		}
	}
	return k
}

// progress asks both views how far they have got in the message's slot, and whether they parked it.
func (v *Views) progress(ctx context.Context, at LogPlace, out *Place) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	slot, position := at.Slot, at.Position
	if out.Postgres.Error == "" {
		f, err := v.views.FreshnessOf(ctx, topic.Threads, slot)
		out.Postgres.fail(err)
		q, _, err := v.views.QuarantinedAt(ctx, topic.Threads, slot, position)
		out.Postgres.fail(err)
		out.Postgres.Next, out.Postgres.Parked = f.Next, q.Reason
	}
	if out.ClickHouse.Error == "" {
		f, err := v.history.FreshnessOf(ctx, topic.Threads, slot)
		out.ClickHouse.fail(err)
		q, _, err := v.history.QuarantinedAt(ctx, topic.Threads, slot, position)
		out.ClickHouse.fail(err)
		out.ClickHouse.Next, out.ClickHouse.Parked = f.Next, q.Reason
	}
	if out.Postgres.passed(at.Position) {
		out.Postgres.missing = "it has taken in what is behind it, and does not have it"
		if out.ClickHouse.Has {
			out.Postgres.missing = "no longer: only the recent tail is kept there"
		}
	}
	if out.ClickHouse.passed(at.Position) {
		out.ClickHouse.missing = "it has taken in what is behind it, and does not have it"
	}
}

// devices lists the devices of everybody who may see the message.
func (v *Views) devices(ctx context.Context, t id.ThreadID, position topic.Position, out *Place) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	found, err := v.views.Received(ctx, t, position)
	if err != nil {
		out.Postgres.fail(err)
		return
	}
	for _, r := range found {
		out.Devices = append(out.Devices, Received{
			User: r.User.String(), Device: r.Device.String(), Name: r.Name, Delivered: r.Delivered, Read: r.Read,
		})
	}
}
