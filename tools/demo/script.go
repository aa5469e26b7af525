package demo

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"heliograph/edge/client"
	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
	"heliograph/tools/cluster"
)

// stage starts the deployment and brings the people in.
func (p *play) stage(ctx context.Context) error {
	err := p.step(ctx, "Engines, edges, delivery and projectors are up", func(ctx context.Context, s *Step) error {
		var err error
		if p.c, err = cluster.Start(ctx, p.cfg.Cluster); err != nil {
			return err
		}
		s.note("each is a process of its own: kafka, postgres, clickhouse")
		var roles []string
		for _, r := range p.c.Processes() {
			roles = append(roles, fmt.Sprintf("%s (%d)", r.Name, r.Pid()))
		}
		s.note("%s", strings.Join(roles, ", "))
		return nil
	})
	if err != nil {
		return err
	}
	return p.step(ctx, "Five people register by phone number and PIN", func(ctx context.Context, s *Step) error {
		dir := p.c.Dir()
		if err := os.RemoveAll(filepath.Join(dir, "devices")); err != nil {
			return fmt.Errorf("forget the devices of an earlier demo: %w", err)
		}
		exchange := 200 + rand.IntN(700) // numbers that nobody has, and no earlier demo in this directory
		cast := []struct {
			d    **device
			name string
		}{{&p.ann, "Ann"}, {&p.bob, "Bob"}, {&p.cem, "Cem"}, {&p.dana, "Dana"}, {&p.eli, "Eli"}}
		errs := make([]error, len(cast))
		var wg sync.WaitGroup
		for i, who := range cast {
			d := newDevice(who.name, dir)
			if who.name == "Bob" {
				d.name = "Bob's phone"
			}
			*who.d = d
			p.devices = append(p.devices, d)
			wg.Go(func() { errs[i] = p.register(ctx, d, who.name, fmt.Sprintf("+49151%04d%04d", exchange, i+1)) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
		for i, d := range p.devices {
			p.people[d.me.User] = cast[i].name
		}
		if err := p.apart(ctx, p.ann, p.bob); err != nil {
			return err
		}
		var at []string
		for _, d := range p.devices {
			at = append(at, d.name+" at "+d.at())
		}
		s.note("%s", strings.Join(at, ", "))
		p.direct, err = p.ann.user.Direct(p.bob.me.User)
		p.titles[p.direct.Thread] = "Ann and Bob"
		return err
	})
}

// register registers a number over a connection of its own and connects the device.
func (p *play) register(ctx context.Context, d *device, name, phone string) error {
	cfg := p.c.Client()
	store, err := client.OpenFileStore(d.file)
	if err != nil {
		return err
	}
	cfg.Store = store
	_, err = p.c.Register(ctx, cfg, phone, name)
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	return d.on(ctx, p.c.Client())
}

// apart has two devices connected to different edges, so that what they write crosses the deployment. Devices choose
// edges at random.
func (p *play) apart(ctx context.Context, a, b *device) error {
	for range 16 {
		if a.at() != "" && b.at() != "" && a.at() != b.at() {
			return nil
		}
		if err := b.off(); err != nil {
			return err
		}
		if err := b.on(ctx, p.c.Client()); err != nil {
			return err
		}
	}
	return nil // chance: the demo goes on at one edge
}

// talk is a conversation of two.
func (p *play) talk(ctx context.Context) error {
	const hello = "Hi Bob, is the walk to the harbour still on?"
	var first id.MessageID
	err := p.step(ctx, "Ann writes to Bob: sent, delivered, read", func(ctx context.Context, s *Step) error {
		m, at, err := p.say(p.ann, p.direct, hello)
		if err != nil {
			return err
		}
		first = m
		ack, acked, err := p.ann.acked(ctx, m)
		if err != nil {
			return err
		}
		came, err := p.bob.came(ctx, m)
		if err != nil {
			return err
		}
		t, u := p.direct.Thread, p.bob.me.User
		delivery := func(w thread.Watermark) bool { return w.DeliveredOrdinal >= 1 }
		if err := p.ann.reached(ctx, t, u, "the second check mark", delivery); err != nil {
			return err
		}
		delivered := time.Since(at)
		p.bob.read(t)
		reading := func(w thread.Watermark) bool { return w.ReadOrdinal >= 1 }
		if err := p.ann.reached(ctx, t, u, "the read receipt", reading); err != nil {
			return err
		}
		s.note("Ann: %s", hello)
		s.note("✓ in the log after %s, slot %d position %d", took(acked.Sub(at)), ack.Slot, ack.Position)
		s.note("on Bob's phone after %s, ✓✓ back at Ann's after %s, read after %s",
			took(came.Sub(at)), took(delivered), took(time.Since(at)))
		return nil
	})
	if err != nil {
		return err
	}
	return p.step(ctx, "Bob replies to that message", func(ctx context.Context, s *Step) error {
		to, err := p.bob.user.Direct(p.ann.me.User)
		if err != nil {
			return err
		}
		to.Reply = event.MessageRef{Author: p.ann.me.User, ID: first}
		if _, err := p.tell(ctx, s, p.bob, to, "Yes! The ferry leaves at ten.", p.ann); err != nil {
			return err
		}
		to.Reply = event.MessageRef{}
		_, err = p.tell(ctx, s, p.bob, to, "Shall we ask the others?", p.ann)
		p.ann.read(to.Thread)
		return err
	})
}

// change makes a change to the group and waits until the devices named have the event of it.
func (p *play) change(ctx context.Context, kind string, call func(context.Context) error, on ...*device) error {
	before := make([]int, len(on))
	for i, d := range on {
		before[i] = d.count(p.group.Thread, kind)
	}
	if err := call(ctx); err != nil {
		return err
	}
	for i, d := range on {
		if err := d.wait(ctx, kind, func() bool { return d.counted(p.group.Thread, kind) > before[i] }); err != nil {
			return err
		}
	}
	return nil
}

// notAllowed sends a message that must be refused because its sender is no member.
func (p *play) notAllowed(ctx context.Context, s *Step, d *device, text string) error {
	m, err := d.user.Send(p.group, text) // not among what was said: nobody may ever have it
	if err != nil {
		return err
	}
	if _, _, err = d.acked(ctx, m); err == nil {
		return fmt.Errorf("%s wrote to a group that he is no member of", d.name)
	}
	var we *wire.Error
	if failed := d.failure(m); failed == nil || errors.As(failed, &we) && we.Code != wirev1.Code_CODE_NOT_A_MEMBER {
		return fmt.Errorf("%s: want a refusal as no member: %w", d.name, err)
	}
	s.note("%s tries to write: refused, no member", d.name)
	return nil
}

// groups creates a group and changes it in every way.
func (p *play) groups(ctx context.Context) error {
	type act struct {
		name string
		play func(context.Context, *Step) error
	}
	for _, a := range []act{
		{"Ann creates a group with Bob and Cem", func(ctx context.Context, s *Step) error {
			t, err := p.ann.user.CreateGroup(ctx, "Harbour walk", p.bob.me.User, p.cem.me.User)
			if err != nil {
				return err
			}
			p.group, p.titles[t] = client.To{Thread: t}, "Harbour walk"
			for _, d := range []*device{p.ann, p.bob, p.cem} {
				created := func() bool { return d.counted(t, "thread_created") > 0 }
				if err := d.wait(ctx, "the group", created); err != nil {
					return err
				}
			}
			_, err = p.tell(ctx, s, p.ann, p.group, "Ferry at ten, lunch at the lighthouse?", p.bob, p.cem)
			if err != nil {
				return err
			}
			_, err = p.tell(ctx, s, p.cem, p.group, "I bring the coffee.", p.ann, p.bob)
			return err
		}},
		{"Ann renames it and adds Dana and Eli", func(ctx context.Context, s *Step) error {
			err := p.change(ctx, "thread_renamed", func(ctx context.Context) error {
				return p.ann.user.Rename(ctx, p.group.Thread, "Harbour walk, Saturday")
			}, p.ann, p.bob, p.cem)
			if err != nil {
				return err
			}
			p.titles[p.group.Thread] = "Harbour walk, Saturday"
			err = p.change(ctx, "member_added", func(ctx context.Context) error {
				return p.ann.user.AddMembers(ctx, p.group.Thread, p.dana.me.User, p.eli.me.User)
			}, p.ann, p.bob, p.cem, p.dana, p.eli)
			if err != nil {
				return err
			}
			_, err = p.tell(ctx, s, p.dana, p.group, "Count me in! What did I miss?", p.ann, p.bob, p.cem, p.eli)
			s.note("Dana and Eli see the group from here on, and nothing before")
			return err
		}},
		{"Cem leaves, Ann removes Eli", func(ctx context.Context, s *Step) error {
			err := p.change(ctx, "member_left", func(ctx context.Context) error {
				return p.cem.user.Leave(ctx, p.group.Thread)
			}, p.ann, p.bob, p.cem, p.dana, p.eli)
			if err != nil {
				return err
			}
			err = p.change(ctx, "member_removed", func(ctx context.Context) error {
				return p.ann.user.RemoveMember(ctx, p.group.Thread, p.eli.me.User)
			}, p.ann, p.bob, p.dana, p.eli)
			if err != nil {
				return err
			}
			if err := p.notAllowed(ctx, s, p.cem, "Is the coffee still wanted?"); err != nil {
				return err
			}
			if err := p.notAllowed(ctx, s, p.eli, "Hello?"); err != nil {
				return err
			}
			_, err = p.tell(ctx, s, p.bob, p.group, "Then it is the three of us.", p.ann, p.dana)
			return err
		}},
	} {
		if err := p.step(ctx, a.name, a.play); err != nil {
			return err
		}
	}
	return nil
}

// second links another device of Bob's.
func (p *play) second(ctx context.Context) error {
	return p.step(ctx, "Bob links a tablet: it gets what the phone may see", func(ctx context.Context, s *Step) error {
		me, key, err := client.NewDevice(p.bob.me.User)
		if err != nil {
			return err
		}
		d := newDevice("Bob's tablet", p.c.Dir())
		if err := p.link(ctx, d, me, key); err != nil {
			return err
		}
		began := time.Now()
		p.tablet = d
		p.devices = append(p.devices, d)
		if err := d.on(ctx, p.c.Client()); err != nil {
			return err
		}
		want, n := p.bob.records(), 0
		for t, es := range want {
			n += len(es)
			complete := func() bool { return len(d.got[t]) >= len(es) }
			if err := d.wait(ctx, "the history of "+p.nameOf(t), complete); err != nil {
				return err
			}
		}
		s.note("%d events in %s at %s after it connected", n, counted(len(want), "thread"), took(time.Since(began)))
		m, err := p.tell(ctx, s, d, p.group, "Typing on the tablet now.", p.ann, p.dana, p.bob)
		if err != nil {
			return err
		}
		d.mu.Lock()
		ack := d.acks[m]
		d.mu.Unlock()
		d.read(p.group.Thread)
		read := func(w thread.Watermark) bool { return w.ReadPosition >= ack.Position }
		if err := p.bob.reached(ctx, p.group.Thread, p.bob.me.User, "what was read on the tablet", read); err != nil {
			return err
		}
		s.note("what is read on the tablet is read on the phone too")
		return nil
	})
}

// link approves a device and stores its identity where it will find it.
func (p *play) link(ctx context.Context, d *device, me client.Identity, key ed25519.PublicKey) error {
	if err := p.bob.user.LinkDevice(ctx, me.Device, key, "tablet"); err != nil {
		return err
	}
	store, err := client.OpenFileStore(d.file)
	if err != nil {
		return err
	}
	return errors.Join(store.SetIdentity(me), store.Close())
}

// tunnel takes a device off line for a while.
func (p *play) tunnel(ctx context.Context) error {
	const lines = 30
	var missed []id.MessageID
	err := p.step(ctx, "Dana is away while the others talk", func(ctx context.Context, s *Step) error {
		if err := p.dana.off(); err != nil {
			return err
		}
		toDana, err := p.ann.user.Direct(p.dana.me.User)
		if err != nil {
			return err
		}
		p.titles[toDana.Thread] = "Ann and Dana"
		var last id.MessageID
		for i := range lines {
			for _, d := range []*device{p.ann, p.bob, p.tablet} {
				m, _, err := p.say(
					d, p.group, fmt.Sprintf("Plan %c, part %d: which path along the quay?", 'A'+i%3, i+1),
				)
				if err != nil {
					return err
				}
				missed, last = append(missed, m), m
			}
			m, _, err := p.say(p.ann, toDana, fmt.Sprintf("Dana, are you there? (%d)", i+1))
			if err != nil {
				return err
			}
			missed = append(missed, m)
		}
		if err := p.acknowledged(ctx, missed); err != nil {
			return err
		}
		_, err = p.bob.came(ctx, last)
		s.note("%d messages in two threads, one of which is new to her", len(missed))
		return err
	})
	if err != nil {
		return err
	}
	return p.step(ctx, "Dana is back and gets them once and in order", func(ctx context.Context, s *Step) error {
		began := time.Now()
		if err := p.dana.on(ctx, p.c.Client()); err != nil {
			return err
		}
		last, err := p.dana.came(ctx, missed...)
		if err != nil {
			return err
		}
		ref, err := readLog(ctx, p.kafka())
		if err != nil {
			return err
		}
		// Everything has come: what came beyond it would be too much.
		c := compareAll("Dana", ref.seenBy(p.dana.me.User, p.dana.me.Device), p.dana.records(), p.nameOf)
		if len(c.Differences) > 0 {
			return fmt.Errorf("%d of her events are not as the log has them, the first: %s",
				len(c.Differences), c.Differences[0])
		}
		s.note("%d messages %s after she came back, none twice, none missing", len(missed), took(last.Sub(began)))
		return nil
	})
}

// acknowledged waits until the log has messages.
func (p *play) acknowledged(ctx context.Context, ms []id.MessageID) error {
	by := map[id.MessageID]*device{}
	for _, s := range p.said {
		by[s.id] = s.by
	}
	for _, m := range ms {
		if _, _, err := by[m].acked(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// counted says how many.
func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
