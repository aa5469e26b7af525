package edge

import (
	"testing"

	"github.com/quic-go/quic-go"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// A device that asks for a page and lets the server open no stream is told so at once, on the control stream.
func TestHistoryWithoutStreams(t *testing.T) {
	f := start(t, nil)
	d := f.dialWith(t, &quic.Config{MaxIncomingUniStreams: -1}).register("+491").sync()
	th := id.NewGroup()
	page := wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{ThreadId: th[:]}.Build()}
	for range 2 * 4 { // more than may be under way
		d.refused(d.ask(page), wirev1.Code_CODE_NOT_ALLOWED)
	}
}

// A device that lets one stream be opened at a time gets its pages one after the other.
func TestHistoryOverOneStream(t *testing.T) {
	f := start(t, nil)
	d := f.dialWith(t, &quic.Config{MaxIncomingUniStreams: 1}).register("+491").sync()
	th := id.NewGroup()
	want := map[uint64]bool{}
	for range 4 {
		want[d.send(wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{ThreadId: th[:]}.Build()})] = true
	}
	for range 4 {
		s, err := d.conn.AcceptUniStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		delete(want, (&device{t: t}).page(s).GetRequestId())
	}
	if len(want) != 0 {
		t.Errorf("no pages for %v", want)
	}
}

// A Pong comes after what the device has written before was taken up, and after what it was pushed before.
func TestPing(t *testing.T) {
	f := start(t, nil)
	stranger := f.dial(t).hello()
	stranger.refused(
		stranger.ask(wirev1.ClientFrame_builder{Ping: &wirev1.Ping{}}), wirev1.Code_CODE_NOT_AUTHENTICATED,
	)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	a.ask(direct(a, b, "hello"))
	th := id.DirectThread(a.user, b.user)
	b.tell(wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{
		wirev1.Watermark_builder{ThreadId: th[:], DeliveredPosition: 0, DeliveredOrdinal: 1}.Build(),
	}}.Build()})
	if got := b.ask(wirev1.ClientFrame_builder{Ping: &wirev1.Ping{}}); !got.HasPong() {
		t.Fatalf("got %v", got)
	}
	f.world.mu.Lock()
	defer f.world.mu.Unlock()
	if len(f.world.marks) != 1 {
		t.Errorf("%d watermarks were taken before the Pong, want 1", len(f.world.marks))
	}
	if n := len(b.pushes); n == 0 || !b.pushes[n-1].HasEvent() {
		t.Errorf("pushed before the Pong: %v, want the message", b.pushes)
	}
}

func TestWatermarksAreAnswered(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	a.ask(direct(a, b, "hello"))
	th, unknown := id.DirectThread(a.user, b.user), id.NewGroup()
	mark := func(threads ...[]byte) wirev1.ClientFrame_builder {
		var items []*wirev1.Watermark
		for _, t := range threads {
			items = append(items, wirev1.Watermark_builder{ThreadId: t, DeliveredOrdinal: 1}.Build())
		}
		return wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: items}.Build()}
	}
	for _, c := range []struct {
		name    string
		threads [][]byte
		want    wirev1.Code
		marks   int
	}{
		{"none", nil, 0, 0},
		{"its thread", [][]byte{th[:]}, 0, 1},
		{"a thread that it does not know", [][]byte{unknown[:]}, 0, 1},
		{"what is no thread, and its thread", [][]byte{{1}, th[:]}, wirev1.Code_CODE_INVALID, 2},
	} {
		if got := b.ask(mark(c.threads...)); got.GetError().GetCode() != c.want || got.HasDone() != (c.want == 0) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
		f.world.mu.Lock()
		if n := len(f.world.marks); n != c.marks {
			t.Errorf("%s: %d watermarks, want %d", c.name, n, c.marks)
		}
		f.world.mu.Unlock()
	}
}

// A session in the background lives beside that of the foreground; each is superseded by its like.
func TestBackgroundSession(t *testing.T) {
	f := start(t, nil)
	front := f.dial(t).register("+491").sync()
	back := func() *device {
		n := f.dial(t).hello()
		n.key, n.id, n.user = front.key, front.id, front.user
		p := n.proof()
		p.SetBackground(true)
		if got := n.ask(wirev1.ClientFrame_builder{Authenticate: p}); !got.HasAuthenticated() {
			t.Fatalf("got %v", got)
		}
		return n.sync()
	}
	one := back()
	if f.Sessions() != 2 {
		t.Errorf("%d sessions, want 2", f.Sessions())
	}
	peer := f.dial(t).register("+492").sync()
	peer.ask(direct(peer, front, "hello"))
	isEvent := func(f *wirev1.ServerFrame) bool { return f.HasEvent() }
	front.push("Event", isEvent)
	one.push("Event", isEvent)
	two := back()
	one.closed(wirev1.Code_CODE_SUPERSEDED)
	again := f.again(t, front).sync()
	front.closed(wirev1.Code_CODE_SUPERSEDED)
	two.sync()
	again.sync()
}

// Welcome says what is enforced.
func TestWelcomeTellsLimits(t *testing.T) {
	f := start(t, nil)
	d := f.dial(t)
	w := d.ask(wirev1.ClientFrame_builder{Hello: &wirev1.Hello{}}).GetWelcome()
	if l := w.GetLimits(); l.GetMaxFrameBytes() != wire.MaxFrame || l.GetMaxServerFrameBytes() != wire.MaxServerFrame {
		t.Errorf("limits %v", l)
	}
	if got := w.GetFeatures(); !wire.ValidFeatures(got) || len(got) != len(wire.Features) {
		t.Errorf("features %q", got)
	}
}
