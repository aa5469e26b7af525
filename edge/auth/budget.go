package auth

import (
	"context"
	"time"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Spending is what a user does of which there is so much in a day, over all edges: each costs an event that is kept for
// ever, and most are pushed to others.
type Spending string

// What a user may do so often.
const (
	Groups    Spending = "groups"    // groups created
	Additions Spending = "additions" // users put into groups, or invited
	Changes   Spending = "changes"   // of groups: removals, leavings, roles, titles; invitations answered or withdrawn
	Profile   Spending = "profile"   // changes of the own profile, devices linked
	Settings  Spending = "settings"  // blocks, and who may add
)

func (c *Config) spending(what Spending) (r Rate, closed bool) {
	switch what {
	case Groups:
		return c.GroupsPerUser, true
	case Additions:
		return c.AdditionsPerUser, true
	case Changes:
		return c.ChangesPerUser, false
	case Settings:
		return c.SettingsPerUser, false
	}
	return c.ProfilesPerUser, false
}

// Spend takes n of what a user may do in a day. A refusal (CODE_RATE_LIMITED) says when there is more. While the
// budgets cannot be read, nobody creates groups, adds to them or invites, which needs the store anyhow
// (CODE_UNAVAILABLE); who wants to leave a group, or to remove or block somebody, is let.
func (a *Auth) Spend(ctx context.Context, u id.UserID, what Spending, n int) error {
	rate, closed := a.cfg.spending(what)
	ok, retry, err := a.limiter.Take(ctx, "user:"+string(what)+":"+u.String(), rate, n)
	switch {
	case err != nil && closed:
		return a.unavailable("budget", err)
	case err != nil:
		a.metrics.refused.WithLabelValues("budget_unknown").Inc()
		return nil //nolint:nilerr // to leave, to remove and to block is let while nothing is known
	case !ok:
		a.metrics.refused.WithLabelValues("budget_" + string(what)).Inc()
		return &wire.Error{
			Code:       wirev1.Code_CODE_RATE_LIMITED,
			Message:    "as many " + string(what) + " as in a day were made",
			RetryAfter: max(retry, time.Second),
		}
	}
	return nil
}
