package event

import (
	"fmt"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// ReceiptKey is the key of a record of helio.receipts, which is compacted by it: thread, device, user. The user is in
// it because a device id is only its user's word: another's receipt under the same device id must not replace his.
func ReceiptKey(t id.ThreadID, d id.DeviceID, u id.UserID) []byte {
	out := make([]byte, 0, 3*id.Size)
	out = append(out, t[:]...)
	out = append(out, d[:]...)
	return append(out, u[:]...)
}

// Key is a record's key, read.
type Key struct {
	Subject topic.Subject
	// Device and User are a receipt's; User is zero in keys of versions that wrote thread and device alone.
	Device id.DeviceID
	User   id.UserID
}

// ParseKey reads the key of a record of a topic: 16 bytes, and of a receipt 48, or 32 in records of versions before.
func ParseKey(t topic.Topic, key []byte) (Key, error) {
	var k Key
	switch {
	case t != topic.Receipts && len(key) == id.Size:
	case t == topic.Receipts && (len(key) == 3*id.Size || len(key) == 2*id.Size):
		copy(k.Device[:], key[id.Size:])
		copy(k.User[:], key[2*id.Size:])
	case t == topic.Receipts:
		return k, fmt.Errorf("the key has %d bytes instead of %d", len(key), 3*id.Size)
	default:
		return k, fmt.Errorf("the key has %d bytes instead of %d", len(key), id.Size)
	}
	copy(k.Subject[:], key)
	return k, nil
}
