package client

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// Identity of a device. The private key never leaves the device.
type Identity struct {
	User   id.UserID          `json:"user"`
	Device id.DeviceID        `json:"device"`
	Key    ed25519.PrivateKey `json:"key"`
}

// Outgoing is a message of the outbox.
type Outgoing struct {
	Thread       id.ThreadID  `json:"thread"`
	ID           id.MessageID `json:"id"`
	Data         []byte       `json:"data"`              // Sealed.data
	KeyID        uint64       `json:"key_id,omitempty"`  // of Sealed
	Nonce        []byte       `json:"nonce,omitempty"`   // of Sealed
	ReplyTo      id.MessageID `json:"reply_to,omitzero"` // zero: none
	ReplyAuthor  id.UserID    `json:"reply_author,omitzero"`
	DirectPeer   id.UserID    `json:"peer,omitzero"`      // of a direct thread
	ClientTimeMS int64        `json:"client_time,string"` // when it was written
}

// Reply is the message that it answers. Its author is zero in what a version before MessageRef put into the outbox.
func (o Outgoing) Reply() event.MessageRef {
	return event.MessageRef{Author: o.ReplyAuthor, ID: o.ReplyTo}
}

// Saved is what a Store holds.
type Saved struct {
	// Identity without a user: not registered; with a key, the one that a PIN was asked for with.
	Identity Identity
	// Watermarks are the device's own per thread; Delivered is its cursor.
	Watermarks map[id.ThreadID]thread.Watermark
	// Outbox is in the order of Put.
	Outbox []Outgoing
	// Acked and Unsent are those of an UnsentStore, in the order of the calls.
	Acked  []Acked
	Unsent []Unsent
	// Receipts are those of a ReceiptStore.
	Receipts map[id.ThreadID]*Receipts
}

// Store keeps what a device must not lose. One Client uses it at a time; calls may be concurrent. What a call has
// returned nil for survives the process being killed (FileStore) or lives as long as the process (MemoryStore).
type Store interface {
	// Load returns everything; it is called once, first.
	Load() (Saved, error)
	// SetIdentity replaces the identity. Another user's cursors and outbox are dropped.
	SetIdentity(Identity) error
	// SetWatermark replaces the watermark of a thread.
	SetWatermark(id.ThreadID, thread.Watermark) error
	// Put adds a message to the outbox.
	Put(Outgoing) error
	// Drop removes a message from the outbox; an unknown one is no error.
	Drop(id.MessageID) error
	// Close releases the store.
	Close() error
}

// MemoryStore is a Store for tests, bots that may forget, and load generators.
type MemoryStore struct {
	mu    sync.Mutex // guards saved
	saved Saved
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore {
	return &MemoryStore{saved: Saved{Watermarks: map[id.ThreadID]thread.Watermark{}}}
}

// Load returns a copy of everything.
func (m *MemoryStore) Load() (Saved, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saved.clone(), nil
}

// SetIdentity replaces the identity.
func (m *MemoryStore) SetIdentity(i Identity) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.setIdentity(i)
	return nil
}

func (s *Saved) clone() Saved {
	out := *s
	out.Watermarks, out.Outbox = maps.Clone(s.Watermarks), slices.Clone(s.Outbox)
	out.Acked, out.Unsent = slices.Clone(s.Acked), slices.Clone(s.Unsent)
	out.Receipts = copyReceipts(s.Receipts)
	return out
}

func (s *Saved) setIdentity(i Identity) {
	if s.Identity.User != i.User || s.Identity.Device != i.Device {
		*s = Saved{Watermarks: map[id.ThreadID]thread.Watermark{}}
	}
	s.Identity = i
}

// SetWatermark replaces the watermark of a thread.
func (m *MemoryStore) SetWatermark(t id.ThreadID, w thread.Watermark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.Watermarks[t] = w
	return nil
}

// SetReceipt replaces the watermark of a user in a thread.
func (m *MemoryStore) SetReceipt(t id.ThreadID, u id.UserID, w thread.Watermark) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.receiptsOf(t).Marks[u] = w
	return nil
}

// SetOwn replaces the ordinal of the user's last message in a thread.
func (m *MemoryStore) SetOwn(t id.ThreadID, ordinal int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.receiptsOf(t).Own = ordinal
	return nil
}

// Put adds a message to the outbox.
func (m *MemoryStore) Put(o Outgoing) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.Outbox = append(m.saved.Outbox, o)
	return nil
}

// Drop removes a message from the outbox.
func (m *MemoryStore) Drop(x id.MessageID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.drop(x)
	return nil
}

// Acked notes that the log has a message of the outbox.
func (m *MemoryStore) Acked(x id.MessageID, at topic.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.ack(x, at)
	return nil
}

// Refuse notes that a message was not taken.
func (m *MemoryStore) Refuse(x id.MessageID, c wirev1.Code, reason string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved.refuse(x, refusal{c, reason})
	return nil
}

