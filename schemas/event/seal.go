package event

import "heliograph/schemas/id"

// AssociatedData returns the bytes that an end-to-end seal authenticates beside the content (Sealed with
// SCHEME_AES_256_GCM): a label, the thread, the author and the message. An edit has the message's.
func AssociatedData(t id.ThreadID, m MessageRef) []byte { return place("helio/sealed/1\x00", t, m) }

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
