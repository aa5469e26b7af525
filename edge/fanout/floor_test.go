package fanout

import (
	"testing"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// Whoever registers at an edge whose clock is ahead is given what others send him from then on through other edges, and
// nothing that was there before.
func TestNewPhoneIsShownWhatComesAfterIt(t *testing.T) {
	for name, aheadMS := range map[string]int64{
		"two seconds": 2_000, "an hour": 3_600_000, "an hour behind": -3_600_000,
	} {
		t.Run(name, func(t *testing.T) {
			inBench(t, 1, func(t *testing.T, b *bench) {
				ann, bob := b.person(1), b.person(2)
				b.settle()
				g := b.group(ann.user, bob.user)
				send := func(n int) {
					for range n {
						b.world.Send(g, ann.user, ann.id, id.NewMessage(), id.UserID{})
					}
					b.settle()
				}
				send(3)
				for _, online := range []bool{true, false} { // all live; all by a catch-up
					phone := newPhone(bob.user, id.NewDevice(), 0)
					b.world.RegisterHere(bob.user, phone.id, aheadMS)
					b.settle()
					if !online {
						send(5)
					}
					s := b.online(phone, 0)
					b.settle()
					if online {
						mustBe(t, "the preview of what came before", preview(phone, g), "")
						send(5)
					} else {
						mustBe(t, "the preview", preview(phone, g), "hello")
					}
					s.leave()
					mustBe(t, "events", phone.count(g), 5)
				}
			})
		})
	}
}

func preview(p *phone, g id.ThreadID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var none *wirev1.ThreadSummary
	if s := p.listed[g]; s != none {
		return s.GetPreview()
	}
	return "not listed"
}
