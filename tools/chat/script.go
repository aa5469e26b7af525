package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"heliograph/edge/client"
	"heliograph/edge/phone"
	"heliograph/edge/wording"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Device is a Client with its events, as the commands for scripts use it; *client.Client is one.
type Device interface {
	Client
	// Events yields what comes in.
	Events(ctx context.Context) func(yield func(client.Event) bool)
}

// SDK makes a Device of the Go client.
type SDK struct{ *client.Client }

// Events yields what comes in; see client.Client.
func (s SDK) Events(ctx context.Context) func(yield func(client.Event) bool) {
	return s.Client.Events(ctx)
}

var _ Device = SDK{}

// maxPins is how many PINs SignUp tries: as many as the server lets be wrong before it wants another one asked for.
const maxPins = 5

// SignUp registers a phone number: with the PIN that is given, or else with one that the server is asked to send and
// that pin then finds or asks a person for. After a PIN that was wrong pin is called again, until it has no other one.
func SignUp(
	ctx context.Context, c Client, r client.Registration,
	pin func(ctx context.Context, phone string, since time.Time) (string, error),
) (client.Identity, error) {
	if _, ok := c.Identity(); ok {
		return client.Identity{}, client.ErrRegistered // before an SMS goes out for nothing
	}
	if _, err := wording.OptionalName(r.Name); err != nil {
		return client.Identity{}, fmt.Errorf("a name has at most %d characters; this one is %w", wording.NameChars, err)
	}
	n, err := c.CheckPhone(ctx, r.Phone)
	if err != nil {
		return client.Identity{}, err
	}
	r.Phone = n.Number
	given := r.Pin != ""
	r.Pin = pinIn(r.Pin)
	since := time.Now()
	if !given {
		if _, _, err := c.RequestPin(ctx, r.Phone); err != nil {
			return client.Identity{}, fmt.Errorf("ask for a PIN: %w", err)
		}
	}
	if r.DeviceName == "" {
		r.DeviceName = "terminal"
	}
	var refused error
	for range maxPins {
		if !given {
			next, err := pin(ctx, r.Phone, since)
			if err != nil {
				return client.Identity{}, err
			}
			if refused != nil && pinIn(next) == r.Pin {
				break
			}
			r.Pin = pinIn(next)
		}
		me, err := c.Register(ctx, r)
		if err == nil {
			return me, nil
		}
		refused = fmt.Errorf("register: %w", err)
		if given || !wrongPin(err) {
			break
		}
	}
	return client.Identity{}, refused
}

// wrongPin tells whether it was the PIN that was refused: another's, or not six digits.
func wrongPin(err error) bool {
	return errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_AUTHENTICATION_FAILED}) ||
		errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_INVALID})
}

// isPhone tells whether what a person writes is meant as a phone number: with +, or five digits and more.
func isPhone(s string) bool {
	if strings.HasPrefix(s, "+") {
		return true
	}
	digits, err := phone.Digits(s)
	return err == nil && len(digits) >= 5
}

// Find turns what a person writes into where a message goes: a phone number, a thread's id, a group's title or
// the name of a chat's other side.
func Find(ctx context.Context, c Client, what string) (client.To, error) {
	if t, err := id.Parse[id.ThreadID](what); err == nil {
		return client.To{Thread: t}, nil
	}
	if isPhone(what) {
		people, err := findPeople(ctx, c, nil, what)
		if err != nil {
			return client.To{}, err
		}
		if len(people) != 1 {
			return client.To{}, fmt.Errorf("%s is not one phone number", CleanLine(what))
		}
		return c.Direct(people[0].id)
	}
	rows, err := List(ctx, c, 0)
	if err != nil {
		return client.To{}, err
	}
	var found []Row
	for _, r := range rows {
		if strings.EqualFold(r.Title, what) {
			found = append(found, r)
		}
	}
	switch len(found) {
	case 0:
		return client.To{}, fmt.Errorf("no chat is called %q; give a phone number with +, a title or a thread's id "+
			"('helio chat threads' shows them)", CleanLine(what))
	case 1:
		return client.To{Thread: found[0].Thread, Peer: found[0].Peer}, nil
	default:
		return client.To{}, fmt.Errorf("%d chats are called %q; give the thread's id ('helio chat threads' shows them)",
			len(found), CleanLine(what))
	}
}

