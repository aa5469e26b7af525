// Package canary sends one message all the way round a deployment: from a device over QUIC through an edge to the log,
// by delivery to another device, its receipt back to the sender, and into both views. It tells how long each leg took.
//
// It uses the client like any device, with two users of its own whose device files it keeps, so a deployment has two
// canary users however often it is asked.
//
// Non-obvious:
//   - Each leg is measured from the moment of sending.
//   - Read receipts and views come in batches: their legs show the batching, not the distance.
package canary

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"heliograph/edge/client"
)

// Config says which deployment, and as whom.
type Config struct {
	// Client reaches the edge; its Store is set by Run.
	Client client.Config
	// Dir keeps the two device files.
	Dir string
	// Phones are the numbers of the two users.
	Phones [2]string
	// Pin waits for the PIN that was sent to a number after since.
	Pin func(ctx context.Context, phone string, since time.Time) (string, error)
}

// Leg is one part of the way.
type Leg struct {
	Name string        `json:"name"`
	Took time.Duration `json:"took_ns"`
}

// Run sends a message round and returns the legs in order. An error names the leg that was not reached; the legs before
// it are returned too.
func Run(ctx context.Context, cfg Config) ([]Leg, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	began := time.Now()
	var devices [2]*device
	for i := range devices {
		d, err := open(ctx, cfg, i)
		if err != nil {
			return nil, fmt.Errorf("canary %d: %w", i+1, err)
		}
		defer d.close(cancel)
		devices[i] = d
	}
	legs := []Leg{{"both connected", time.Since(began)}}
	a, b := devices[0], devices[1]
	to, err := a.c.Direct(b.me.User)
	if err != nil {
		return legs, err
	}
	sent := time.Now()
	mid, err := a.c.Send(to, "canary "+sent.UTC().Format(time.RFC3339Nano))
	if err != nil {
		return legs, err
	}
	var acked client.Sent
	leg := func(name string, wait func() error) error {
		if err := wait(); err != nil {
			return fmt.Errorf("the canary did not get as far as %q: %w", name, err)
		}
		legs = append(legs, Leg{name, time.Since(sent)})
		return nil
	}
	err = leg("acknowledged by the log", func() error {
		var err error
		acked, err = await(
			ctx, a, func(e client.Event) (client.Sent, bool) { s, ok := e.(client.Sent); return s, ok && s.ID == mid },
		)
		return err
	})
	if err != nil {
		return legs, err
	}
	var got client.Message
	err = leg("on the other device", func() error {
		var err error
		got, err = await(
			ctx, b,
			func(e client.Event) (client.Message, bool) { m, ok := e.(client.Message); return m, ok && m.ID == mid },
		)
		return err
	})
	if err != nil {
		return legs, err
	}
	b.c.MarkRead(got.Place)
	err = leg("read receipt back", func() error {
		_, err := await(ctx, a, func(e client.Event) (client.Receipt, bool) {
			r, ok := e.(client.Receipt)
			return r, ok && r.User == b.me.User && r.Thread == to.Thread && r.Watermark.ReadOrdinal >= got.Ordinal
		})
		return err
	})
	if err != nil {
		return legs, err
	}
	inPostgres, inClickHouse := false, false
	for !inPostgres || !inClickHouse {
		v, err := a.c.Views(ctx, to.Thread)
		if err != nil {
			return legs, fmt.Errorf("ask for the views: %w", err)
		}
		if !inPostgres && v.GetPostgresNext() > int64(acked.Ack.Position) {
			inPostgres = true
			legs = append(legs, Leg{"in Postgres", time.Since(sent)})
		}
		if !inClickHouse && v.GetClickhouseNext() > int64(acked.Ack.Position) {
			inClickHouse = true
			legs = append(legs, Leg{"in ClickHouse", time.Since(sent)})
		}
		select {
		case <-ctx.Done():
			return legs, fmt.Errorf("the canary is in the log at slot %d position %d, "+
				"but not in both views (Postgres %v, ClickHouse %v): %w",
				acked.Ack.Slot, acked.Ack.Position, inPostgres, inClickHouse, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return legs, nil
}

// device is one end of the way.
type device struct {
	c      *client.Client
	me     client.Identity
	events chan client.Event
	ended  chan error
}

func open(ctx context.Context, cfg Config, i int) (*device, error) {
	store, err := client.OpenFileStore(filepath.Join(cfg.Dir, fmt.Sprintf("canary-%d.json", i+1)))
	if err != nil {
		return nil, err
	}
	cc := cfg.Client
	cc.Store, cc.Name, cc.AckInterval = store, "helio-canary", 5*time.Millisecond
	c, err := client.New(cc)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	d := &device{c: c, events: make(chan client.Event, 256), ended: make(chan error, 1)}
	go func() { d.ended <- c.Run(ctx) }()
	go func() {
		defer close(d.events)
		for e := range c.Events(ctx) {
			select {
			case d.events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	if me, ok := c.Identity(); ok {
		d.me = me
	} else if d.me, err = register(ctx, c, cfg, i); err != nil {
		return nil, err
	}
	if err := c.WaitSynced(ctx); err != nil {
		return nil, fmt.Errorf("synchronise: %w", err)
	}
	return d, nil
}

func register(ctx context.Context, c *client.Client, cfg Config, i int) (client.Identity, error) {
	since := time.Now()
	if _, _, err := c.RequestPin(ctx, cfg.Phones[i]); err != nil {
		return client.Identity{}, fmt.Errorf("ask for a PIN: %w", err)
	}
	pin, err := cfg.Pin(ctx, cfg.Phones[i], since)
	if err != nil {
		return client.Identity{}, err
	}
	me, err := c.Register(
		ctx, client.Registration{Phone: cfg.Phones[i], Pin: pin, Name: "Canary", DeviceName: "canary"},
	)
	if err != nil {
		return client.Identity{}, fmt.Errorf("register: %w", err)
	}
	return me, nil
}

// close stops the device and waits for it.
func (d *device) close(cancel context.CancelFunc) {
	cancel()
	<-d.ended            //nolint:errcheck // ended as asked
	for range d.events { // until the reader has seen the end
		continue
	}
	_ = d.c.Close() // what it holds is on disk or can be asked for again
}

// await reads events until pick takes one.
func await[T any](ctx context.Context, d *device, pick func(client.Event) (T, bool)) (T, error) {
	var zero T
	for {
		select {
		case <-ctx.Done():
			return zero, ctx.Err()
		case e, ok := <-d.events:
			if !ok {
				return zero, errors.New("the device was disconnected for good")
			}
			if f, bad := e.(client.Failed); bad {
				return zero, f.Err
			}
			if v, ok := pick(e); ok {
				return v, nil
			}
		}
	}
}
