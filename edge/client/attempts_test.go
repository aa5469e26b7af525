package client

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// The waits between attempts by what happened so far. After an outage, however long, a device is live within ten
// seconds: it asks an address that says nothing at least each five and four of them, and begins anew with its waits
// once something answers. One that is refused waits for longer and longer.
func TestWaitsAfterOutages(t *testing.T) {
	silent := unreached{fmt.Errorf("connect: %w", &quic.IdleTimeoutError{}), true}
	refused := unreached{errors.New("refused"), false}
	full := &wire.Error{Code: wirev1.Code_CODE_UNAVAILABLE}
	again := func(n int, err error) (out []error) {
		for range n {
			out = append(out, err)
		}
		return out
	}
	answers := append(again(50, silent), full)
	for name, tc := range map[string]struct {
		ends       []error
		lived      time.Duration // of the last
		background bool
		least      time.Duration // half of the bound is the least, the bound the most
	}{
		"nothing answers yet": {ends: again(2, silent), least: 100 * time.Millisecond},
		"nothing answers":     {ends: again(50, silent), least: 2 * time.Second},
		"nothing answers, and nobody looks": {
			ends: again(50, silent), background: true, least: 7500 * time.Millisecond,
		},
		"an edge answers after a silence": {ends: answers, least: 50 * time.Millisecond},
		"it goes on to refuse":            {ends: append(answers, again(4, full)...), least: 800 * time.Millisecond},
		"a router refuses after a silence": {
			ends: append(again(50, silent), refused), least: 7500 * time.Millisecond,
		},
		"an edge answers and falls silent": {
			ends: append(again(50, silent), errSlow), least: 7500 * time.Millisecond,
		},
		"an edge refuses again and again": {ends: again(50, full), least: 7500 * time.Millisecond},
		"a connection that was good":      {ends: again(50, full), lived: time.Minute, least: 50 * time.Millisecond},
		"a connection that was short": {
			ends: again(50, full), lived: time.Second, least: 7500 * time.Millisecond,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(Config{Addrs: []string{"edge:1"}})
			must(t, err)
			if tc.background {
				c.Background()
			}
			var a attempts
			for i, end := range tc.ends {
				if i > 0 {
					a.n++
				}
				lived := time.Duration(0)
				if i == len(tc.ends)-1 {
					lived = tc.lived
				}
				a.ended(lived, end)
			}
			for range 20 {
				if got := c.wait(a, nil); got < tc.least || got > 2*tc.least {
					t.Fatalf("a wait of %v, want %v to %v", got, tc.least, 2*tc.least)
				}
			}
		})
	}
}

// The patience with an edge grows while it falls silent before it has answered all, and is the first again once it has.
func TestPatience(t *testing.T) {
	var a attempts
	for i, tc := range []struct {
		end  error
		want time.Duration
	}{
		{errSilent, 4 * time.Second}, // a live one that has died says nothing of how slow it is
		{errSlow, 8 * time.Second},
		{unreached{&quic.IdleTimeoutError{}, true}, 8 * time.Second},
		{errSlow, 16 * time.Second},
		{errSlow, 16 * time.Second},
		{&wire.Error{Code: wirev1.Code_CODE_DRAINING}, 4 * time.Second},
	} {
		a.ended(0, tc.end)
		if got := a.patience(4 * time.Second); got != tc.want {
			t.Errorf("after attempt %d: %v, want %v", i, got, tc.want)
		}
	}
}