func (s *Saved) ack(x id.MessageID, at topic.Position) {
	if o, ok := s.drop(x); ok {
		s.Acked = append(s.Acked, Acked{Outgoing: o, At: at})
	}
}

func (s *Saved) refuse(x id.MessageID, why refusal) {
	if o, ok := s.drop(x); ok {
		s.Unsent = append(s.Unsent, Unsent{Outgoing: o, Code: why.Code, Reason: why.Reason})
	}
}

// drop takes a message out, wherever it is.
func (s *Saved) drop(x id.MessageID) (Outgoing, bool) {
	// The oldest is nearly always the one that is answered.
	for i, o := range s.Acked {
		if o.ID == x {
			s.Acked = slices.Delete(s.Acked, i, i+1)
			return o.Outgoing, true
		}
	}
	for i, o := range s.Outbox {
		if o.ID == x {
			s.Outbox = slices.Delete(s.Outbox, i, i+1)
			return o, true
		}
	}
	for i, u := range s.Unsent {
		if u.ID == x {
			s.Unsent = slices.Delete(s.Unsent, i, i+1)
			return u.Outgoing, true
		}
	}
	return Outgoing{}, false
}

// Close does nothing: the store can be used by a further Client.
func (m *MemoryStore) Close() error { return nil }

// FileStore is a Store in one file: a journal of JSON lines that is rewritten when most of it is history. Identity and
// outbox are synced to disk before a call returns; watermarks and receipts are written but not synced, since after a
// power loss the server repeats what it does not know to be delivered.
type FileStore struct {
	path string

	mu    sync.Mutex // guards all below
	file  *os.File
	saved Saved
	lines int   // written to file
	size  int64 // of its whole lines
}

// ErrLocked is returned when another process uses the file.
var ErrLocked = errors.New("the device's file is in use by another process")

// receipt is a user's watermark.
type receipt struct {
	User id.UserID        `json:"user"`
	Mark thread.Watermark `json:"mark"`
}

// refusal is why a message was not taken.
type refusal struct {
	Code   wirev1.Code `json:"code"`
	Reason string      `json:"reason,omitempty"`
}

// record is a line of the journal; exactly one field is set, besides the thread that it is about. Acked and Refused
// come with Drop, which is what a version that does not know them makes of it: it sends the message no more.
type record struct {
	Identity  *Identity         `json:"identity,omitempty"`
	Thread    *id.ThreadID      `json:"thread,omitempty"`
	Watermark *thread.Watermark `json:"watermark,omitempty"`
	Receipt   *receipt          `json:"receipt,omitempty"`
	Own       *int64            `json:"own,omitempty"`
	Put       *Outgoing         `json:"put,omitempty"`
	Drop      *id.MessageID     `json:"drop,omitempty"`
	Acked     bool              `json:"acked,omitempty"`
	At        *topic.Position   `json:"at,omitempty"` // of Acked; nil in what a version before it wrote
	Refused   *refusal          `json:"refused,omitempty"`
}

// OpenFileStore opens or creates the file, readable by its owner only, and locks it.
func OpenFileStore(path string) (*FileStore, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("device file: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("device file: %w", err)
	}
	if err := lock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("device file %s: %w", path, err), f.Close())
	}
	// The owner may have moved a rewritten file into place between the opening and the lock; the lock on the old one
	// means nothing.
	mine, err := f.Stat()
	now, err2 := os.Stat(path)
	if err := errors.Join(err, err2); err != nil {
		return nil, errors.Join(fmt.Errorf("device file: %w", err), f.Close())
	}
	if !os.SameFile(mine, now) {
		return nil, errors.Join(fmt.Errorf("device file %s: %w", path, ErrLocked), f.Close())
	}
	s := &FileStore{path: path, file: f, saved: Saved{Watermarks: map[id.ThreadID]thread.Watermark{}}}
	if err := s.replay(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// replay reads the journal. A line that was cut by a crash can only be the last one: it is cut off. Any other bad line
// is an error.
func (s *FileStore) replay() error {
	r := bufio.NewReader(s.file)
	var good int64
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read device file: %w", err)
		}
		var rec record
		if err := json.Unmarshal(line, &rec); err != nil {
			return fmt.Errorf("device file %s is damaged at byte %d: %w", s.path, good, err)
		}
		s.saved.apply(rec)
		s.lines++
		good += int64(len(line))
	}
	if err := s.file.Truncate(good); err != nil {
		return fmt.Errorf("cut device file: %w", err)
	}
	if _, err := s.file.Seek(good, io.SeekStart); err != nil {
		return fmt.Errorf("seek device file: %w", err)
	}
	s.size = good
	return nil
}