// Answered names the message of a thread that a text answers, which is given as author, slash, id or as its id alone.
// Its author is then looked for among the thread's last events.
func Answered(ctx context.Context, c Client, t id.ThreadID, what string) (event.MessageRef, error) {
	author, rest, named := strings.Cut(what, "/")
	if !named {
		rest = what
	}
	m, err := id.Parse[id.MessageID](rest)
	if err != nil {
		return event.MessageRef{}, err
	}
	if named {
		u, err := id.Parse[id.UserID](author)
		return event.MessageRef{Author: u, ID: m}, err
	}
	events, _, err := c.History(ctx, t, 0, lastEvents)
	if err != nil {
		return event.MessageRef{}, fmt.Errorf("history: %w", err)
	}
	var found event.MessageRef
	for _, e := range events {
		if e, ok := e.(client.Message); ok && e.ID == m {
			if !found.IsZero() && found.Author != e.Sender {
				return event.MessageRef{}, fmt.Errorf("two members sent a message %s; give AUTHOR/MESSAGE", m)
			}
			found = event.MessageRef{Author: e.Sender, ID: m}
		}
	}
	if found.IsZero() {
		return found, fmt.Errorf(
			"the last %d events of the chat have no message %s; give AUTHOR/MESSAGE for an older one", lastEvents, m,
		)
	}
	return found, nil
}

// lastEvents is how far back Answered looks: a page of the history.
const lastEvents = 500

// Deliver sends a text and waits until the log has it. Everything that comes in meanwhile counts as delivered, and
// stays unread.
func Deliver(ctx context.Context, d Device, to client.To, text string) (id.MessageID, client.Ack, error) {
	x, err := d.Send(to, text)
	if err != nil {
		return x, client.Ack{}, err
	}
	// With the acknowledgement it is done; what comes back of it within a moment counts as delivered too. Either may
	// come first.
	acked, cancel := context.WithCancel(ctx)
	defer cancel()
	var ack *client.Ack
	back := false
	for e := range d.Events(acked) {
		if back && ack != nil {
			break
		}
		switch e := e.(type) {
		case client.Sent:
			if e.ID == x {
				ack = &e.Ack
				if back {
					cancel()
					continue
				}
				stop := time.AfterFunc(500*time.Millisecond, cancel)
				defer stop.Stop()
			}
		case client.Message:
			if e.ID != x {
				continue
			}
			if back = true; ack != nil {
				cancel()
			}
		case client.Failed:
			if e.ID == x {
				return x, client.Ack{}, e.Err
			}
		case client.Rejected:
			if e.ID == x {
				return x, client.Ack{}, wire.Errorf(e.Code, "the log has the message, and it was rejected")
			}
		case client.Disconnected:
			if e.Lasting {
				return x, client.Ack{}, fmt.Errorf("the message waits in the outbox: %w", e.Err)
			}
		case client.Delayed: // not for the time of a command
			if e.Thread == to.Thread {
				return x, client.Ack{}, e.Err
			}
		default:
		}
	}
	if ack != nil {
		return x, *ack, nil
	}
	return x, client.Ack{}, fmt.Errorf("the message waits in the outbox and goes out with the next connection: %w",
		context.Cause(ctx))
}

// Row is a line of the thread list.
type Row struct {
	Thread  id.ThreadID `json:"thread"`
	Kind    string      `json:"kind"` // direct or group
	Title   string      `json:"title"`
	Peer    id.UserID   `json:"peer,omitzero"`
	Unread  int64       `json:"unread"`
	Count   int64       `json:"messages"`
	Time    time.Time   `json:"time,omitzero"`
	Preview string      `json:"preview"`
	Member  bool        `json:"member"`
}

