package demo

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"heliograph/edge/client"
	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/tools/cluster"
)

// device is one device of a person: a client over a file store, and all that it was ever given.
type device struct {
	// Fixed after it came in.
	name string // Ann's phone
	file string
	me   client.Identity

	// Owned by the script.
	user  *cluster.User // nil while off
	ended chan struct{} // closed when the loop over events has ended

	// Guarded by mu.
	mu      sync.Mutex
	got     entries
	marks   map[mark]thread.Watermark
	acks    map[id.MessageID]client.Ack
	ackedAt map[id.MessageID]time.Time
	cameAt  map[id.MessageID]time.Time
	refused map[id.MessageID]error
	edge    string // that it is connected to; empty: none
	changed chan struct{}
}

func newDevice(name, dir string) *device {
	return &device{
		name: name, file: filepath.Join(dir, "devices", name+".jsonl"), got: entries{},
		marks: map[mark]thread.Watermark{},
		acks:  map[id.MessageID]client.Ack{}, ackedAt: map[id.MessageID]time.Time{},
		cameAt: map[id.MessageID]time.Time{}, refused: map[id.MessageID]error{},
		changed: make(chan struct{}),
	}
}

// on connects the device and waits until it has what it missed in its queue.
func (d *device) on(ctx context.Context, cfg client.Config) error {
	store, err := client.OpenFileStore(d.file)
	if err != nil {
		return err
	}
	cfg.Store, cfg.Name, cfg.AckInterval = store, "helio-demo", 10*time.Millisecond
	u, err := cluster.Connect(cfg)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	d.user, d.ended, d.me = u, make(chan struct{}), u.Me
	go func() {
		defer close(d.ended)
		for e := range u.Events(context.Background()) { // ends when the client has
			d.take(e)
		}
	}()
	if err := u.WaitSynced(ctx); err != nil {
		return fmt.Errorf("connect %s: %w", d.name, err)
	}
	return d.wait(ctx, "the name of its edge", func() bool { return d.edge != "" })
}

// off disconnects the device; all that it was given before is in its records then.
func (d *device) off() error {
	if d.user == nil {
		return nil
	}
	err := d.user.Close()
	<-d.ended
	d.user = nil
	d.mu.Lock()
	d.edge = ""
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("close %s: %w", d.name, err)
	}
	return nil
}

// take records an event; it runs on the loop over events only.
func (d *device) take(e client.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e := e.(type) {
	case client.Message:
		d.got[e.Thread] = append(d.got[e.Thread], Entry{
			Position: e.Position, Ordinal: e.Ordinal, Kind: messageSent, Sender: e.Sender, Message: e.ID,
			Reply: e.Reply, Text: e.Text,
		})
		if _, ok := d.cameAt[e.ID]; !ok {
			d.cameAt[e.ID] = time.Now()
		}
	case client.ThreadEvent:
		x, err := entryOf(event.Of(e.Event), e.Position, e.Ordinal)
		if err != nil {
			x.Text = err.Error() // the comparison shows it
		}
		d.got[e.Thread] = append(d.got[e.Thread], x)
	case client.Receipt:
		k := mark{e.Thread, e.User}
		d.marks[k] = d.marks[k].Merge(e.Watermark)
	case client.Sent:
		d.acks[e.ID], d.ackedAt[e.ID] = e.Ack, time.Now()
	case client.Failed:
		d.refused[e.ID] = e.Err
	case client.Rejected:
		d.refused[e.ID] = fmt.Errorf("rejected: %s", e.Code)
		delete(d.acks, e.ID)
	case client.Connected:
		d.edge = e.Edge
	case client.Disconnected:
		d.edge = ""
	case client.ThreadChanged, client.Synced:
	}
	close(d.changed)
	d.changed = make(chan struct{})
}

// wait waits until ready, which runs under mu, is true.
func (d *device) wait(ctx context.Context, what string, ready func() bool) error {
	for {
		d.mu.Lock()
		ok, changed := ready(), d.changed
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: waiting for %s: %w", d.name, what, ctx.Err())
		case <-d.ended:
			return fmt.Errorf("%s: waiting for %s: it was disconnected for good: %w", d.name, what, d.user.Err())
		case <-changed:
		}
	}
}

// acked waits until the log has a message.
func (d *device) acked(ctx context.Context, m id.MessageID) (ack client.Ack, at time.Time, err error) {
	err = d.wait(
		ctx, "the acknowledgement of "+m.String(),
		func() bool { at = d.ackedAt[m]; ack = d.acks[m]; return !at.IsZero() || d.refused[m] != nil },
	)
	if err == nil && d.failure(m) != nil {
		err = fmt.Errorf("%s: %w", d.name, d.failure(m))
	}
	return ack, at, err
}

func (d *device) failure(m id.MessageID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused[m]
}

// came waits until the device has been given messages and returns when the last of them came.
func (d *device) came(ctx context.Context, ms ...id.MessageID) (last time.Time, err error) {
	for _, m := range ms {
		err := d.wait(ctx, "message "+m.String(), func() bool {
			at, ok := d.cameAt[m]
			if at.After(last) {
				last = at
			}
			return ok
		})
		if err != nil {
			return last, err
		}
	}
	return last, nil
}

// reached waits until a member has got as far as ok says, as this device is told.
func (d *device) reached(
	ctx context.Context, t id.ThreadID, u id.UserID, what string, ok func(thread.Watermark) bool,
) error {
	return d.wait(ctx, what, func() bool { return ok(d.marks[mark{t, u}]) })
}

// count is how many events of a kind the device has of a thread.
func (d *device) count(t id.ThreadID, kind string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counted(t, kind)
}

// counted is count under mu.
func (d *device) counted(t id.ThreadID, kind string) int {
	n := 0
	for _, e := range d.got[t] {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// read marks the last message of a thread as read.
func (d *device) read(t id.ThreadID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.got[t]) - 1; i >= 0; i-- {
		if e := d.got[t][i]; e.Kind == messageSent {
			d.user.MarkRead(client.Place{Thread: t, Position: e.Position, Ordinal: e.Ordinal})
			return
		}
	}
}

func (d *device) at() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.edge
}

// records returns a copy of all that the device was given.
func (d *device) records() entries {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := entries{}
	for t, es := range d.got {
		out[t] = append([]Entry(nil), es...)
	}
	return out
}
