// Package user is the fold of a user: devices, profile, contacts, blocks and the list of threads. Like the fold of a
// thread it is pure and is shared by the edge, the projectors and the verifier.
//
// Order: events of helio.users must be applied in position order; one before State.Next is stale and changes nothing.
//
// Non-obvious:
//   - Registering again makes one new primary device and revokes every other at that position: the phone number may
//     have a new owner.
//   - A revoked device stays in the state, so that its next connection is told why. Its key never comes back: a device
//     id is used once.
//   - ThreadJoined only lists a thread; who is a member is the thread's own fold's to say.
package user

import (
	"crypto/ed25519"
	"maps"
	"slices"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// Limits of users by the current rules: what is written now keeps to them. The fold judges by the rules of each event;
// see Rules.
const (
	// MaxName is the longest display name or device name in bytes.
	MaxName = 512
	// MaxDevices is the most devices of a user that are active at one time.
	MaxDevices = 16
	// MaxThreads is the most threads that a user is in at one time.
	MaxThreads = 10_000
	// MaxInvitations is the most open invitations of a user.
	MaxInvitations = 1000
)

// Outcome is what the fold made of an event.
type Outcome int8

// The outcomes.
const (
	// Accepted: the event changed the state.
	Accepted Outcome = iota
	// Stale: the event was applied already.
	Stale
	// Rejected: the event has no effect.
	Rejected
)

// Verdict is what the fold made of an event and what changed.
type Verdict struct {
	Outcome Outcome
	// Devices are those whose row changed.
	Devices []id.DeviceID
	// Revoked are those of Devices that may no longer connect.
	Revoked []id.DeviceID
	// Thread is the one whose entry in the list changed, when one did.
	Thread id.ThreadID
	// Invitation is the thread into which an invitation came, changed or ended, when one did.
	Invitation id.ThreadID
}

// Device of a user.
type Device struct {
	Key     [ed25519.PublicKeySize]byte
	Name    string
	Primary bool // registered with the PIN
	Revoked bool
	// Since and SinceMS are the position and the log time (Unix milliseconds) at which it came in.
	Since   topic.Position
	SinceMS int64
	// ShownFrom is Floor.Next; nil: it is shown what is not before SinceMS.
	ShownFrom map[topic.Slot]topic.Position
}

// Joined is an entry of the list of threads.
type Joined struct {
	At   topic.Position // of the ThreadJoined
	Left bool
}

// Invitation into a thread, as the user was told of it; whether he is invited is the thread's own fold's to say.
type Invitation struct {
	By     id.UserID
	Title  string         // as it was then
	At     topic.Position // of the ThreadInvited
	TimeMS int64          // log time, Unix milliseconds
}

// State of a user. Make it with New.
type State struct {
	ID         id.UserID
	PhoneHash  [id.Size]byte
	Generation uint32 // 0: not registered
	// RegisteredMS is the log time of the first registration of this generation, Unix milliseconds.
	RegisteredMS int64
	Name         string
	Devices      map[id.DeviceID]*Device
	Contacts     map[[id.Size]byte]string
	Blocked      map[id.UserID]bool
	Threads      map[id.ThreadID]Joined
	Invitations  map[id.ThreadID]Invitation
	// MayAdd is who may put the user into groups; 0: everybody.
	MayAdd eventv1.MayAdd
	// Next is the position after the last event that was applied.
	Next topic.Position
}

// New returns the state of a user who is not registered.
func New(u id.UserID) *State {
	return &State{
		ID:       u,
		Devices:  map[id.DeviceID]*Device{},
		Contacts: map[[id.Size]byte]string{},
		Blocked:  map[id.UserID]bool{},
		Threads:  map[id.ThreadID]Joined{},

		Invitations: map[id.ThreadID]Invitation{},
	}
}

// Clone returns a deep copy.
func (s *State) Clone() *State {
	c := *s
	c.Devices = make(map[id.DeviceID]*Device, len(s.Devices))
	for k, d := range s.Devices {
		copied := *d
		c.Devices[k] = &copied
	}
	c.Contacts, c.Blocked, c.Threads = maps.Clone(s.Contacts), maps.Clone(s.Blocked), maps.Clone(s.Threads)
	c.Invitations = maps.Clone(s.Invitations)
	return &c
}

// Active returns a device that may connect, or nil.
func (s *State) Active(d id.DeviceID) *Device {
	if dev := s.Devices[d]; dev != nil && !dev.Revoked {
		return dev
	}
	return nil
}

// Apply folds one event of helio.users into the state. logTimeMS is the record's timestamp in Unix milliseconds.
func (s *State) Apply(e *event.Event, at topic.Position, logTimeMS int64) Verdict {
	if at < s.Next {
		return Verdict{Outcome: Stale}
	}
	s.Next = at + 1
	if Check(e) != nil {
		return Verdict{Outcome: Rejected}
	}
	switch e.WhichBody() {
	case eventv1.Event_UserRegistered_case:
		return s.registered(e, at, logTimeMS)
	case eventv1.Event_DeviceLinked_case:
		return s.linked(e, at, logTimeMS)
	case eventv1.Event_DeviceRevoked_case:
		d := id.DeviceID(e.GetDeviceRevoked().GetDeviceId())
		if s.Active(d) == nil {
			return Verdict{Outcome: Rejected}
		}
		s.Devices[d].Revoked = true
		return Verdict{Devices: []id.DeviceID{d}, Revoked: []id.DeviceID{d}}
	case eventv1.Event_ProfileChanged_case:
		if s.Generation == 0 {
			return Verdict{Outcome: Rejected}
		}
		s.Name = e.GetProfileChanged().GetName()
		return Verdict{}
	case eventv1.Event_ContactSaved_case:
		c := e.GetContactSaved()
		s.Contacts[[id.Size]byte(c.GetPhoneHash())] = c.GetName()
		return Verdict{}
	case eventv1.Event_ContactRemoved_case:
		h := [id.Size]byte(e.GetContactRemoved().GetPhoneHash())
		if _, known := s.Contacts[h]; !known {
			return Verdict{Outcome: Rejected}
		}
		delete(s.Contacts, h)
		return Verdict{}
	case eventv1.Event_UserBlocked_case:
		u := id.UserID(e.GetUserBlocked().GetBlockedId())
		if u == s.ID || s.Blocked[u] {
			return Verdict{Outcome: Rejected}
		}
		s.Blocked[u] = true
		return Verdict{}
	case eventv1.Event_UserUnblocked_case:
		u := id.UserID(e.GetUserUnblocked().GetBlockedId())
		if !s.Blocked[u] {
			return Verdict{Outcome: Rejected}
		}
		delete(s.Blocked, u)
		return Verdict{}
	case eventv1.Event_ThreadJoined_case:
		t := id.ThreadID(e.GetThreadJoined().GetThreadId())
		if j, known := s.Threads[t]; known && !j.Left {
			return Verdict{Outcome: Rejected}
		}
		if most := RulesOf(e.Rules).MaxThreads; most > 0 && len(s.Threads) >= most && s.listed() >= most {
			return Verdict{Outcome: Rejected}
		}
		s.Threads[t] = Joined{At: at}
		v := s.uninvited(t)
		return Verdict{Thread: t, Invitation: v.Invitation}
	case eventv1.Event_ThreadLeft_case:
		t := id.ThreadID(e.GetThreadLeft().GetThreadId())
		j, known := s.Threads[t]
		if !known || j.Left {
			return Verdict{Outcome: Rejected}
		}
		j.Left = true
		s.Threads[t] = j
		return Verdict{Thread: t}
	case eventv1.Event_MayAddChanged_case:
		if s.Generation == 0 {
			return Verdict{Outcome: Rejected}
		}
		s.MayAdd = e.GetMayAddChanged().GetMayAdd()
		return Verdict{}
	case eventv1.Event_ThreadInvited_case:
		return s.invited(e, at, logTimeMS)
	case eventv1.Event_ThreadInvitationEnded_case:
		return s.uninvited(id.ThreadID(e.GetThreadInvitationEnded().GetThreadId()))
	default:
		return Verdict{Outcome: Rejected}
	}
}

// invited takes an invitation in, also one into a thread of the list: who began to join and did not get in is there.
func (s *State) invited(e *event.Event, at topic.Position, logTimeMS int64) Verdict {
	i := e.GetThreadInvited()
	t := id.ThreadID(i.GetThreadId())
	_, open := s.Invitations[t]
	switch {
	case s.Generation == 0 || e.User.IsZero() || e.User == s.ID,
		!open && len(s.Invitations) >= RulesOf(e.Rules).MaxInvitations:
		return Verdict{Outcome: Rejected}
	}
	s.Invitations[t] = Invitation{By: e.User, Title: i.GetTitle(), At: at, TimeMS: logTimeMS}
	return Verdict{Invitation: t}
}

// uninvited ends an invitation, if there is one.
func (s *State) uninvited(t id.ThreadID) Verdict {
	if _, open := s.Invitations[t]; !open {
		return Verdict{Outcome: Rejected}
	}
	delete(s.Invitations, t)
	return Verdict{Invitation: t}
}

// listed is how many threads the user is in.
func (s *State) listed() (n int) {
	for _, j := range s.Threads {
		if !j.Left {
			n++
		}
	}
	return n
}

func (s *State) registered(e *event.Event, at topic.Position, logTimeMS int64) Verdict {
	r := e.GetUserRegistered()
	d := id.DeviceID(r.GetDeviceId())
	if r.GetGeneration() < s.Generation || s.Devices[d] != nil {
		return Verdict{Outcome: Rejected}
	}
	if r.GetGeneration() > s.Generation {
		s.RegisteredMS = logTimeMS
	}
	s.PhoneHash, s.Generation = [id.Size]byte(r.GetPhoneHash()), r.GetGeneration()
	v := Verdict{Devices: []id.DeviceID{d}}
	for other, dev := range s.Devices {
		if !dev.Revoked {
			dev.Revoked = true
			v.Devices = append(v.Devices, other)
			v.Revoked = append(v.Revoked, other)
		}
	}
	slices.SortFunc(v.Revoked, func(a, b id.DeviceID) int { return slices.Compare(a[:], b[:]) })
	s.Devices[d] = &Device{
		Key:     [ed25519.PublicKeySize]byte(r.GetPublicKey()),
		Name:    r.GetDeviceName(),
		Primary: true,
		Since:   at,
		SinceMS: logTimeMS,

		ShownFrom: shownFrom(e.Rules, r),
	}
	return v
}

// sortedSlots returns the keys in order.
func sortedSlots(m map[topic.Slot]topic.Position) []topic.Slot { return slices.Sorted(maps.Keys(m)) }

func (s *State) linked(e *event.Event, at topic.Position, logTimeMS int64) Verdict {
	l := e.GetDeviceLinked()
	by, d := e.Device, id.DeviceID(l.GetDeviceId())
	if s.Active(by) == nil || s.Devices[d] != nil {
		return Verdict{Outcome: Rejected}
	}
	active := 0
	for _, dev := range s.Devices {
		if !dev.Revoked {
			active++
		}
	}
	if active >= RulesOf(e.Rules).MaxDevices {
		return Verdict{Outcome: Rejected}
	}
	// What the approving device may see, the new one may: it takes over the moment from which history is shown.
	s.Devices[d] = &Device{
		Key:     [ed25519.PublicKeySize]byte(l.GetPublicKey()),
		Name:    l.GetDeviceName(),
		Since:   at,
		SinceMS: s.Devices[by].SinceMS,

		ShownFrom: s.Devices[by].ShownFrom,
	}
	return Verdict{Devices: []id.DeviceID{d}}
}
