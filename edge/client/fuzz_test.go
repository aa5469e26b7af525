package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// script is a control stream on which the edge has said all that it will ever say. It takes nothing before reads is
// closed.
type script struct {
	io.Reader
	reads chan struct{}
	mu    sync.Mutex // guards out
	out   bytes.Buffer
}

func (s *script) CancelRead(quic.StreamErrorCode) {}

func (s *script) Write(p []byte) (int, error) {
	<-s.reads
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

// FuzzServerFrames lets an edge say anything, to a device that is registered and has messages in its outbox. Whatever
// it is: no panic, the connection ends by an error, the events of a thread come in order and each once, none of the
// outbox is both settled and kept, nothing but whole frames goes out, and an edge that does not read what it asks for
// does not make the device hoard it.
func FuzzServerFrames(f *testing.F) {
	me := Identity{User: id.UserID{1}, Device: id.DeviceID{6: 0x70, 8: 0x80}, Key: make([]byte, 64)}
	th, u := id.DirectThread(me.User, id.UserID{2}), id.UserID{2}
	mine := []id.MessageID{{6: 0x70, 8: 0x80, 15: 1}, {6: 0x70, 8: 0x80, 15: 2}}
	group := id.ThreadID{6: 0x70, 8: 0x80}
	frames := func(bs ...wirev1.ServerFrame_builder) []byte {
		var out []byte
		for _, b := range bs {
			var err error
			if out, err = frame.Append(out, b.Build()); err != nil {
				f.Fatal(err)
			}
		}
		return out
	}
	said := func(e eventv1.Event_builder, at int64) wirev1.ServerFrame_builder {
		raw, err := proto.Marshal(e.Build())
		if err != nil {
			f.Fatal(err)
		}
		return wirev1.ServerFrame_builder{
			Event: wirev1.Event_builder{ThreadId: th[:], Position: at, Ordinal: at, LogTimeMs: 1, Event: raw}.Build(),
		}
	}
	message := func(from id.UserID, m id.MessageID) eventv1.Event_builder {
		content, err := proto.Marshal(eventv1.Content_builder{Text: "hello"}.Build())
		if err != nil {
			f.Fatal(err)
		}
		return eventv1.Event_builder{UserId: from[:], DeviceId: me.Device[:], MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:], ReplyTo: m[:], Content: eventv1.Sealed_builder{Data: content}.Build(),
		}.Build()}
	}
	// The device's requests are numbered: 1 is Hello, 2 the proof, 3 Sync, 4 and 5 its messages.
	welcome := wirev1.ServerFrame_builder{
		RequestId: 1,
		Welcome:   wirev1.Welcome_builder{Nonce: make([]byte, wire.NonceSize), Edge: "e"}.Build(),
	}
	proven := wirev1.ServerFrame_builder{
		RequestId:     2,
		Authenticated: wirev1.Authenticated_builder{UserId: me.User[:]}.Build(),
	}
	synced := wirev1.ServerFrame_builder{SyncComplete: &wirev1.SyncComplete{}}
	failure := func(rid uint64, c wirev1.Code) wirev1.ServerFrame_builder {
		return wirev1.ServerFrame_builder{RequestId: rid, Error: wirev1.Error_builder{Code: c, RetryAfterMs: 1}.Build()}
	}
	ack := wirev1.ServerFrame_builder{
		RequestId: 4,
		Ack:       wirev1.Ack_builder{MessageId: mine[0][:], ThreadId: th[:], Position: 4}.Build(),
	}
	mark := wirev1.MemberWatermark_builder{UserId: u[:], DeliveredPosition: 3, ReadPosition: 2}.Build()
	changed := wirev1.ServerFrame_builder{
		ThreadChanged: wirev1.ThreadChanged_builder{
			Thread: wirev1.ThreadSummary_builder{ThreadId: th[:], Own: mark}.Build(),
		}.Build(),
	}
	add := func(script []byte) {
		f.Add(true, script)
		f.Add(false, script)
	}
	add(frames(
		welcome, proven, changed, said(message(u, mine[1]), 3), synced,
		ack, said(message(me.User, mine[0]), 4), said(message(me.User, mine[1]), 5),
	))
	add(frames(
		welcome, proven, synced,
		failure(4, wirev1.Code_CODE_UNAVAILABLE), failure(5, wirev1.Code_CODE_TOO_LARGE),
	))
	add(frames(
		welcome, proven, synced,
		failure(4, wirev1.Code_CODE_THREAD_PARKED), failure(5, wirev1.Code_CODE_THREAD_PARKED),
	))
	add(frames(welcome, failure(2, wirev1.Code_CODE_DEVICE_REVOKED)))
	add(frames(
		welcome, proven, synced,
		wirev1.ServerFrame_builder{Resync: &wirev1.Resync{}},
		synced,
		wirev1.ServerFrame_builder{
			Receipts: wirev1.Receipts_builder{ThreadId: th[:], Items: []*wirev1.MemberWatermark{mark}}.Build(),
		},
		wirev1.ServerFrame_builder{
			Rejected: wirev1.Rejected_builder{ThreadId: th[:], MessageId: mine[0][:], Position: 9}.Build(),
		},
		wirev1.ServerFrame_builder{GoAway: wirev1.GoAway_builder{ReconnectAfterMs: 5}.Build()},
	))
	add(frames(
		welcome, proven,
		said(eventv1.Event_builder{
			UserId: u[:], ThreadRenamed: eventv1.ThreadRenamed_builder{Title: "t"}.Build(),
		}, 3),
		said(eventv1.Event_builder{UserId: u[:], MemberLeft: &eventv1.MemberLeft{}}, 3),
		synced,
		welcome, proven, synced, failure(0, wirev1.Code_CODE_INTERNAL),
	))
	add(frames(slices.Repeat([]wirev1.ServerFrame_builder{welcome}, 100)...))
	add(frames(slices.Repeat([]wirev1.ServerFrame_builder{{Resync: &wirev1.Resync{}}}, 1000)...))
	add([]byte{0xc0, 0, 0, 1, 0, 0, 0, 0})

	cfg := fakeEdge(f, func(*peer, *wirev1.ClientFrame) bool { return true })
	idle, err := New(cfg)
	must(f, err)
	there, err := idle.dial(f.Context(), cfg.Addrs[0], idle.cfg.silence)
	must(f, err)
	f.Cleanup(func() { _ = there.quic.CloseWithError(0, ""); there.done() })
	f.Fuzz(func(t *testing.T, reads bool, data []byte) {
		store := NewMemoryStore()
		must(t, store.SetIdentity(me))
		must(t, store.Put(Outgoing{Thread: th, ID: mine[0], DirectPeer: u}))
		must(t, store.Put(Outgoing{Thread: group, ID: mine[1]}))
		c, err := New(Config{
			Addrs:       []string{"edge:1"},
			Store:       store,
			Buffer:      1 << 20,
			AckInterval: time.Hour,
			MinBackoff:  time.Hour,
			MaxBackoff:  time.Hour,
		})
		must(t, err)
		s := &script{Reader: bytes.NewReader(data), reads: make(chan struct{})}
		if reads {
			close(s.reads)
		}
		cn := newConn(there.quic, s, time.Hour, 2<<10)
		if err := c.serve(t.Context(), cn); err == nil {
			t.Fatal("the connection ended without an error")
		}
		c.mu.Lock() // as connect does
		c.conn, c.live = nil, false
		c.requeue()
		if c.flush != nil {
			c.flush.Stop()
		}
		c.mu.Unlock()
		cn.fail()
		cn.rest()
		cn.wmu.Lock()
		if n := len(cn.wbuf); n > 4<<10 {
			t.Errorf("%d bytes wait to be written", n)
		}
		cn.wmu.Unlock()
		if !reads {
			close(s.reads)
		}
		c.queue.close()
		left := c.Outbox()
		last := map[id.ThreadID]topic.Position{}
		settled := map[id.MessageID]bool{}
		for e := range c.Events(context.Background()) {
			if p, ok := placeOf(e); ok {
				if before, seen := last[p.Thread]; seen && p.Position <= before {
					t.Fatalf("%v at %d after %d", p.Thread, p.Position, before)
				}
				last[p.Thread] = p.Position
			}
			done := id.MessageID{}
			switch e := e.(type) {
			case Sent:
				done = e.ID
			case Failed:
				done = e.ID
			}
			if !done.IsZero() && settled[done] {
				t.Fatalf("%v is settled twice", done)
			}
			settled[done] = true
		}
		delete(settled, id.MessageID{})
		saved, err := store.Load()
		must(t, err)
		if len(saved.Outbox) != left || left+len(settled) > len(mine) {
			t.Fatalf("%d settled, %d left, %d stored", len(settled), left, len(saved.Outbox))
		}
		whole(t, written(t, cn, s))
	})
}

// written waits until the client has nothing more to write and returns what it wrote.
func written(t *testing.T, cn *conn, s *script) []byte {
	t.Helper()
	for ctx := within(t); ; runtime.Gosched() {
		cn.wmu.Lock()
		writing := cn.writing
		if cn.watch != nil {
			cn.watch.Stop()
		}
		cn.wmu.Unlock()
		if !writing {
			return s.out.Bytes()
		}
		must(t, ctx.Err())
	}
}

// whole checks that bytes are frames of a client that proves at most once who it is.
func whole(t *testing.T, b []byte) {
	t.Helper()
	r := bufio.NewReader(bytes.NewReader(b))
	for proofs := 0; ; {
		raw, err := frame.Read(r, nil, wire.MaxFrame)
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		var f wirev1.ClientFrame
		must(t, proto.Unmarshal(raw, &f))
		if f.WhichBody() == wirev1.ClientFrame_Body_not_set_case {
			t.Fatalf("an empty frame: %v", &f)
		}
		if f.HasAuthenticate() {
			proofs++
		}
		if proofs > 1 {
			t.Fatal("a second proof")
		}
	}
}
