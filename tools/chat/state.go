package chat

import (
	"cmp"
	"slices"
	"time"

	"heliograph/edge/client"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// status is how far an own message has got.
type status int

const (
	statusNone status = iota // somebody else's
	statusOutbox
	statusSent
	statusDelivered
	statusRead
	statusFailed
)

// item is what stands in a conversation: a message or something that happened to the thread.
type item struct {
	place   client.Place
	placed  bool // it has its place in the log; else it is in the outbox, or failed
	id      id.MessageID
	sender  id.UserID
	text    string           // cleaned
	reply   event.MessageRef // that it answers; its author is zero where the sender did not say
	event   *eventv1.Event   // set when it is not a message
	failed  string           // why it will never be sent or was not accepted
	edited  bool
	deleted bool

	// Lines as they were last rendered, and for what.
	key   lineKey
	lines []string
}

// message tells whether the item is a message.
func (it *item) message() bool { return it.event == nil }

// change is what a later event made of a message.
type change struct {
	at      topic.Position
	text    string
	deleted bool
}

type changeKey struct {
	author id.UserID
	id     id.MessageID
}

// member of a thread as the screen knows him.
type member struct {
	user    id.UserID
	role    eventv1.Role
	invited bool // he is none yet
}

// conversation is a thread: its line in the list and as much of its events as was loaded.
type conversation struct {
	id     id.ThreadID
	me     id.UserID
	group  bool
	title  string // cleaned; of a group
	peer   id.UserID
	member bool
	role   eventv1.Role
	count  int

	lastPos    topic.Position // of the last event; -1: none
	lastOrd    int64          // of the last message
	lastTime   time.Time
	lastSender id.UserID
	preview    string // cleaned
	readOrd    int64  // messages up to it are read
	elsewhere  bool   // what came first is on the device that the user had before
	unread     int64  // others' messages after it, up to lastOrd

	items   []*item // by position; without one (outbox, failed) at the end, in the order of writing
	byID    map[changeKey]*item
	changes map[changeKey]change
	marks   map[id.UserID]thread.Watermark
	joined  map[id.UserID]topic.Position // where a member last joined, as far as seen
	members []member
	invited []id.UserID

	loaded   bool           // the newest page is there
	loading  bool           // a page is on its way
	tries    int            // how often its details were asked for again
	next     topic.Position // where the next older page begins; 0: there is none
	askedGap map[topic.Position]bool

	scroll int // lines below the screen
	draft  string
	reply  *item
}

func newConversation(t id.ThreadID, me id.UserID) *conversation {
	return &conversation{
		id: t, me: me, group: t.IsGroup(), member: true, lastPos: -1,
		byID: map[changeKey]*item{}, changes: map[changeKey]change{}, marks: map[id.UserID]thread.Watermark{},
		joined: map[id.UserID]topic.Position{}, askedGap: map[topic.Position]bool{},
	}
}

// read notes that everything up to an ordinal is read.
func (c *conversation) read(upTo int64) {
	c.readOrd = max(c.readOrd, upTo)
	others := max(0, c.lastOrd-c.readOrd)
	for i := len(c.items) - 1; i >= 0 && others > 0; i-- {
		it := c.items[i]
		n := it.place.Ordinal
		if it.message() && it.sender == c.me && n > c.readOrd && n <= c.lastOrd {
			others--
		}
	}
	c.unread = min(c.unread, others)
}

// summary takes the thread as the server lists it. A view may be behind what came live: then only what does not move is
// taken.
func (c *conversation) summary(s *wirev1.ThreadSummary) {
	c.group = s.GetKind() == wirev1.ThreadKind_THREAD_KIND_GROUP
	if u, err := id.From[id.UserID](s.GetDirectPeer()); err == nil {
		c.peer = u
	}
	c.read(s.GetOwn().GetReadOrdinal())
	c.elsewhere = c.elsewhere || s.GetPastElsewhere()
	pos := topic.Position(s.GetLastPosition())
	if pos < c.lastPos {
		return
	}
	c.lastPos = pos
	c.count, c.member, c.role = int(s.GetMemberCount()), s.GetMember(), s.GetRole()
	if t := CleanLine(s.GetTitle()); t != "" { // a former member is told no later title: his stays
		c.title = t
	}
	if s.GetLastOrdinal() >= c.lastOrd {
		c.lastOrd, c.unread = s.GetLastOrdinal(), s.GetUnread()
		c.preview = CleanLine(s.GetPreview())
		c.read(c.readOrd) // as far as this device has got: the server may not know yet
		if ms := s.GetLastTimeMs(); ms > 0 {
			c.lastTime = time.UnixMilli(ms)
		}
		if u, err := id.From[id.UserID](s.GetLastSender()); err == nil {
			c.lastSender = u
		}
	}
}

// details takes the thread with its members; of a view that is behind what came live only the watermarks, when members
// are known.
func (c *conversation) details(t *wirev1.Thread, behind bool) {
	c.summary(t.GetSummary())
	keep := behind && len(c.members) > 0
	if !keep {
		c.members = c.members[:0]
	}
	if !keep {
		c.invited = c.invited[:0]
		for _, i := range t.GetInvited() {
			c.invite(idsOf([][]byte{i.GetUserId()})...)
		}
	}
	for _, m := range t.GetMembers() {
		u, err := id.From[id.UserID](m.GetWatermark().GetUserId())
		if err != nil {
			continue
		}
		if !keep {
			c.members = append(c.members, member{user: u, role: m.GetRole()})
		}
		w := m.GetWatermark()
		c.watermark(u, thread.Watermark{
			DeliveredPosition: topic.Position(w.GetDeliveredPosition()), DeliveredOrdinal: w.GetDeliveredOrdinal(),
			ReadPosition: topic.Position(w.GetReadPosition()), ReadOrdinal: w.GetReadOrdinal(),
		})
	}
}

func (c *conversation) watermark(u id.UserID, w thread.Watermark) {
	c.marks[u] = c.marks[u].Merge(w)
}

// insert puts an item at its place; one that is there already stays, and learns what it did not know.
func (c *conversation) insert(it *item) (fresh bool) {
	if it.message() {
		k := changeKey{it.sender, it.id}
		if ch, ok := c.changes[k]; ok {
			it.apply(ch)
		}
		if old := c.byID[k]; old != nil {
			if old.placed && it.placed && old.place.Position == it.place.Position {
				old.place, old.failed = it.place, ""
				old.key = lineKey{}
				return false
			}
			if !it.placed || old.placed {
				return false // a place that is known does not change: the log's first copy counts
			}
			c.drop(old)
		}
		c.byID[k] = it
	}
	if !it.placed {
		c.items = append(c.items, it)
		return true
	}
	i, found := slices.BinarySearchFunc(c.items, it.place.Position, func(have *item, p topic.Position) int {
		if !have.placed {
			return 1
		}
		return cmp.Compare(have.place.Position, p)
	})
	if found {
		return false
	}
	c.items = slices.Insert(c.items, i, it)
	return true
}

func (c *conversation) drop(it *item) {
	if i := slices.Index(c.items, it); i >= 0 {
		c.items = slices.Delete(c.items, i, i+1)
	}
}

// place gives an own message of the outbox its place in the log.
func (c *conversation) place(me id.UserID, m id.MessageID, p client.Place) {
	it := c.byID[changeKey{me, m}]
	if it == nil || it.placed {
		return
	}
	moved := *it
	moved.place, moved.placed, moved.key = p, true, lineKey{}
	c.insert(&moved)
}

func (it *item) apply(ch change) {
	it.key = lineKey{}
	if ch.deleted {
		it.deleted, it.text = true, ""
		return
	}
	if !it.deleted {
		it.edited, it.text = true, ch.text
	}
}

// change notes an edit or a deletion; the message may come later, with an older page.
func (c *conversation) change(k changeKey, ch change) {
	if old, ok := c.changes[k]; ok && (old.at >= ch.at || old.deleted) {
		return
	}
	c.changes[k] = ch
	if it := c.byID[k]; it != nil {
		it.apply(ch)
	}
}

// event takes an event of the thread, live or from a page. Only a live one moves the list.
func (c *conversation) event(e client.Event, me id.UserID, live bool) (fresh bool) {
	switch e := e.(type) {
	case client.Message:
		text := Clean(e.Text)
		if e.Text == "" && e.Content.GetKeyId() != 0 {
			text = "(sealed with a key that this device does not have)"
		}
		fresh = c.insert(&item{place: e.Place, placed: true, id: e.ID, sender: e.Sender, text: text, reply: e.Reply})
		if live || e.Position > c.lastPos {
			c.lastPos = max(c.lastPos, e.Position)
			if e.Sender != me && e.Ordinal > max(c.lastOrd, c.readOrd) {
				c.unread++
			}
			if e.Ordinal >= c.lastOrd {
				c.lastOrd, c.lastTime, c.lastSender = e.Ordinal, e.Time, e.Sender
				c.preview = CleanLine(clip(e.Text, 256))
			}
		}
		if e.Sender != me && c.peer.IsZero() && !c.group {
			c.peer = e.Sender
		}
	case client.ThreadEvent:
		fresh = c.threadEvent(e, me)
	}
	return fresh
}

// clip takes at most n bytes of a text, whole characters only.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}

func (c *conversation) threadEvent(e client.ThreadEvent, me id.UserID) bool {
	actor, _ := id.From[id.UserID](e.Event.GetUserId())
	newest := e.Position > c.lastPos // the list has not seen it
	c.lastPos = max(c.lastPos, e.Position)
	switch e.Event.WhichBody() {
	case eventv1.Event_MessageEdited_case:
		ed := e.Event.GetMessageEdited()
		if m, err := id.From[id.MessageID](ed.GetMessageId()); err == nil {
			text, _ := event.Text(ed.GetContent())
			c.change(changeKey{actor, m}, change{at: e.Position, text: Clean(text)})
		}
		return false
	case eventv1.Event_MessageDeleted_case:
		del := e.Event.GetMessageDeleted()
		author := actor
		if a, err := id.From[id.UserID](del.GetAuthorId()); err == nil {
			author = a
		}
		if m, err := id.From[id.MessageID](del.GetMessageId()); err == nil {
			c.change(changeKey{author, m}, change{at: e.Position, deleted: true})
		}
		return false
	case eventv1.Event_ThreadCreated_case:
		c.group = true
		first := append([]id.UserID{actor}, idsOf(e.Event.GetThreadCreated().GetMemberIds())...)
		if newest {
			c.title = CleanLine(e.Event.GetThreadCreated().GetTitle())
			c.members = c.members[:0]
			for _, u := range first {
				if !slices.ContainsFunc(c.members, func(m member) bool { return m.user == u }) {
					c.members = append(c.members, member{user: u, role: eventv1.Role_ROLE_MEMBER})
				}
			}
			c.members[0].role, c.count = eventv1.Role_ROLE_ADMIN, len(c.members)
			if actor == me {
				c.role = eventv1.Role_ROLE_ADMIN
			}
		}
		c.join(e.Position, first...)
	case eventv1.Event_ThreadRenamed_case:
		if newest {
			c.title = CleanLine(e.Event.GetThreadRenamed().GetTitle())
		}
	case eventv1.Event_MemberAdded_case:
		added := idsOf(e.Event.GetMemberAdded().GetMemberIds())
		c.join(e.Position, added...)
		if newest {
			c.enter(me, added...)
		}
	case eventv1.Event_InvitationAccepted_case:
		c.join(e.Position, actor)
		if newest {
			c.enter(me, actor)
		}
	case eventv1.Event_MemberInvited_case:
		if newest {
			c.invite(idsOf(e.Event.GetMemberInvited().GetMemberIds())...)
		}
	case eventv1.Event_InvitationDeclined_case:
		if newest {
			c.uninvite(actor)
		}
	case eventv1.Event_InvitationWithdrawn_case:
		if newest {
			c.uninvite(idsOf([][]byte{e.Event.GetInvitationWithdrawn().GetMemberId()})...)
		}
	case eventv1.Event_MemberRemoved_case:
		if u, err := id.From[id.UserID](e.Event.GetMemberRemoved().GetMemberId()); err == nil && newest {
			c.part(u, me)
		}
	case eventv1.Event_MemberLeft_case:
		if newest {
			c.part(actor, me)
		}
	case eventv1.Event_RoleChanged_case:
		if u, err := id.From[id.UserID](e.Event.GetRoleChanged().GetMemberId()); err == nil && newest {
			for i := range c.members {
				if c.members[i].user == u {
					c.members[i].role = e.Event.GetRoleChanged().GetRole()
				}
			}
			if u == me {
				c.role = e.Event.GetRoleChanged().GetRole()
			}
		}
	case eventv1.Event_ReactionSet_case, eventv1.Event_AbuseReported_case:
		return false // not shown, and known
	default: // of a newer server, or unreadable: it has its place
	}
	return c.insert(&item{place: e.Place, placed: true, sender: actor, event: e.Event})
}

func (c *conversation) join(at topic.Position, users ...id.UserID) {
	for _, u := range users {
		c.joined[u] = max(c.joined[u], at)
	}
}

// enter takes in that users are members now.
func (c *conversation) enter(me id.UserID, users ...id.UserID) {
	for _, u := range users {
		if !slices.ContainsFunc(c.members, func(m member) bool { return m.user == u }) {
			c.members = append(c.members, member{user: u, role: eventv1.Role_ROLE_MEMBER})
		}
	}
	c.uninvite(users...)
	c.member = c.member || slices.Contains(users, me)
	c.count = max(c.count, len(c.members))
}

func (c *conversation) part(u, me id.UserID) {
	n := len(c.members)
	c.members = slices.DeleteFunc(c.members, func(m member) bool { return m.user == u })
	c.count -= n - len(c.members)
	if u == me {
		c.member = false
	}
}

func idsOf(raw [][]byte) []id.UserID {
	out := make([]id.UserID, 0, len(raw))
	for _, b := range raw {
		if u, err := id.From[id.UserID](b); err == nil {
			out = append(out, u)
		}
	}
	return out
}

// reach tells how far a member has got with a message. It goes by ordinals: the first position of a log is 0, as is a
// watermark that never moved.
func (c *conversation) reach(u id.UserID, it *item) status {
	w := c.marks[u]
	switch n := it.place.Ordinal; {
	case !it.placed:
		return statusOutbox
	case n == 0: // acknowledged, but not come back yet
		return statusSent
	case w.ReadOrdinal >= n:
		return statusRead
	case w.DeliveredOrdinal >= n:
		return statusDelivered
	default:
		return statusSent
	}
}

// status tells how far an own message has got: in a group as far as the slowest of those who were members when it was
// sent.
func (c *conversation) status(it *item, me id.UserID) status {
	switch {
	case !it.message() || it.sender != me:
		return statusNone
	case it.failed != "":
		return statusFailed
	case !it.placed:
		return statusOutbox
	}
	if !c.group {
		if c.peer == me {
			return statusRead
		}
		return c.reach(c.peer, it)
	}
	least, others := statusRead, 0
	for _, m := range c.members {
		if m.user == me || c.joined[m.user] > it.place.Position {
			continue
		}
		others++
		least = min(least, c.reach(m.user, it))
	}
	if others == 0 {
		return statusSent
	}
	return least
}

// gap returns a position before which messages are missing that a page may have; 0 when the loaded ones are dense. Each
// gap is named once, since a member who was away for a while may rightly never see what lies in it.
func (c *conversation) gap() topic.Position {
	var after *item // the next message above
	for i := len(c.items) - 1; i >= 0; i-- {
		it := c.items[i]
		if !it.message() || it.place.Ordinal == 0 {
			continue
		}
		if after != nil && it.place.Ordinal+1 < after.place.Ordinal && !c.askedGap[after.place.Position] {
			c.askedGap[after.place.Position] = true
			return after.place.Position
		}
		after = it
	}
	return 0
}

// find returns a loaded message by its name, or by its id alone where that is all there is.
func (c *conversation) find(m event.MessageRef) *item {
	if !m.Author.IsZero() {
		return c.byID[changeKey{m.Author, m.ID}]
	}
	for i := len(c.items) - 1; i >= 0; i-- {
		if it := c.items[i]; it.message() && it.id == m.ID {
			return it
		}
	}
	return nil
}

// hidden tells whether there are messages before the first that is loaded which this device may not be shown; it is
// asked when nothing older can be loaded.
func (c *conversation) hidden() bool {
	for _, it := range c.items {
		if it.placed && it.place.Ordinal > 0 {
			if it.message() {
				return it.place.Ordinal > 1
			}
			return true // something happened after a message that is not there
		}
	}
	return c.lastOrd > 0
}
