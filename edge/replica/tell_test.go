package replica

import (
	"slices"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// brittle is a follower that breaks at one position and counts the others.
type brittle struct {
	breaks topic.Position
	told   []topic.Position
}

func (*brittle) User() id.UserID                                    { return id.UserID{} }
func (*brittle) Missed(id.ThreadID, topic.Position, topic.Position) {}
func (*brittle) Late(id.ThreadID, error)                            {}
func (*brittle) GoesOn(id.ThreadID)                                 {}
func (*brittle) Receipt(*Receipt)                                   {}
func (*brittle) Rejected(*Rejected)                                 {}
func (*brittle) Revoked(id.DeviceID)                                {}
func (*brittle) Invited(*Invitation)                                {}
func (b *brittle) Event(e *Event, _ *Glance) {
	if e.Position == b.breaks {
		panic("broken")
	}
	b.told = append(b.told, e.Position)
}

// A follower that breaks ends what told it; the slot goes on telling, from the note behind.
func TestABrokenFollowerStopsNobody(t *testing.T) {
	b := &brittle{breaks: 1}
	var f Follower = b
	u := &userEntry{}
	u.follower.Store(&f)
	r, s := &Replica{}, &slot{}
	note := func(positions ...topic.Position) {
		r.in(s, func(*actions) {
			for _, at := range positions {
				s.note(&Event{Row: Row{Position: at}}, u)
			}
		})
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it did not break")
			}
		}()
		note(0, 1, 2)
	}()
	s.settle() // waits for nobody
	note(3)
	if want := []topic.Position{0, 2, 3}; !slices.Equal(b.told, want) {
		t.Errorf("told %v, want %v", b.told, want)
	}
}
