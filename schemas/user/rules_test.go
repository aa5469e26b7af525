package user_test

import (
	"testing"

	"heliograph/schemas/event"
	"heliograph/schemas/user"
)

// A limit that is raised without a number of its own would rewrite what old events meant.
func TestRulesAreFrozen(t *testing.T) {
	want := map[uint32]user.Rules{
		1: {MaxName: 64, MaxDevices: 16}, 2: {MaxName: 64, MaxDevices: 16},
		3: {
			MaxName: 512, MaxDevices: 16, MaxThreads: 10_000, MaxInvitations: 1000, MaxTitle: 1024, Separators: true,
		},
	}
	if len(want) != event.CurrentRules {
		t.Fatalf("rules %d are the current ones: freeze them here", event.CurrentRules)
	}
	for n, w := range want {
		if got := *user.RulesOf(n); got != w {
			t.Errorf("rules %d are %+v, want %+v", n, got, w)
		}
	}
	if now := user.RulesOf(event.CurrentRules); now.MaxName != user.MaxName || now.MaxDevices != user.MaxDevices ||
		now.MaxThreads != user.MaxThreads {
		t.Error("the limits that writers keep to are not those of the current rules")
	}
}