// List reads the thread list, at most limit threads (0: all), with names.
func List(ctx context.Context, c Client, limit int) ([]Row, error) {
	var rows []Row
	var token []byte
	for {
		page, next, err := c.Threads(ctx, listPage, token)
		if err != nil {
			return nil, fmt.Errorf("thread list: %w", err)
		}
		for _, s := range page {
			t, err := id.From[id.ThreadID](s.GetThreadId())
			if err != nil {
				return nil, fmt.Errorf("thread list: %w", err)
			}
			r := Row{
				Thread: t, Kind: "direct", Title: CleanLine(s.GetTitle()), Unread: s.GetUnread(),
				Count:   s.GetLastOrdinal(),
				Preview: CleanLine(s.GetPreview()), Member: s.GetMember(),
			}
			if s.GetKind() == wirev1.ThreadKind_THREAD_KIND_GROUP {
				r.Kind = "group"
			} else if u, err := id.From[id.UserID](s.GetDirectPeer()); err == nil {
				r.Peer = u
			}
			if ms := s.GetLastTimeMs(); ms > 0 {
				r.Time = time.UnixMilli(ms)
			}
			rows = append(rows, r)
		}
		if token = next; token == nil || limit > 0 && len(rows) >= limit {
			break
		}
	}
	if limit > 0 {
		rows = rows[:min(limit, len(rows))]
	}
	var peers []id.UserID
	for _, r := range rows {
		if !r.Peer.IsZero() {
			peers = append(peers, r.Peer)
		}
	}
	names := map[id.UserID]string{}
	for part := range slices.Chunk(peers, maxNames) {
		users, err := c.Users(ctx, part...)
		if err != nil {
			return nil, fmt.Errorf("names: %w", err)
		}
		for _, u := range users {
			if x, err := id.From[id.UserID](u.GetUserId()); err == nil {
				names[x] = CleanLine(u.GetName())
			}
		}
	}
	for i, r := range rows {
		if r.Kind == "direct" {
			rows[i].Title = names[r.Peer]
			if rows[i].Title == "" {
				rows[i].Title = "user " + r.Peer.String()[:4]
			}
		}
	}
	return rows, nil
}

// Line is something that came in, as Tail hands it on. Texts are as they were written: whoever prints them to a
// terminal calls Clean.
type Line struct {
	Kind     string         `json:"kind"` // message, note or receipt
	Thread   id.ThreadID    `json:"thread"`
	Title    string         `json:"title"`
	Position topic.Position `json:"position"`
	Ordinal  int64          `json:"ordinal,omitempty"`
	Time     time.Time      `json:"time,omitzero"`
	Sender   id.UserID      `json:"sender,omitzero"`
	Name     string         `json:"name"`
	Message  id.MessageID   `json:"message,omitzero"`
	ReplyTo  id.MessageID   `json:"reply_to,omitzero"`
	// ReplyAuthor wrote what it answers; absent where the sender did not say.
	ReplyAuthor id.UserID      `json:"reply_author,omitzero"`
	Text        string         `json:"text"`
	Read        topic.Position `json:"read,omitempty"` // of a receipt; Position is what was delivered
}

// TailConfig says what Tail shows.
type TailConfig struct {
	// Only this thread; zero: all.
	Only id.ThreadID
	// Last is how many events of Only's history come first.
	Last int
	// Receipts are wanted too.
	Receipts bool
	// Read marks what is shown as read.
	Read bool
	// Limit ends Tail after so many lines; 0: never.
	Limit int
}

