package link

import (
	"errors"
	"fmt"

	linkv1 "heliograph/schemas/link/v1"
	"heliograph/schemas/topic"
)

// maxEntries bounds the entries of a cursor that comes over a link: more topics than there will ever be.
const maxEntries = 64

// EncodeCursor writes a cursor in both forms, for peers of this version and of the first (link.proto section 7).
func EncodeCursor(c topic.Cursor) *linkv1.Cursor {
	b := linkv1.Cursor_builder{
		Threads: int64(c.At(topic.Threads)), Receipts: int64(c.At(topic.Receipts)), Users: int64(c.At(topic.Users)),
		Entries: make([]*linkv1.CursorEntry, 0, len(c)),
	}
	for i, at := range c {
		if at != 0 {
			b.Entries = append(b.Entries, linkv1.CursorEntry_builder{
				Topic: topic.Folded[i].Number(), Position: int64(at),
			}.Build())
		}
	}
	return b.Build()
}

// DecodeCursor reads a cursor of either form; nil is the beginning. Topics that this version does not fold are passed
// over.
func DecodeCursor(m *linkv1.Cursor) topic.Cursor {
	var c topic.Cursor
	entries := m.GetEntries()
	if len(entries) == 0 {
		c.Set(topic.Threads, topic.Position(m.GetThreads()))
		c.Set(topic.Receipts, topic.Position(m.GetReceipts()))
		c.Set(topic.Users, topic.Position(m.GetUsers()))
		return c
	}
	for _, e := range entries {
		t, err := topic.FromNumber(e.GetTopic())
		if err != nil {
			continue // of a later version
		}
		if i, ok := t.Place(); ok {
			c[i] = topic.Position(e.GetPosition())
		}
	}
	return c
}

// checkCursor refuses what no peer of any version writes.
func checkCursor(m *linkv1.Cursor) error {
	if min(m.GetThreads(), m.GetReceipts(), m.GetUsers()) < 0 {
		return errors.New("negative position")
	}
	entries := m.GetEntries()
	if len(entries) > maxEntries {
		return fmt.Errorf("cursor of %d entries", len(entries))
	}
	for i, e := range entries {
		if e.GetPosition() < 0 {
			return errors.New("negative position")
		}
		for _, before := range entries[:i] {
			if before.GetTopic() == e.GetTopic() {
				return fmt.Errorf("topic %d twice in a cursor", e.GetTopic())
			}
		}
	}
	return nil
}
