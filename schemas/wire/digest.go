package wire

import (
	"encoding/binary"

	"heliograph/schemas/id"
)

// Digest is what a device says of the watermarks that it has in a thread (wire 12.3): the sum of what Of makes of each
// member's, so that their order does not matter. 0: it has none.
type Digest uint64

// Of is the digest of one member's watermark: its ordinals, each counted up to upTo, which is the ordinal of the device
// user's last message; 0 counts them as they are. One that covers nothing counts as 0.
func Of(u id.UserID, delivered, read, upTo int64) Digest {
	if upTo > 0 {
		delivered, read = min(delivered, upTo), min(read, upTo)
	}
	if delivered <= 0 && read <= 0 {
		return 0
	}
	b := make([]byte, 0, len(u)+16)
	b = append(b, u[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(delivered))
	b = binary.BigEndian.AppendUint64(b, uint64(read))
	h := uint64(14695981039346656037) // FNV-1a of 64 bits
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd // mixed, so that sums do not meet by chance
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return Digest(h ^ h>>33)
}