// Tail hands on what comes in, first what was missed, until ctx ends, show fails or Limit is reached.
func Tail(ctx context.Context, d Device, cfg TailConfig, show func(Line) error) error {
	m := New(ctx, Config{}, d)
	m.link = linkLive
	n := 0
	highest := topic.Position(-1)
	emit := func(e client.Event) (done bool, err error) {
		l, ok := m.line(e)
		if !ok || !cfg.Only.IsZero() && l.Thread != cfg.Only || l.Kind == "receipt" && !cfg.Receipts {
			return false, nil
		}
		if l.Kind != "receipt" && !cfg.Only.IsZero() {
			if l.Position <= highest {
				return false, nil // history had it already
			}
			highest = l.Position
		}
		if err := show(l); err != nil {
			return true, err
		}
		if cfg.Read && l.Kind != "receipt" {
			d.MarkRead(client.Place{Thread: l.Thread, Position: l.Position, Ordinal: l.Ordinal, Time: l.Time})
		}
		n++
		return cfg.Limit > 0 && n >= cfg.Limit, nil
	}
	if cfg.Last > 0 && !cfg.Only.IsZero() {
		events, _, err := d.History(ctx, cfg.Only, 0, min(cfg.Last, 500))
		if err != nil {
			return fmt.Errorf("history: %w", err)
		}
		for _, e := range slices.Backward(events) {
			if done, err := emit(e); done || err != nil {
				return err
			}
		}
	}
	// An event counts as applied when the loop asks for the next one: so the loop goes on after the last, and gives
	// back what comes then.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := false
	for e := range d.Events(ctx) {
		if over {
			break
		}
		var err error
		if over, err = emit(e); err != nil {
			return err
		}
		if over {
			cancel()
		}
	}
	return nil
}

// line describes an event; false for those that a tail does not show.
func (m *Model) line(e client.Event) (Line, bool) {
	if who, ok := m.client.Identity(); ok {
		m.me = who.User
	}
	var l Line
	switch e := e.(type) {
	case client.Message:
		m.learn(e.Thread, e.Sender)
		l = Line{
			Kind: "message", Sender: e.Sender, Message: e.ID, ReplyTo: e.Reply.ID, ReplyAuthor: e.Reply.Author,
			Text: e.Text,
		}
		l.place(e.Place)
	case client.ThreadEvent:
		it := &item{place: e.Place, event: e.Event}
		it.sender, _ = id.From[id.UserID](e.Event.GetUserId())
		m.learn(e.Thread, append(named(e.Event), it.sender)...)
		l = Line{Kind: "note", Sender: it.sender, Text: m.note(it)}
		l.place(e.Place)
		m.conversation(e.Thread).event(e, m.me, true)
	case client.Receipt:
		m.learn(e.Thread, e.User)
		l = Line{
			Kind: "receipt", Thread: e.Thread, Sender: e.User,
			Position: e.Watermark.DeliveredPosition, Read: e.Watermark.ReadPosition,
		}
		l.Text = fmt.Sprintf("delivered %d, read %d", l.Position, l.Read)
	default:
		return l, false
	}
	l.Title, l.Name = m.title(m.conversation(l.Thread)), m.name(l.Sender)
	return l, true
}

func (l *Line) place(p client.Place) {
	l.Thread, l.Position, l.Ordinal, l.Time = p.Thread, p.Position, p.Ordinal, p.Time
}

// named lists the users that an event is about.
func named(e *eventv1.Event) []id.UserID {
	switch e.WhichBody() {
	case eventv1.Event_ThreadCreated_case:
		return idsOf(e.GetThreadCreated().GetMemberIds())
	case eventv1.Event_MemberAdded_case:
		return idsOf(e.GetMemberAdded().GetMemberIds())
	case eventv1.Event_MemberRemoved_case:
		return idsOf([][]byte{e.GetMemberRemoved().GetMemberId()})
	case eventv1.Event_RoleChanged_case:
		return idsOf([][]byte{e.GetRoleChanged().GetMemberId()})
	case eventv1.Event_MemberInvited_case:
		return idsOf(e.GetMemberInvited().GetMemberIds())
	case eventv1.Event_InvitationWithdrawn_case:
		return idsOf([][]byte{e.GetInvitationWithdrawn().GetMemberId()})
	default:
		return nil
	}
}

// learn asks for a thread's title and for names that are not known yet, and waits for them.
func (m *Model) learn(t id.ThreadID, users ...id.UserID) {
	if _, known := m.convs[t]; !known {
		m.conversation(t)
		if msg, ok := m.loadThread(t)().(threadMsg); ok {
			m.gotThread(msg) // once: a tail does not wait for a view
		}
	}
	for _, u := range append(users, m.convs[t].peer) {
		m.want(u)
	}
	if ask := m.loadNames(); ask != nil {
		if msg, ok := ask().(usersMsg); ok {
			m.gotUsers(msg)
		}
	}
}
