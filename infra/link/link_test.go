package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/kafka"
	"heliograph/schemas/frame"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func progress(n int) *linkv1.ToEdge {
	return linkv1.ToEdge_builder{Progress: linkv1.Progress_builder{Slots: []*linkv1.SlotProgress{
		linkv1.SlotProgress_builder{Slot: 1, Next: linkv1.Cursor_builder{Threads: int64(n)}.Build()}.Build(),
	}}.Build()}.Build()
}

func number(m *linkv1.ToEdge) int {
	return int(m.GetProgress().GetSlots()[0].GetNext().GetThreads())
}

func hello(name string) *linkv1.ToDelivery {
	return linkv1.ToDelivery_builder{Hello: linkv1.EdgeHello_builder{Edge: name}.Build()}.Build()
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestPipe(t *testing.T) {
	ctx := within(t)
	edge, delivery := Pipe(4)
	for i := range 4 {
		if err := delivery.Send(progress(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := delivery.Send(progress(4)); !errors.Is(err, ErrFull) {
		t.Errorf("Send on a full link: %v, want ErrFull", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- delivery.SendWait(ctx, progress(4)) }()
	for i := range 5 {
		m, err := edge.Recv(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if number(m) != i {
			t.Errorf("frame %d, want %d", number(m), i)
		}
	}
	if err := <-waited; err != nil {
		t.Errorf("SendWait: %v", err)
	}
	if err := edge.Send(ctx, hello("a")); err != nil {
		t.Fatal(err)
	}
	if m, err := delivery.Recv(ctx); err != nil || m.GetHello().GetEdge() != "a" {
		t.Errorf("got %v, %v", m, err)
	}
	edge.Close()
	edge.Close()
	if _, err := delivery.Recv(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("Recv after Close: %v, want ErrClosed", err)
	}
	if err := delivery.Send(progress(0)); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after Close: %v, want ErrClosed", err)
	}
}

func TestPipeCancel(t *testing.T) {
	edge, delivery := Pipe(1)
	ctx, cancel := context.WithCancel(context.Background())
	if err := delivery.Send(progress(1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := delivery.SendWait(ctx, progress(2)); !errors.Is(err, context.Canceled) {
		t.Errorf("SendWait: %v, want cancelled", err)
	}
	if _, err := delivery.Recv(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Recv: %v, want cancelled", err)
	}
	if m, err := edge.Recv(context.Background()); err != nil || number(m) != 1 {
		t.Errorf("a cancelled wait must not hurt the link: %v, %v", m, err)
	}
}

func TestQueueBytes(t *testing.T) {
	q := newQueue(100, 1000, func(n int) int { return n })
	for _, tc := range []struct {
		weight int
		want   error
	}{{5000, nil}, {1, ErrFull}} {
		if err := q.put(tc.weight); !errors.Is(err, tc.want) {
			t.Errorf("put %d: %v, want %v", tc.weight, err, tc.want)
		}
	}
	if _, err := q.take(t.Context(), nil, 1); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		weight int
		want   error
	}{{600, nil}, {400, nil}, {1, ErrFull}} {
		if err := q.put(tc.weight); !errors.Is(err, tc.want) {
			t.Errorf("put %d: %v, want %v", tc.weight, err, tc.want)
		}
	}
}

// Many writers that wait for room, one reader: nothing is lost and each writer's frames keep their order.
func TestQueueWriters(t *testing.T) {
	ctx := within(t)
	q := newQueue(8, 0, func([2]int) int { return 1 })
	const writers, each = 8, 500
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := q.putWait(ctx, [2]int{w, i}, 1+w%2); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	var next [writers]int
	var got [][2]int
	for n := 0; n < writers*each; {
		var err error
		if got, err = q.take(ctx, got[:0], 3); err != nil {
			t.Fatal(err)
		}
		for _, v := range got {
			if v[1] != next[v[0]] {
				t.Fatalf("writer %d: %d, want %d", v[0], v[1], next[v[0]])
			}
			next[v[0]]++
			n++
		}
	}
	wg.Wait()
}

func authority(t testing.TB) *Authority {
	t.Helper()
	a, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func config(t testing.TB, a *Authority, name string) *tls.Config {
	t.Helper()
	c, err := a.Config(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serveQUIC listens with conf until the test ends.
func serveQUIC(t *testing.T, conf *tls.Config, queue int, handle Handler) string {
	t.Helper()
	l, err := Listen("127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	l.queue = queue
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, handle) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

func TestQUIC(t *testing.T) {
	ctx := within(t)
	ca := authority(t)
	const n = 5000
	addr := serveQUIC(t, config(t, ca, "delivery-1"), 0, func(ctx context.Context, end DeliveryEnd) error {
		m, err := end.Recv(ctx)
		if err != nil {
			return err
		}
		if got := m.GetHello().GetEdge(); got != "edge-1" {
			t.Errorf("hello of %q", got)
		}
		if got := end.Peer()[:7]; got != "edge-1@" {
			t.Errorf("peer %q", end.Peer())
		}
		for i := range n {
			if err := end.SendWait(ctx, progress(i)); err != nil {
				return err
			}
		}
		big := linkv1.Record_builder{Position: 7, Key: make([]byte, 16), Value: make([]byte, 1<<20)}.Build()
		if err := end.SendWait(ctx, linkv1.ToEdge_builder{Events: linkv1.Events_builder{
			Topic: 1, Slot: 3, Records: []*linkv1.Record{big},
		}.Build()}.Build()); err != nil {
			return err
		}
		for err == nil { // until the edge closes; meanwhile it says each second that it is there
			_, err = end.Recv(ctx)
		}
		return err
	})
	edge, err := Dial(ctx, addr, config(t, ca, "edge-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close()
	if err := edge.Send(ctx, hello("edge-1")); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		m, err := edge.Recv(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if number(m) != i {
			t.Fatalf("frame %d, want %d", number(m), i)
		}
	}
	m, err := edge.Recv(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(m.GetEvents().GetRecords()[0].GetValue()); got != 1<<20 {
		t.Errorf("value of %d bytes", got)
	}
	edge.Close()
	if _, err := edge.Recv(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("Recv after Close: %v, want ErrClosed", err)
	}
}

// An edge that does not read fills the bounded queue: Send says so and never blocks.
func TestQUICSlowReader(t *testing.T) {
	ctx := within(t)
	ca := authority(t)
	full := make(chan error, 1)
	addr := serveQUIC(t, config(t, ca, "delivery"), 32, func(ctx context.Context, end DeliveryEnd) error {
		big := linkv1.ToEdge_builder{Events: linkv1.Events_builder{Topic: 1, Records: []*linkv1.Record{
			linkv1.Record_builder{Position: 7, Key: make([]byte, 16), Value: make([]byte, 1<<20)}.Build(),
		}}.Build()}.Build()
		var err error
		for err == nil && ctx.Err() == nil {
			err = end.Send(big)
		}
		full <- err
		return err
	})
	edge, err := Dial(ctx, addr, config(t, ca, "edge"))
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close()
	if err := edge.Send(ctx, hello("edge")); err != nil {
		t.Fatal(err)
	}
	if err := <-full; !errors.Is(err, ErrFull) {
		t.Errorf("Send: %v, want ErrFull", err)
	}
	for err == nil { // the instance closed the link
		_, err = edge.Recv(ctx)
	}
	if !errors.Is(err, ErrClosed) {
		t.Errorf("Recv: %v, want ErrClosed", err)
	}
}

func TestQUICRefuses(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	good := config(t, ours, "delivery")
	none := config(t, ours, "edge")
	none.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return new(tls.Certificate), nil
	}
	stranger := config(t, ours, "edge") // trusts the server, but shows a certificate of another CA
	stranger.GetClientCertificate = config(t, theirs, "edge").GetClientCertificate
	elsewhere := config(t, ours, "edge") // wants to talk to another kind of server
	elsewhere.ServerName = "somebody-else"
	for _, tc := range []struct {
		name   string
		client *tls.Config
	}{
		{"certificate of another CA", stranger},
		{"no certificate", none},
		{"server of another CA", config(t, theirs, "edge")},
		{"server of another name", elsewhere},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx := within(t)
			addr := serveQUIC(t, good, 0, func(context.Context, DeliveryEnd) error {
				t.Error("the link was served")
				return nil
			})
			// In TLS 1.3 the client may learn of the refusal only after its own handshake is done.
			edge, err := Dial(ctx, addr, tc.client)
			if err != nil {
				return
			}
			defer edge.Close()
			_ = edge.Send(ctx, hello("edge"))
			if _, err := edge.Recv(ctx); !errors.Is(err, ErrClosed) {
				t.Errorf("Recv: %v, want ErrClosed", err)
			}
		})
	}
}

func TestQUICMalformed(t *testing.T) {
	ctx := within(t)
	ca := authority(t)
	got := make(chan error, 1)
	addr := serveQUIC(t, config(t, ca, "delivery"), 0, func(ctx context.Context, end DeliveryEnd) error {
		_, err := end.Recv(ctx)
		got <- err
		return err
	})
	edge, err := Dial(ctx, addr, config(t, ca, "edge"))
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close()
	bad := linkv1.ToDelivery_builder{Subscribe: linkv1.Subscribe_builder{Subjects: [][]byte{{1, 2, 3}}}.Build()}.Build()
	if err := edge.Send(ctx, bad); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, ErrMalformed) {
		t.Errorf("Recv: %v, want ErrMalformed", err)
	}
}

func TestTLSFiles(t *testing.T) {
	dir := t.TempDir()
	files, err := authority(t).WriteFiles(dir, "edge", "delivery")
	if err != nil {
		t.Fatal(err)
	}
	ctx := within(t)
	server, err := files["delivery"].Load()
	if err != nil {
		t.Fatal(err)
	}
	client, err := files["edge"].Load()
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	addr := serveQUIC(t, server, 0, func(context.Context, DeliveryEnd) error { close(served); return nil })
	edge, err := QUICDialer{TLS: client}.Dial(ctx, Instance{Name: "d", Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close()
	if err := edge.Send(ctx, hello("edge")); err != nil {
		t.Fatal(err)
	}
	<-served
	if _, err := (TLS{CAFile: filepath.Join(dir, "none"), CertFile: "a", KeyFile: "b"}).Load(); err == nil {
		t.Error("missing files were loaded")
	}
	if err := (TLS{}).Validate(); err == nil {
		t.Error("no files are valid")
	}
}

func TestLocal(t *testing.T) {
	ctx := within(t)
	l := NewLocal(0)
	if _, err := l.Dial(ctx, Instance{Name: "a"}); err == nil {
		t.Error("dialled an instance that is not there")
	}
	serving, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- l.Serve(serving, "a", func(ctx context.Context, end DeliveryEnd) error {
			m, err := end.Recv(ctx)
			if err != nil {
				return err
			}
			name := m.GetHello().GetEdge()
			return end.SendWait(ctx, linkv1.ToEdge_builder{
				Owned: linkv1.Owned_builder{Slots: []int32{int32(len(name))}}.Build(),
			}.Build())
		})
	}()
	var list []Instance
	for len(list) == 0 && ctx.Err() == nil {
		list, _ = l.Instances(ctx)
	}
	edge, err := l.Dial(ctx, list[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := edge.Send(ctx, hello("abc")); err != nil {
		t.Fatal(err)
	}
	if m, err := edge.Recv(ctx); err == nil && m.GetOwned().GetSlots()[0] != 3 {
		t.Errorf("got %v", m)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if list, _ := l.Instances(ctx); len(list) != 0 {
		t.Errorf("instances after the stop: %v", list)
	}
}

func TestClientID(t *testing.T) {
	for _, i := range []Instance{{"a", "127.0.0.1:7000"}, {"pod-1.x", "[::1]:9"}, {"dev", ""}} {
		if got, ok := ParseClientID(ClientID(i)); !ok || got != i {
			t.Errorf("%v became %v, %v", i, got, ok)
		}
	}
	for _, id := range []string{
		"", "helio", "helio-delivery/", "helio-delivery/a", "helio-delivery/@h:1", "helio-delivery/a@host",
		"helio-edge/a@h:1",
	} {
		if got, ok := ParseClientID(id); ok {
			t.Errorf("%q became %v", id, got)
		}
	}
}

func TestGroupDirectory(t *testing.T) {
	ctx := within(t)
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	cfg := kafka.Config{Brokers: fake.ListenAddrs(), Partitions: 4}
	cl, err := kafka.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if _, err := kafka.EnsureTopics(ctx, cl, cfg); err != nil {
		t.Fatal(err)
	}
	dir := NewGroupDirectory(cl, cfg, "g")
	if list, err := dir.Instances(ctx); err != nil || len(list) != 0 {
		t.Errorf("before anyone joined: %v, %v", list, err)
	}
	want := []Instance{{"a", "127.0.0.1:1"}, {"b", "127.0.0.1:2"}}
	var wg sync.WaitGroup
	joined, leave := context.WithCancel(ctx)
	defer wg.Wait()
	defer leave()
	for _, id := range []string{ClientID(want[0]), ClientID(want[1]), "somebody else"} {
		c := cfg
		c.ClientID = id
		member, err := kafka.Dial(
			c, kgo.ConsumerGroup("g"), kgo.ConsumeTopics(cfg.Name(topic.Threads)),
			kgo.Balancers(kgo.CooperativeStickyBalancer()),
		)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer member.Close()
			for joined.Err() == nil {
				member.PollFetches(joined)
			}
		})
	}
	for {
		list, err := dir.Instances(ctx)
		if cmp.Equal(list, want) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("got %v, %v, want %v", list, err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []proto.Message{
		hello("a"), progress(3),
		linkv1.ToDelivery_builder{Subscribe: linkv1.Subscribe_builder{
			Id: 1, Slot: 2, Subjects: [][]byte{make([]byte, 16)}, From: &linkv1.Cursor{},
		}.Build()}.Build(),
		linkv1.ToEdge_builder{Events: linkv1.Events_builder{
			Topic: 1, Records: []*linkv1.Record{linkv1.Record_builder{Key: make([]byte, 16)}.Build()},
		}.Build()}.Build(),
	} {
		b, err := frame.Append(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, in []byte, toEdge bool) {
		r := bytes.NewReader(in)
		b, err := frame.Read(r, nil, MaxFrame)
		if err != nil {
			return
		}
		var m, again proto.Message
		if toEdge {
			m, err = decodeToEdge(b)
		} else {
			m, err = decodeToDelivery(b)
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		out, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if toEdge {
			again, err = decodeToEdge(out)
		} else {
			again, err = decodeToDelivery(out)
		}
		if err != nil || !proto.Equal(m, again) {
			t.Fatalf("%s", fmt.Sprint("re-encoded differently: ", err))
		}
	})
}

func BenchmarkQUIC(b *testing.B) {
	ca := authority(b)
	l, err := Listen("127.0.0.1:0", config(b, ca, "delivery"))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	m := linkv1.ToEdge_builder{Events: linkv1.Events_builder{Topic: 1, Slot: 3, Records: []*linkv1.Record{
		linkv1.Record_builder{Position: 7, Key: make([]byte, 16), Value: make([]byte, 200)}.Build(),
	}}.Build()}.Build()
	go func() {
		done <- l.Serve(ctx, func(ctx context.Context, end DeliveryEnd) error {
			for {
				if err := end.SendWait(ctx, m); err != nil {
					return err
				}
			}
		})
	}()
	edge, err := Dial(ctx, l.Addr().String(), config(b, ca, "edge"))
	if err != nil {
		b.Fatal(err)
	}
	if err := edge.Send(ctx, hello("edge")); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := edge.Recv(ctx); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "frames/s")
	edge.Close()
	cancel()
	<-done //nolint:errcheck // the link was closed on purpose
}
