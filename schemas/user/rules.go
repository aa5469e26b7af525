package user

import (
	"crypto/ed25519"
	"fmt"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
)

// Rules are the limits by which an event is judged whose envelope carries their number. A row never changes: what is
// in the log was judged by it. A new limit is a new row, and event.CurrentRules is raised with it; but one that only a
// new type of event knows (since a later reader) may join the current row.
type Rules struct {
	// MaxName is the longest display name or device name in bytes.
	MaxName int
	// MaxDevices is the most devices of a user that are active at one time.
	MaxDevices int
	// MaxThreads is the most threads that a user is in at one time, as his list has them; 0: any number.
	MaxThreads int
	// MaxInvitations is the most open invitations of a user; 0: he has none.
	MaxInvitations int
	// MaxTitle is the longest title of a thread in an invitation in bytes.
	MaxTitle int
	// Separators: a name has no control of C1 and no separator of lines (event.OneLine).
	Separators bool
}

// rules are all that there ever were, by number less 1.
var rules = [...]Rules{
	{MaxName: 64, MaxDevices: 16},
	{MaxName: 64, MaxDevices: 16},
	{
		MaxName: 512, MaxDevices: 16, MaxThreads: 10_000, MaxInvitations: 1000, MaxTitle: 1024, Separators: true,
	},
}

// RulesOf returns the rules of a number from 1 to event.CurrentRules; event.Decode gives out no other.
func RulesOf(n uint32) *Rules {
	if n < 1 || int(n) > len(rules) {
		panic(fmt.Sprintf("user: no rules %d", n)) // a caller that did not decode
	}
	return &rules[n-1]
}

// Check judges what an event of helio.users says, without regard to any state: the form of its ids and keys and the
// limits of its rules. Its error is an *event.Invalid. An event that fails it is rejected by every fold, so ingest
// refuses it.
func Check(e *event.Event) error {
	r := RulesOf(e.Rules)
	switch e.WhichBody() {
	case eventv1.Event_UserRegistered_case:
		c := e.GetUserRegistered()
		if c.GetGeneration() == 0 {
			return event.Invalidf("generation", "is 0")
		}
		return event.First(event.CheckID("phone_hash", c.GetPhoneHash()),
			r.checkDevice(c.GetDeviceId(), c.GetPublicKey(), c.GetDeviceName()),
			checkShownFrom(e.Rules, c.GetShownFrom()))
	case eventv1.Event_DeviceLinked_case:
		c := e.GetDeviceLinked()
		return r.checkDevice(c.GetDeviceId(), c.GetPublicKey(), c.GetDeviceName())
	case eventv1.Event_DeviceRevoked_case:
		return event.CheckID("device_id", e.GetDeviceRevoked().GetDeviceId())
	case eventv1.Event_ProfileChanged_case:
		name := e.GetProfileChanged().GetName()
		if name == "" {
			return event.Invalidf("name", "is empty")
		}
		return r.checkName("name", name)
	case eventv1.Event_ContactSaved_case:
		c := e.GetContactSaved()
		return event.First(event.CheckID("phone_hash", c.GetPhoneHash()), r.checkName("name", c.GetName()))
	case eventv1.Event_ContactRemoved_case:
		return event.CheckID("phone_hash", e.GetContactRemoved().GetPhoneHash())
	case eventv1.Event_UserBlocked_case:
		return event.CheckID("blocked_id", e.GetUserBlocked().GetBlockedId())
	case eventv1.Event_UserUnblocked_case:
		return event.CheckID("blocked_id", e.GetUserUnblocked().GetBlockedId())
	case eventv1.Event_ThreadJoined_case:
		if t, err := id.From[id.ThreadID](e.GetThreadJoined().GetThreadId()); err != nil || t.IsZero() {
			return event.Invalidf("thread_id", "is not a thread's")
		}
		return nil
	case eventv1.Event_MayAddChanged_case:
		m := e.GetMayAddChanged().GetMayAdd()
		if m < eventv1.MayAdd_MAY_ADD_EVERYBODY || m > eventv1.MayAdd_MAY_ADD_NOBODY {
			return event.Invalidf("may_add", "is %d", m)
		}
		return nil
	case eventv1.Event_ThreadInvited_case:
		i := e.GetThreadInvited()
		if len(i.GetTitle()) > r.MaxTitle || !event.OneLine(i.GetTitle(), r.Separators) {
			return event.Invalidf("title", "is not at most %d bytes of plain text", r.MaxTitle)
		}
		return event.CheckID("thread_id", i.GetThreadId())
	case eventv1.Event_ThreadInvitationEnded_case:
		return event.CheckID("thread_id", e.GetThreadInvitationEnded().GetThreadId())
	case eventv1.Event_ThreadLeft_case:
		return event.CheckID("thread_id", e.GetThreadLeft().GetThreadId())
	}
	return nil
}

func (r *Rules) checkDevice(device, key []byte, name string) error {
	if d, err := id.From[id.DeviceID](device); err != nil || !d.Valid() {
		return event.Invalidf("device_id", "is not a UUIDv7 of %d bytes", id.Size)
	}
	if len(key) != ed25519.PublicKeySize {
		return event.Invalidf("public_key", "has %d bytes, needs %d", len(key), ed25519.PublicKeySize)
	}
	return r.checkName("device_name", name)
}

func (r *Rules) checkName(field, n string) error {
	if len(n) > r.MaxName || !event.OneLine(n, r.Separators) {
		return event.Invalidf(field, "is not at most %d bytes of plain text", r.MaxName)
	}
	return nil
}
