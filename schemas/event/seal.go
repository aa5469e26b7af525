package event

import (
	"crypto/sha256"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// AssociatedData returns the bytes that an end-to-end seal authenticates beside the content (Sealed with
// SCHEME_AES_256_GCM): a label, the thread, the author and the message.
func AssociatedData(t id.ThreadID, m MessageRef) []byte { return place("helio/sealed/1\x00", t, m) }

// EditAssociatedData is AssociatedData for the content of an edit, so that it never passes for the message's own.
func EditAssociatedData(t id.ThreadID, m MessageRef) []byte { return place("helio/edited/1\x00", t, m) }

// Commitment returns the commitment to an encoded Content with a nonce (see MessageSent.commitment), given what its
// seal authenticates beside it. Whoever shows the content proves what the message said.
func Commitment(associated, content []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte("helio/commitment/1\x00"))
	h.Write(associated)
	h.Write(content)
	return [sha256.Size]byte(h.Sum(nil))
}

// Approval returns the bytes that a device signs with its Ed25519 key when it approves a further one
// (DeviceLinked.approval).
func Approval(u id.UserID, by id.DeviceID, byKey []byte, linked id.DeviceID, key []byte) []byte {
	out := append([]byte("helio/1 link\x00"), u[:]...)
	out = append(append(out, by[:]...), byKey...)
	return append(append(out, linked[:]...), key...)
}

// DeploymentSubject is the subject of DeploymentPolicyChanged: no user's and no thread's.
func DeploymentSubject() topic.Subject {
	sum := sha256.Sum256([]byte("helio/deployment/1"))
	s := topic.Subject(sum[:id.Size])
	s[6], s[8] = s[6]&0x0f|0x80, s[8]&0x3f|0x80 // RFC 9562 section 5.8
	return s
}

// StoredAssociatedData returns the bytes that encryption at rest authenticates beside an encoded Sealed (Stored): the
// same under a label of its own, so that bytes of one layer never pass for the other's.
func StoredAssociatedData(t id.ThreadID, m MessageRef) []byte {
	return place("helio/stored/1\x00", t, m)
}

func place(label string, t id.ThreadID, m MessageRef) []byte {
	out := make([]byte, 0, len(label)+3*id.Size)
	out = append(out, label...)
	out = append(out, t[:]...)
	out = append(out, m.Author[:]...)
	return append(out, m.ID[:]...)
}
