package topic

// folded is the one list of the topics that are folded and delivered. A topic's place in it is where cursors, rings and
// counters keep what is the topic's.
var folded = [...]Topic{Threads, Receipts, Users}

// Folded lists the topics that the views are folded from and that delivery pushes.
var Folded = folded[:]

// Cursor is a position per folded topic, by its place in Folded: everything before it has been taken in. The zero value
// stands at the beginning. It is a value: comparable, and copied by assignment.
type Cursor [len(folded)]Position

// Place returns a topic's place in Folded; false when it is not folded.
func (t Topic) Place() (int, bool) {
	for i := range folded {
		if folded[i] == t {
			return i, true
		}
	}
	return 0, false
}

// place is Place for those who know that the topic is folded; panics when it is not.
func (t Topic) place() int {
	i, ok := t.Place()
	if !ok {
		panic("topic: " + string(t) + " is not folded")
	}
	return i
}

// At returns the position of a folded topic; panics when it is not folded.
func (c Cursor) At(t Topic) Position { return c[t.place()] }

// Set sets the position of a folded topic; panics when it is not folded.
func (c *Cursor) Set(t Topic, p Position) { c[t.place()] = p }

// Raise takes the position of a folded topic up to p, never down; panics when it is not folded.
func (c *Cursor) Raise(t Topic, p Position) {
	at := &c[t.place()]
	*at = max(*at, p)
}

// Highest returns the higher position of each topic.
func (c Cursor) Highest(o Cursor) Cursor {
	for i := range c {
		c[i] = max(c[i], o[i])
	}
	return c
}

// Covers tells whether c is at or past o in every topic.
func (c Cursor) Covers(o Cursor) bool {
	for i := range c {
		if c[i] < o[i] {
			return false
		}
	}
	return true
}