func (s *Saved) apply(r record) {
	switch {
	case r.Identity != nil:
		s.setIdentity(*r.Identity)
	case r.Watermark != nil && r.Thread != nil:
		s.Watermarks[*r.Thread] = *r.Watermark
	case r.Receipt != nil && r.Thread != nil:
		s.receiptsOf(*r.Thread).Marks[r.Receipt.User] = r.Receipt.Mark
	case r.Own != nil && r.Thread != nil:
		s.receiptsOf(*r.Thread).Own = *r.Own
	case r.Put != nil:
		s.Outbox = append(s.Outbox, *r.Put)
	case r.Drop != nil && r.Acked && r.At != nil:
		s.ack(*r.Drop, *r.At)
	case r.Drop != nil && r.Acked:
		s.ack(*r.Drop, -1)
	case r.Drop != nil && r.Refused != nil:
		s.refuse(*r.Drop, *r.Refused)
	case r.Drop != nil:
		s.drop(*r.Drop)
	}
}

func (s *FileStore) write(r record, sync bool) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode device record: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.file.WriteAt(append(line, '\n'), s.size)
	if err != nil {
		return fmt.Errorf("write device file: %w", err) // the next line overwrites what was written of this one
	}
	s.size += int64(n)
	if sync {
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("sync device file: %w", err)
		}
	}
	s.saved.apply(r)
	s.lines++
	if s.lines <= 10_000 || s.lines%1000 != 0 {
		return nil
	}
	live := len(s.saved.Watermarks) + len(s.saved.Outbox) + 2*len(s.saved.Acked) + 2*len(s.saved.Unsent) + 1
	for _, r := range s.saved.Receipts {
		live += len(r.Marks) + 1
	}
	if s.lines > 10*live {
		return s.compact()
	}
	return nil
}

// compact rewrites the file beside itself and moves it into place, so that a crash leaves the old or the new one.
func (s *FileStore) compact() error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	lines := 0
	add := func(r record) error { lines++; return enc.Encode(r) }
	err := add(record{Identity: &s.saved.Identity})
	for t, w := range s.saved.Watermarks {
		err = errors.Join(err, add(record{Thread: &t, Watermark: &w}))
	}
	for t, r := range s.saved.Receipts {
		err = errors.Join(err, add(record{Thread: &t, Own: &r.Own}))
		for u, w := range r.Marks {
			err = errors.Join(err, add(record{Thread: &t, Receipt: &receipt{u, w}}))
		}
	}
	for _, o := range s.saved.Outbox {
		err = errors.Join(err, add(record{Put: &o}))
	}
	for _, o := range s.saved.Acked {
		err = errors.Join(err, add(record{Put: &o.Outgoing}), add(record{Drop: &o.ID, Acked: true, At: &o.At}))
	}
	for _, u := range s.saved.Unsent {
		why := refusal{u.Code, u.Reason}
		err = errors.Join(err, add(record{Put: &u.Outgoing}), add(record{Drop: &u.ID, Refused: &why}))
	}
	if err != nil {
		return fmt.Errorf("encode device file: %w", err)
	}
	tmp, err := os.OpenFile(s.path+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("rewrite device file: %w", err)
	}
	_, err = tmp.Write(buf.Bytes())
	if err == nil {
		err = tmp.Sync()
	}
	if err == nil {
		err = lock(tmp)
	}
	if err == nil {
		err = os.Rename(s.path+".new", s.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rewrite device file: %w", err), tmp.Close())
	}
	old := s.file
	s.file, s.lines, s.size = tmp, lines, int64(buf.Len())
	if err := old.Close(); err != nil {
		return fmt.Errorf("close old device file: %w", err)
	}
	return nil
}

// Load returns everything.
func (s *FileStore) Load() (Saved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saved.clone(), nil
}

// SetIdentity replaces the identity.
func (s *FileStore) SetIdentity(i Identity) error { return s.write(record{Identity: &i}, true) }

// SetWatermark replaces the watermark of a thread.
func (s *FileStore) SetWatermark(t id.ThreadID, w thread.Watermark) error {
	return s.write(record{Thread: &t, Watermark: &w}, false)
}

// SetReceipt replaces the watermark of a user in a thread.
func (s *FileStore) SetReceipt(t id.ThreadID, u id.UserID, w thread.Watermark) error {
	return s.write(record{Thread: &t, Receipt: &receipt{u, w}}, false)
}

// SetOwn replaces the ordinal of the user's last message in a thread.
func (s *FileStore) SetOwn(t id.ThreadID, ordinal int64) error {
	return s.write(record{Thread: &t, Own: &ordinal}, false)
}

// Put adds a message to the outbox.
func (s *FileStore) Put(o Outgoing) error { return s.write(record{Put: &o}, true) }

// Acked notes that the log has a message of the outbox.
func (s *FileStore) Acked(x id.MessageID, at topic.Position) error {
	return s.write(record{Drop: &x, Acked: true, At: &at}, false)
}

// Refuse notes that a message was not taken.
func (s *FileStore) Refuse(x id.MessageID, c wirev1.Code, reason string) error {
	return s.write(record{Drop: &x, Refused: &refusal{c, reason}}, true)
}

// Drop removes a message from the outbox.
func (s *FileStore) Drop(x id.MessageID) error { return s.write(record{Drop: &x}, false) }

// Close closes the file.
func (s *FileStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.file.Close(); err != nil {
		return fmt.Errorf("close device file: %w", err)
	}
	return nil
}
