package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"heliograph/edge/client"
	"heliograph/infra/kafka"
	"heliograph/ingest"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// join starts a real client and registers it.
func (f *fixture) join(t *testing.T, phone string) *client.Client {
	t.Helper()
	return f.joinWith(t, phone, client.Config{})
}

func (f *fixture) joinWith(t *testing.T, phone string, conf client.Config) *client.Client {
	t.Helper()
	conf.Addrs, conf.TLS = []string{f.Addr().String()}, &tls.Config{RootCAs: f.tls.RootCAs}
	c, err := client.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = c.Close()
	})
	wait, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if _, err := c.Register(wait, client.Registration{Phone: phone, Pin: "000000"}); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitSynced(wait); err != nil {
		t.Fatal(err)
	}
	return c
}

// collect takes the texts of n messages.
func collect(t *testing.T, c *client.Client, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out []string
	for e := range c.Events(ctx) {
		if m, ok := e.(client.Message); ok {
			if out = append(out, m.Text); len(out) == n {
				break
			}
		}
	}
	return out
}

// awaited takes events until one is as wanted.
func awaited[T client.Event](t *testing.T, c *client.Client, wanted func(T) bool) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for e := range c.Events(ctx) {
		if got, ok := e.(T); ok && wanted(got) {
			return got
		}
	}
	var none T
	t.Fatalf("no %T as wanted came", none)
	return none
}

func identity(c *client.Client) id.UserID {
	me, _ := c.Identity()
	return me.User
}

// said sends a text and returns why it was refused; nil when it was acknowledged.
func said(t *testing.T, c *client.Client, th id.ThreadID, text string) error {
	t.Helper()
	m, err := c.Send(client.To{Thread: th}, text)
	if err != nil {
		t.Fatal(err)
	}
	var why error
	awaited(t, c, func(e client.Event) bool {
		switch e := e.(type) {
		case client.Sent:
			return e.ID == m
		case client.Failed:
			if e.ID == m {
				why = e.Err
			}
			return e.ID == m
		}
		return false
	})
	return why
}

func TestMembersOfAGroup(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.join(t, "+491"), f.join(t, "+492"), f.join(t, "+493")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	want := func(err error, code wirev1.Code) {
		t.Helper()
		var we *wire.Error
		if code == 0 && err != nil || code != 0 && (!errors.As(err, &we) || we.Code != code) {
			t.Fatalf("got %v, want %v", err, code)
		}
	}
	g, err := a.CreateGroup(ctx, "walk", identity(b))
	want(err, 0)
	want(said(t, c, g, "hi"), wirev1.Code_CODE_NOT_A_MEMBER)
	want(said(t, b, g, "hi"), 0)
	want(b.AddMembers(ctx, g, identity(c)), wirev1.Code_CODE_NOT_ALLOWED)
	want(a.AddMembers(ctx, g, id.UserID{9}), wirev1.Code_CODE_UNKNOWN_USER)
	want(a.AddMembers(ctx, g, identity(c)), 0)
	want(said(t, c, g, "here I am"), 0)
	want(a.Rename(ctx, g, "run"), 0)
	want(a.Rename(ctx, g, strings.Repeat("x", thread.MaxTitle+1)), wirev1.Code_CODE_TOO_LARGE)
	want(a.SetRole(ctx, g, identity(a), thread.RoleMember), wirev1.Code_CODE_NOT_ALLOWED)
	want(a.SetRole(ctx, g, identity(b), thread.RoleAdmin), 0)
	want(a.RemoveMember(ctx, g, identity(c)), 0)
	want(said(t, c, g, "still here?"), wirev1.Code_CODE_NOT_A_MEMBER)
	want(b.Leave(ctx, g), 0)
	want(said(t, b, g, "and I?"), wirev1.Code_CODE_NOT_A_MEMBER)
	want(b.Leave(ctx, g), 0) // repeating is safe
}

func TestClientsConverse(t *testing.T) {
	f := start(t, nil)
	a, b := f.join(t, "+491"), f.join(t, "+492")
	me, _ := b.Identity()
	to, err := a.Direct(me.User)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Send(to, " \n"); !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_INVALID}) {
		t.Errorf("a text of blanks: %v", err)
	}
	const n = 300
	for k := range n {
		if _, err := a.Send(to, fmt.Sprint(k)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*client.Client{a, b} {
		got := collect(t, c, n)
		if len(got) != n {
			t.Fatalf("%d messages, want %d", len(got), n)
		}
		for k := range got {
			if got[k] != fmt.Sprint(k) {
				t.Fatalf("message %d says %q", k, got[k])
			}
		}
	}
	g, err := a.CreateGroup(t.Context(), "walk", me.User)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Send(client.To{Thread: g}, "who comes?"); err != nil {
		t.Fatal(err)
	}
	// The event at which the loop was left comes again.
	if got := collect(t, b, 2); len(got) != 2 || got[1] != "who comes?" {
		t.Errorf("got %q", got)
	}
	if _, _, err := b.History(t.Context(), g, 0, 10); err != nil {
		t.Error(err)
	}
	until(t, "watermarks", func() bool { f.world.mu.Lock(); defer f.world.mu.Unlock(); return len(f.world.marks) > 0 })
}

// onLog lets the world append to a real broker first, through ingest, so that a message takes the path that it takes in
// production.
type onLog struct {
	*world
	log *ingest.Ingest
}

func (o onLog) Append(t topic.Topic, s topic.Subject, ev *eventv1.Event, done func(ingest.Receipt, error)) {
	o.log.Append(t, s, ev, func(r ingest.Receipt, err error) {
		if err == nil {
			o.mu.Lock()
			o.fold(t, s, ev, r.Position)
			o.mu.Unlock()
		}
		done(r, err)
	})
}

func (o onLog) Flush(ctx context.Context) error { return o.log.Flush(ctx) }

func TestMessageGoesThroughTheLog(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	kc := kafka.Config{Brokers: cluster.ListenAddrs(), Partitions: partitions}
	admin, err := kafka.Dial(kc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = kafka.EnsureTopics(t.Context(), admin, kc)
	admin.Close()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := kafka.Dial(kc)
	if err != nil {
		t.Fatal(err)
	}
	bases, err := kafka.LoadBases(t.Context(), reader, kc, topic.All, partitions)
	reader.Close()
	if err != nil {
		t.Fatal(err)
	}
	log, err := ingest.New(ingest.Config{Kafka: kc, Partitions: partitions}, bases, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = log.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })

	w := newWorld()
	cfg := Config{Listen: "127.0.0.1:0"}
	authority := identify(t, &cfg)
	cfg.Session.Partitions = partitions
	e, err := New(cfg, readSide{w}, readSide{w}, gate{w}, reads{w}, onLog{w, log}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, e, w, authority)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	first := a.ask(direct(a, b, "hello")).GetAck()
	second := a.ask(direct(a, b, "again")).GetAck()
	slot := topic.SlotOf(topic.Subject(id.DirectThread(a.user, b.user)), partitions)
	if first.GetSlot() != int32(slot) || first.GetPosition() != 0 || second.GetPosition() != 1 {
		t.Errorf("acks %v and %v, want positions 0 and 1 of slot %d", first, second, slot)
	}
	if err := f.Drain(t.Context()); err != nil {
		t.Error(err)
	}
}
