package main

import (
	"context"
	"fmt"
	"log/slog"
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

// viewPlace is what a view knows of a message.
type viewPlace struct {
	Has    bool   `json:"has"`
	Next   int64  `json:"next"` // the view has taken in every event before it
	State  string `json:"state"`
	Parked string `json:"parked,omitempty"` // why the fold could not apply it, or that it waits behind such an event
	Error  string `json:"error,omitempty"`

	missing string // what it means that the view has passed the message without having it
}

// The states of a view.
const (
	stateHas     = "yes"
	stateNotYet  = "not yet"
	statePassed  = "no"
	stateParked  = "parked"
	stateUnknown = "unknown"
)

// passed tells whether the view has taken in what is at a position, without having the message, and without having
// parked it.
func (v *viewPlace) passed(position int64) bool {
	return v.Error == "" && !v.Has && v.Parked == "" && v.Next > position
}

func (v *viewPlace) word() string {
	switch {
	case v.Error != "":
		return stateUnknown
	case v.Has:
		return stateHas
	case v.Parked != "":
		return stateParked
	case v.missing != "":
		return statePassed
	}
	return stateNotYet
}

func (v *viewPlace) detail() string {
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

func (v *viewPlace) fail(err error) {
	if err != nil && v.Error == "" {
		v.Error = err.Error()
	}
}

// received is a device that may see the message.
type received struct {
	User      string `json:"user"`
	Device    string `json:"device"`
	Name      string `json:"name,omitempty"`
	Delivered bool   `json:"delivered"`
	Read      bool   `json:"read"`
}

// stores are the views in both.
type stores struct {
	views   *views.Views
	history *history.History
	close   func()
}

func openStores(ctx context.Context, log *slog.Logger, p postgresFlags, c clickhouseFlags) (*stores, error) {
	pool, err := postgres.Open(ctx, p.config(log, nil, "trace", 2))
	if err != nil {
		return nil, err
	}
	conn, err := clickhouse.Open(c.config(log, nil, "trace"))
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &stores{views.New(pool), history.New(conn), func() {
		pool.Close()
		_ = conn.Close() // read only
	}}, nil
}

// message asks both views for a message and returns where it is by those that have it; nil when none has.
func (v *stores) message(ctx context.Context, m id.MessageID, out *place) *known {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	var k *known
	inViews, ok, err := v.views.Message(ctx, m)
	out.Postgres.fail(err)
	if ok {
		out.Postgres.Has, k = true, &known{inViews.Thread, int64(inViews.Position), inViews.Ordinal}
	}
	inHistory, ok, err := v.history.Message(ctx, m)
	out.ClickHouse.fail(err)
	if ok {
		out.ClickHouse.Has = true
		if k == nil {
			k = &known{inHistory.Thread, int64(inHistory.Position), inHistory.Ordinal}
		}
	}
	return k
}

// progress asks both views how far they have got in the message's slot, and whether they parked it.
func (v *stores) progress(ctx context.Context, at logPlace, out *place) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	slot, position := topic.Slot(at.Slot), topic.Position(at.Position)
	if out.Postgres.Error == "" {
		f, err := v.views.FreshnessOf(ctx, topic.Threads, slot)
		out.Postgres.fail(err)
		q, _, err := v.views.QuarantinedAt(ctx, topic.Threads, slot, position)
		out.Postgres.fail(err)
		out.Postgres.Next, out.Postgres.Parked = int64(f.Next), q.Reason
	}
	if out.ClickHouse.Error == "" {
		f, err := v.history.FreshnessOf(ctx, topic.Threads, slot)
		out.ClickHouse.fail(err)
		q, _, err := v.history.QuarantinedAt(ctx, topic.Threads, slot, position)
		out.ClickHouse.fail(err)
		out.ClickHouse.Next, out.ClickHouse.Parked = int64(f.Next), q.Reason
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
func (v *stores) devices(ctx context.Context, t id.ThreadID, position int64, out *place) {
	ctx, cancel := context.WithTimeout(ctx, viewTime)
	defer cancel()
	found, err := v.views.Received(ctx, t, topic.Position(position))
	if err != nil {
		out.Postgres.fail(err)
		return
	}
	for _, r := range found {
		out.Devices = append(out.Devices, received{
			User: r.User.String(), Device: r.Device.String(), Name: r.Name, Delivered: r.Delivered, Read: r.Read,
		})
	}
}
