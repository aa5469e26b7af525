package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// What the flags of helio log tail ask for.
func TestTailFlags(t *testing.T) {
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	at := func(ago time.Duration) *time.Time { t := now.Add(-ago); return &t }
	subject := topic.Subject{1, 15: 2}
	for name, c := range map[string]struct {
		cmd  tailCmd
		want operator.Tail
		err  bool
	}{
		"nothing": {cmd: tailCmd{N: 20, Follow: true}, want: operator.Tail{Last: 20, Follow: true}},
		"a subject": {
			cmd: tailCmd{Subject: "01000000-0000-0000-0000-000000000002"}, want: operator.Tail{Subject: &subject},
		},
		"the start": {cmd: tailCmd{Since: "start"}, want: operator.Tail{Since: &time.Time{}}},
		"a while":   {cmd: tailCmd{Since: "90m"}, want: operator.Tail{Since: at(90 * time.Minute)}},
		"a time":    {cmd: tailCmd{Since: "2026-03-14T11:00:00Z"}, want: operator.Tail{Since: at(time.Hour)}},
		"a place": {
			cmd: tailCmd{From: "3:1200"}, want: operator.Tail{From: &operator.From{Slot: 3, Position: 1200}},
		},
		"no place":        {cmd: tailCmd{From: "3:1xyz"}, err: true},
		"no slot":         {cmd: tailCmd{From: ":1"}, err: true},
		"no time":         {cmd: tailCmd{Since: "yesterday"}, err: true},
		"no subject":      {cmd: tailCmd{Subject: "ann"}, err: true},
		"fewer than none": {cmd: tailCmd{N: -1}, err: true},
	} {
		t.Run(name, func(t *testing.T) {
			c.cmd.Topic, c.want.Topic = "threads", topic.Threads
			got, err := c.cmd.tail(now)
			if c.err {
				if err == nil {
					t.Errorf("got %+v, want a refusal", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("tail (-want +got):\n%s", diff)
			}
		})
	}
}
