package topic

import "testing"

// TestDigestIsFrozen: marks are stored, so what they are made of never changes.
func TestDigestIsFrozen(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       uint64
	}{
		{"", "", 0xdf3f619804a92fdb},
		{"k", "v", 0xdcebe451747903d8},
		{"kv", "", 0x6ee09e334ed2817d},
	} {
		if got := Digest([]byte(c.key), []byte(c.value)); got != c.want {
			t.Errorf("Digest(%q, %q) = %#x, want %#x", c.key, c.value, got, c.want)
		}
	}
}
