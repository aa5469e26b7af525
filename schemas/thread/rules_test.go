package thread_test

import (
	"testing"

	"heliograph/schemas/event"
	"heliograph/schemas/thread"
)

// A limit that is raised without a number of its own would rewrite what old events meant. These are the rules that are
// in logs out there.
func TestRulesAreFrozen(t *testing.T) {
	want := map[uint32]thread.Rules{
		1: {MaxMembers: 1024, MaxText: 65_536, MaxSealed: 66_560, MaxNonce: 32, MaxTitle: 256, MaxEmoji: 64},
		2: {
			MaxMembers: 1024, MaxSealed: 66_560, MaxNonce: 32, MaxTitle: 256, MaxEmoji: 64,
			MaxMentions: 64, MaxBlobs: 32, MaxExpire: 31_536_000,
		},
	}
	if len(want) != event.CurrentRules {
		t.Fatalf("rules %d are the current ones: freeze them here", event.CurrentRules)
	}
	for n, w := range want {
		if got := *thread.RulesOf(n); got != w {
			t.Errorf("rules %d are %+v, want %+v", n, got, w)
		}
	}
	now := thread.RulesOf(event.CurrentRules)
	if now.MaxMembers != thread.MaxMembers || now.MaxSealed != thread.MaxSealed || now.MaxTitle != thread.MaxTitle ||
		now.MaxEmoji != thread.MaxEmoji {
		t.Error("the limits that writers keep to are not those of the current rules")
	}
}
