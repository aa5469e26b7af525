package client

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

func identity(t *testing.T) Identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return Identity{User: id.UserID(id.NewDevice()), Device: id.NewDevice(), Key: key}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, s Store) Saved {
	t.Helper()
	out, err := s.Load()
	must(t, err)
	return out
}

func reopen(t *testing.T, s *FileStore) *FileStore {
	t.Helper()
	must(t, s.Close())
	out, err := OpenFileStore(s.path)
	must(t, err)
	return out
}

func TestStores(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) Store{
		"memory": func(*testing.T) Store { return NewMemoryStore() },
		"file": func(t *testing.T) Store {
			s, err := OpenFileStore(filepath.Join(t.TempDir(), "a", "device"))
			must(t, err)
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			me := identity(t)
			th := id.NewGroup()
			w := thread.Watermark{DeliveredPosition: 7, DeliveredOrdinal: 3, ReadPosition: 5, ReadOrdinal: 2}
			a := Outgoing{
				Thread:       th,
				ID:           id.NewMessage(),
				Data:         []byte("a"),
				Nonce:        []byte{1},
				KeyID:        9,
				ReplyTo:      id.NewMessage(),
				ReplyAuthor:  me.User,
				DirectPeer:   me.User,
				ClientTimeMS: 12,
			}
			b := Outgoing{Thread: th, ID: id.NewMessage(), Data: []byte("b")}
			c := Outgoing{Thread: th, ID: id.NewMessage(), Data: []byte("c")}
			must(
				t, s.SetIdentity(me), s.SetWatermark(th, thread.Watermark{DeliveredPosition: 1}), s.SetWatermark(th, w),
				s.Put(a), s.Put(b), s.Put(c), s.Drop(b.ID), s.Drop(id.NewMessage()),
			)
			peer := id.UserID(id.NewDevice())
			rs := s.(ReceiptStore)
			must(t, rs.SetReceipt(th, peer, thread.Watermark{DeliveredOrdinal: 1}), rs.SetReceipt(th, peer, w))
			must(t, rs.SetOwn(th, 3))
			want := Saved{
				Identity: me, Watermarks: map[id.ThreadID]thread.Watermark{th: w}, Outbox: []Outgoing{a, c},
				Receipts: map[id.ThreadID]*Receipts{th: {Own: 3, Marks: map[id.UserID]thread.Watermark{peer: w}}},
			}
			if d := cmp.Diff(want, load(t, s)); d != "" {
				t.Fatal(d)
			}
			if f, ok := s.(*FileStore); ok {
				s = reopen(t, f)
				if d := cmp.Diff(want, load(t, s)); d != "" {
					t.Fatalf("after reopening: %s", d)
				}
			}
			must(t, s.SetIdentity(me)) // the same device again loses nothing
			if d := cmp.Diff(want, load(t, s)); d != "" {
				t.Fatal(d)
			}
			other := identity(t)
			must(t, s.SetIdentity(other))
			alone := Saved{Identity: other, Watermarks: map[id.ThreadID]thread.Watermark{}}
			if d := cmp.Diff(alone, load(t, s)); d != "" {
				t.Fatal(d)
			}
			must(t, s.Close())
		})
	}
}

func TestFileStoreTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	s, err := OpenFileStore(path)
	must(t, err)
	a, b := Outgoing{ID: id.NewMessage()}, Outgoing{ID: id.NewMessage()}
	must(t, s.SetIdentity(identity(t)), s.Put(a), s.Put(b), s.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	last := strings.LastIndexByte(strings.TrimSuffix(string(whole), "\n"), '\n') + 1
	for cut := last; cut < len(whole); cut++ {
		must(t, os.WriteFile(path, whole[:cut], 0o600))
		s, err := OpenFileStore(path)
		must(t, err)
		if d := cmp.Diff([]Outgoing{a}, load(t, s).Outbox); d != "" {
			t.Fatalf("cut at %d: %s", cut, d)
		}
		must(t, s.Put(b))
		s = reopen(t, s)
		if d := cmp.Diff([]Outgoing{a, b}, load(t, s).Outbox); d != "" {
			t.Fatalf("cut at %d, then written: %s", cut, d)
		}
		must(t, s.Close())
	}
	must(t, os.WriteFile(path, append([]byte("{\"identity\":\n"), whole...), 0o600))
	if _, err := OpenFileStore(path); err == nil || !strings.Contains(err.Error(), "damaged at byte 0") {
		t.Fatalf("a damaged first line: %v", err)
	}
}

func TestFileStoreCompacts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	s, err := OpenFileStore(path)
	must(t, err)
	me, th, keep := identity(t), id.NewGroup(), Outgoing{ID: id.NewMessage(), Data: []byte("keep")}
	must(t, s.SetIdentity(me), s.Put(keep))
	must(t, s.SetOwn(th, 4), s.SetReceipt(th, me.User, thread.Watermark{ReadOrdinal: 4}))
	const n = 20_100
	for i := range n {
		must(t, s.SetWatermark(th, thread.Watermark{DeliveredPosition: topic.Position(i + 1)}))
	}
	if s.lines > 10_100 {
		t.Fatalf("%d lines after %d watermarks", s.lines, n)
	}
	if _, err := OpenFileStore(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("the rewritten file is not locked: %v", err)
	}
	s = reopen(t, s)
	want := Saved{
		Identity:   me,
		Watermarks: map[id.ThreadID]thread.Watermark{th: {DeliveredPosition: n}},
		Outbox:     []Outgoing{keep},
		Receipts: map[id.ThreadID]*Receipts{
			th: {Own: 4, Marks: map[id.UserID]thread.Watermark{me.User: {ReadOrdinal: 4}}},
		},
	}
	if d := cmp.Diff(want, load(t, s)); d != "" {
		t.Fatal(d)
	}
	must(t, s.Close())
}

func TestFileStoreLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	s, err := OpenFileStore(path)
	must(t, err)
	if _, err := OpenFileStore(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("opened twice: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	must(t, s.Close())
	s, err = OpenFileStore(path)
	must(t, err)
	must(t, s.Close())
}
