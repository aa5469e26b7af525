package main

import "testing"

func TestFloodIsOver(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		live, room, free uint64
		want             bool
	}{
		"after a flood of handshakes": {30 * mb, 10 * mb, 1000 * mb, true},
		"while it lasts":              {600 * mb, 2000 * mb, 400 * mb, false},
		"work that allocates much":    {100 * mb, 500 * mb, 400 * mb, false},
		"hardly anything is free":     {10 * mb, mb, 40 * mb, false},
		"less than what lives":        {900 * mb, 10 * mb, 300 * mb, false},
	} {
		if got := floodIsOver(c.live, c.room, c.free); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
