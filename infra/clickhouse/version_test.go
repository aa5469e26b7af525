package clickhouse

import "testing"

func TestOlderVersion(t *testing.T) {
	for _, c := range []struct {
		have, want string
		older      bool
	}{
		{"24.8.14.39", "26.2", true},
		{"26.1.9.1", "26.2", true},
		{"26.2.1.1", "26.2", false},
		{"26.5.3.1", "26.2", false},
		{"26.10.1.1", "26.2", false},
		{"27.1", "26.2", false},
		{"26", "26.2", true},
	} {
		if got := olderVersion(c.have, c.want); got != c.older {
			t.Errorf("olderVersion(%q, %q) = %v, want %v", c.have, c.want, got, c.older)
		}
	}
}

func TestMinVersion(t *testing.T) {
	if got := minVersion("-- min-version: 26.2\nALTER"); got != "26.2" {
		t.Errorf("got %q, want 26.2", got)
	}
	if got := minVersion("-- Messages.\n-- min-version: 26.2"); got != "" {
		t.Errorf("a later line counts: %q", got)
	}
}
