package topic

import (
	"crypto/sha256"
	"encoding/binary"
)

// Mark is the identity of the record right before a next position: by it, whoever comes back to the position can tell
// whether the log is still the one that he read. A part that is zero is not known, and says nothing.
type Mark struct {
	// Log is Kafka's id of the topic (KIP-516), which another topic of the same name does not have.
	Log [16]byte
	// Digest is the record's.
	Digest uint64
}

// Digest returns the first 8 bytes, big endian, of SHA-256 over the length of a record's key (4 bytes, big endian), its
// key and its value. It is never 0. Frozen: it is stored. The record's time is not in it: who appends it is not told
// the one that the log gave it.
func Digest(key, value []byte) uint64 {
	h := sha256.New()
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(key)))
	h.Write(head[:])
	h.Write(key)
	h.Write(value)
	var sum [sha256.Size]byte
	return max(1, binary.BigEndian.Uint64(h.Sum(sum[:0])))
}
