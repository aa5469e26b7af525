package topic

import "testing"

func TestCursorKeepsEachFoldedTopic(t *testing.T) {
	var c Cursor
	for i, tp := range Folded {
		if at, ok := tp.Place(); !ok || at != i {
			t.Errorf("%s has place %d, %t, want %d", tp, at, ok, i)
		}
		c.Set(tp, Position(10+i))
	}
	for i, tp := range Folded {
		if got := c.At(tp); got != Position(10+i) || c[i] != got {
			t.Errorf("%s is at %d (in its place %d), want %d", tp, got, c[i], 10+i)
		}
	}
	for _, tp := range []Topic{Presence, Quarantine, "other"} {
		if at, ok := tp.Place(); ok {
			t.Errorf("%s has place %d", tp, at)
		}
	}
	d := c
	d.Raise(Users, 5)
	if d != c {
		t.Errorf("raising to a lower position made %v of %v", d, c)
	}
	d.Raise(Users, 50)
	if d.At(Users) != 50 || c.At(Users) != 12 {
		t.Errorf("users at %d and, in the copy's original, %d", d.At(Users), c.At(Users))
	}
	d.Set(Threads, 1)
	if d.Covers(c) || c.Covers(d) || !d.Highest(c).Covers(d) || !c.Highest(d).Covers(c) || !c.Covers(c) {
		t.Errorf("covers and highest of %v and %v", c, d)
	}
}
