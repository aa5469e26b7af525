package session

import "testing"

func TestKindName(t *testing.T) {
	for n, want := range map[int]string{
		2: "hello", 24: "get_views", 0: "unknown", 1: "unknown", -1: "unknown", 9999: "unknown",
	} {
		if got := kindName(n); got != want {
			t.Errorf("body %d: got %q, want %q", n, got, want)
		}
	}
}
