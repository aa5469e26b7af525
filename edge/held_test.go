package edge

import (
	"strings"
	"sync"
	"testing"
	"time"

	"heliograph/infra/budget"
	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// What a device makes the edge keep until it is answered counts against the memory and has a bound (wire 2.4):
// requests, and messages to threads that are begun. What is answered is free again.
func TestWhatWaitsForAnswersIsBounded(t *testing.T) {
	const large, most, asked, fit = 64 << 10, 4 << 20, 150, 63
	for name, build := range map[string]func(d *device) wirev1.ClientFrame_builder{
		"requests": func(*device) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{GetUsers: &wirev1.GetUsers{}, Padding: make([]byte, large)}
		},
		"messages": func(d *device) wirev1.ClientFrame_builder {
			return direct(d, &device{user: id.UserID(id.NewMessage())}, strings.Repeat("a", large))
		},
	} {
		t.Run(name, func(t *testing.T) {
			memory := budget.New(1<<30, nil)
			f := start(t, func(c *Config) { c.Budget, c.Session.RequestTimeout = memory, time.Minute })
			d := f.dial(t).register("+491").sync()
			stuck := make(chan struct{})
			release := sync.OnceFunc(func() { close(stuck) })
			defer release()
			f.world.mu.Lock()
			f.world.stuck = stuck
			f.world.mu.Unlock()
			for range asked {
				d.send(build(d))
			}
			answers := func(n int) (refused int) {
				for range n {
					got, err := d.read()
					if err != nil {
						t.Fatal(err)
					}
					if got.GetError().GetCode() == wirev1.Code_CODE_TOO_MANY_REQUESTS {
						refused++
					}
				}
				return refused
			}
			if got, want := answers(asked-fit), asked-fit; got != want {
				t.Errorf("%d of %d are refused", got, want)
			}
			if got := memory.Used(); got < most-2*large || got > most+large {
				t.Errorf("%d bytes are counted, want about %d", got, most)
			}
			release()
			if got := answers(fit); got != 0 {
				t.Errorf("%d of those that waited are refused", got)
			}
			until(t, "nothing is counted any more", func() bool { return memory.Used() == 0 })
		})
	}
}

// What a device says that it has counts until its Sync is answered, or until it goes; where there is no memory for it,
// it must come again (wire 12.2).
func TestWhatADeviceHasIsCounted(t *testing.T) {
	have := func(n int) wirev1.ClientFrame_builder {
		list := make([]*wirev1.ThreadCursor, n)
		for i := range list {
			th := id.NewGroup()
			list[i] = wirev1.ThreadCursor_builder{ThreadId: th[:]}.Build()
		}
		return wirev1.ClientFrame_builder{Have: wirev1.Have_builder{Threads: list}.Build()}
	}
	memory := budget.New(1<<30, nil)
	f := start(t, func(c *Config) { c.Budget = memory })
	d := f.dial(t).register("+491")
	for _, own := range []bool{true, false} {
		d.ask(have(1000))
		d.ask(have(1000))
		if got := memory.Used(); got < 2000*50 {
			t.Errorf("%d bytes are counted of 2,000 threads", got)
		}
		d.ask(wirev1.ClientFrame_builder{Sync: wirev1.Sync_builder{OwnCursors: own}.Build()})
		until(t, "nothing is counted any more", func() bool { return memory.Used() == 0 })
	}
	d.ask(have(1000))
	_ = d.conn.CloseWithError(0, "")
	until(t, "nothing is counted of who has gone", func() bool { return memory.Used() == 0 })
	d = f.again(t, d)
	memory.Add(256 << 20) // all of it
	d.ask(have(1000))
	d.send(have(1))
	d.closed(wirev1.Code_CODE_UNAVAILABLE)
}

// Of a connection's requests two are with a store at one time, also of those that are about budgets and devices.
func TestAConnectionTakesNoPool(t *testing.T) {
	f := start(t, nil)
	d := f.dial(t).register("+491").sync()
	stuck := make(chan struct{})
	release := sync.OnceFunc(func() { close(stuck) })
	defer release()
	f.world.mu.Lock()
	f.world.stuck = stuck
	f.world.mu.Unlock()
	other := id.NewDevice()
	const rounds = 5
	for range rounds {
		d.send(wirev1.ClientFrame_builder{SetProfile: wirev1.SetProfile_builder{Name: "Ann"}.Build()})
		d.send(wirev1.ClientFrame_builder{RevokeDevice: wirev1.RevokeDevice_builder{DeviceId: other[:]}.Build()})
		d.send(wirev1.ClientFrame_builder{GetUsers: &wirev1.GetUsers{}})
	}
	until(t, "two are asked", func() bool { return f.world.asking.Load() >= 2 })
	if f := d.ask(wirev1.ClientFrame_builder{Ping: &wirev1.Ping{}}); !f.HasPong() {
		t.Errorf("got %v", f)
	}
	release()
	for range 3 * rounds {
		if f, err := d.read(); err != nil || f.HasError() {
			t.Errorf("got %v, %v", f, err)
		}
	}
	if got := f.world.askingMost.Load(); got != 2 {
		t.Errorf("%d requests were with the store at one time, want 2", got)
	}
}
