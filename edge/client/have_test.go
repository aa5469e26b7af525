package client

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// A device says what its store has. In: two events and a receipt, then the process ends, and the file of before the
// second event and the receipt is put back. Expected: first the one cursor, then the other, with the digest of what
// came from the store; the application is told at start of the receipts that the store has, and an edge that does not
// know Have is told nothing.
func TestSaysWhatItsStoreHas(t *testing.T) {
	th, other, me := id.NewGroup(), identity(t), identity(t)
	path := filepath.Join(t.TempDir(), "device")
	said := make(chan *wirev1.ThreadCursor, 10)
	knows := true
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_Hello_case:
			w := wirev1.Welcome_builder{Nonce: make([]byte, wire.NonceSize)}
			if knows {
				w.Features = []string{wire.OwnCursors}
			}
			p.write(wirev1.ServerFrame_builder{RequestId: f.GetRequestId(), Welcome: w.Build()}.Build())
			return true
		case wirev1.ClientFrame_Have_case:
			for _, c := range f.GetHave().GetThreads() {
				said <- c
			}
		case wirev1.ClientFrame_Sync_case:
			if f.GetSync().GetOwnCursors() != knows {
				t.Errorf("Sync %v of one that knows: %v", f.GetSync(), knows)
			}
			p.write(eventFrame(t, th, 4, me, id.MessageID(th), "mine"))
			p.write(eventFrame(t, th, 7, other, id.NewMessage(), "his"))
			p.write(wirev1.ServerFrame_builder{Receipts: wirev1.Receipts_builder{
				ThreadId: th[:], Items: []*wirev1.MemberWatermark{wirev1.MemberWatermark_builder{
					UserId: other.User[:], DeliveredOrdinal: 9, ReadOrdinal: 3,
				}.Build()},
			}.Build()}.Build())
		default:
		}
		return false
	})
	// run lets a client take events until fn says so, and returns how many receipts came before it was connected.
	run := func(fn func(Event) bool) (early int) {
		store, err := OpenFileStore(path)
		must(t, err)
		cfg.Store = store
		must(t, store.SetIdentity(me))
		c, err := New(cfg)
		must(t, err)
		ctx, cancel := context.WithCancel(within(t))
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		connected := false
		for e := range c.Events(ctx) {
			switch e.(type) {
			case Connected:
				connected = true
			case Receipt:
				if !connected {
					early++
				}
			default:
			}
			if fn(e) {
				break
			}
		}
		cancel()
		must(t, <-done, c.Close())
		return early
	}
	ended := func(e Event) bool { _, ok := e.(Synced); return ok }
	copied := func(from, to string) {
		raw, err := os.ReadFile(from)
		must(t, err, os.WriteFile(to, raw, 0o600))
	}
	run(func(e Event) bool {
		if m, ok := e.(Message); ok && m.Position == 7 { // the first was applied, this one is about to be
			copied(path, path+".backup")
		}
		return ended(e)
	})
	mustSay := func(want *wirev1.ThreadCursor) {
		t.Helper()
		got := <-said
		if got.GetPosition() != want.GetPosition() || got.GetReceipts() != want.GetReceipts() ||
			got.GetOwnOrdinal() != want.GetOwnOrdinal() {
			t.Errorf("said %v, want %v", got, want)
		}
	}
	read := func() int64 { // how far the device has read, of which its own message is a part
		store, err := OpenFileStore(path)
		must(t, err)
		defer func() { must(t, store.Close()) }()
		return load(t, store).Watermarks[th].ReadOrdinal
	}
	mine := wire.Of(me.User, 0, read(), 0)
	if early := run(ended); early != 1 {
		t.Errorf("told of %d receipts of the store, want 1", early)
	}
	mustSay(wirev1.ThreadCursor_builder{
		Position: 7, Receipts: uint64(wire.Of(other.User, 4, 3, 0) + mine), OwnOrdinal: 4,
	}.Build())
	copied(path+".backup", path)
	mine = wire.Of(me.User, 0, read(), 0)
	if early := run(ended); early != 0 {
		t.Errorf("told of %d receipts of the backup, which has none", early)
	}
	mustSay(wirev1.ThreadCursor_builder{Position: 4, Receipts: uint64(mine), OwnOrdinal: 4}.Build())
	knows = false
	run(ended)
	if len(said) != 0 {
		t.Errorf("an edge that does not know Have was told %v", <-said)
	}
}

// A device that comes back is live after two round trips: Hello, and then proof, cursors and Sync together. In: an edge
// that answers nothing of the second before it has all of it.
func TestTwoRoundTripsToLive(t *testing.T) {
	var proof uint64
	came := make(chan string, 10)
	cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
		switch f.WhichBody() {
		case wirev1.ClientFrame_Hello_case:
			p.write(wirev1.ServerFrame_builder{RequestId: f.GetRequestId(), Welcome: wirev1.Welcome_builder{
				Nonce: make([]byte, wire.NonceSize), Features: []string{wire.OwnCursors},
			}.Build()}.Build())
		case wirev1.ClientFrame_Authenticate_case:
			proof = f.GetRequestId()
			came <- "proof"
		case wirev1.ClientFrame_Have_case:
			came <- "cursors"
		case wirev1.ClientFrame_Sync_case:
			came <- "sync"
			p.write(wirev1.ServerFrame_builder{RequestId: proof, Authenticated: &wirev1.Authenticated{}}.Build())
			p.write(wirev1.ServerFrame_builder{SyncComplete: &wirev1.SyncComplete{}}.Build())
		default:
			return false
		}
		return true
	})
	store := registered(t)
	must(t, store.SetWatermark(id.NewGroup(), thread.Watermark{DeliveredPosition: 3, DeliveredOrdinal: 1}))
	cfg.Store = store
	c, _ := start(t, cfg)
	must(t, c.WaitSynced(within(t)))
	if got := strings.Join([]string{<-came, <-came, <-came}, " "); got != "proof cursors sync" {
		t.Errorf("the second flight was %q", got)
	}
}
