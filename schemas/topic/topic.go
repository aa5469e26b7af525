// Package topic names the topics of the log and the places in it: slots and positions.
//
// Every topic has the same number P of partitions, and slot p is partition p of every topic; an event lies in the slot
// of its subject. P is chosen once for a deployment. Within one (topic, slot) positions grow and are the order of
// events; across slots there is no order.
//
// Non-obvious:
//   - SlotOf is ours and frozen by testdata/slots.json: it never changes, or every stored position loses its meaning.
//   - A position is base + Kafka offset. base is 0 save in a log that was restored or resharded.
//   - Positions are not dense in a thread: other threads share the slot. Ordinals are.
package topic

import (
	"encoding/binary"
	"fmt"
)

// Topic is the name of an event topic as the design writes it; a deployment may put a prefix of its own in front (see
// infra/kafka).
type Topic string

// The topics of the log.
const (
	Threads    Topic = "helio.threads"
	Receipts   Topic = "helio.receipts"
	Users      Topic = "helio.users"
	Presence   Topic = "helio.presence"
	Quarantine Topic = "helio.quarantine"
)

// All lists every topic, in the order in which they are created.
var All = []Topic{Threads, Receipts, Users, Presence, Quarantine}

// Number is the small number by which the link protocol and the stores name a topic. It is never reused.
func (t Topic) Number() int32 {
	switch t {
	case Threads:
		return 1
	case Receipts:
		return 2
	case Users:
		return 3
	case Presence:
		return 4
	case Quarantine:
		return 5
	}
	return 0
}

// FromNumber is the inverse of Number.
func FromNumber(n int32) (Topic, error) {
	for _, t := range All {
		if t.Number() == n {
			return t, nil
		}
	}
	return "", fmt.Errorf("unknown topic number %d", n)
}

// Slot is a number below P: the partition in which a subject's events lie, in every topic.
type Slot int32

// Position is the place of an event in its (topic, slot): base + Kafka offset. The position after the last event,
// called "next", says that everything before it has been taken in.
type Position int64

// DefaultPartitions is P in the embedded default.
const DefaultPartitions = 16

// MaxPartitions bounds P.
const MaxPartitions = 1 << 14

// Subject is what an event is about and is keyed by: a thread's or a user's id.
type Subject [16]byte

// SlotOf returns the slot of a subject among p slots: FNV-1a (64 bits) over the 16 bytes, mixed by the MurmurHash3
// finaliser, modulo p. The mix matters because the low bits of FNV alone follow the last byte. Panics when p is not in
// 1..MaxPartitions: P is checked at start.
func SlotOf(subject Subject, p int) Slot {
	if p < 1 || p > MaxPartitions {
		panic(fmt.Sprintf("topic: %d partitions", p))
	}
	h := uint64(14695981039346656037)
	for _, b := range subject {
		h ^= uint64(b)
		h *= 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return Slot(h % uint64(p))
}

// BaseHeader is the record header of a partition's first record that carries its base (8 bytes, big endian); without it
// the base is 0.
const BaseHeader = "helio-base"

// ParseBase reads the value of a BaseHeader.
func ParseBase(v []byte) (Position, error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("base header of %d bytes instead of 8", len(v))
	}
	n := binary.BigEndian.Uint64(v)
	if n > 1<<62 {
		return 0, fmt.Errorf("base %d is out of range", n)
	}
	return Position(n), nil
}
