package auth

import (
	"testing"
	"time"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestSpendIsOfAllEdges: what a user may do in a day he may do once, whichever edges he asks; and without the store he
// may leave, remove and block, not create and add.
func TestSpendIsOfAllEdges(t *testing.T) {
	day := Rate{Burst: 4, Per: 24 * time.Hour}
	w := newWorld(t, Config{
		GroupsPerUser: day, AdditionsPerUser: day, ChangesPerUser: day, ProfilesPerUser: day, SettingsPerUser: day,
	})
	other := *w.Auth // an edge beside it: all that they share is the store
	ann, bob := id.User(testKey, number, 1), id.User(testKey, number, 2)
	for _, what := range []Spending{Groups, Additions, Changes, Profile, Settings} {
		for k := range 2 {
			for _, edge := range []*Auth{w.Auth, &other} {
				if err := edge.Spend(t.Context(), ann, what, 1); err != nil {
					t.Errorf("%s %d: %v", what, k, err)
				}
			}
		}
		for _, edge := range []*Auth{w.Auth, &other} {
			wantCode(t, edge.Spend(t.Context(), ann, what, 1), wirev1.Code_CODE_RATE_LIMITED)
		}
		if err := w.Spend(t.Context(), bob, what, 4); err != nil {
			t.Errorf("%s of another user: %v", what, err)
		}
	}
	w.pool.Close()
	for what, closed := range map[Spending]bool{
		Groups: true, Additions: true, Changes: false, Profile: false, Settings: false,
	} {
		err := w.Spend(t.Context(), ann, what, 1)
		if closed {
			wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
		} else if err != nil {
			t.Errorf("%s without the store: %v", what, err)
		}
	}
}
