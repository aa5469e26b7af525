package chat

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"

	"heliograph/edge/client"
	"heliograph/edge/phone"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

var update = flag.Bool("update", false, "write the golden screens")

var (
	ann, bob, carl = userN(1), userN(2), userN(3)
	noon           = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
)

func userN(n byte) id.UserID { return id.UserID{15: n} }

func msgID(n int) id.MessageID { return id.MessageID{6: 0x70, 14: byte(n >> 8), 15: byte(n)} }

// fake is a Client in memory: what was sent and asked for can be read, what is answered can be set.
type fake struct {
	me      id.UserID
	sent    []client.Outgoing
	read    []client.Place
	calls   []string
	threads []*wirev1.ThreadSummary
	further [][]*wirev1.ThreadSummary // the list's further pages
	broken  map[int]int               // how often a further page fails first
	members map[id.ThreadID]*wirev1.Thread
	history map[id.ThreadID][]client.Event // oldest first
	users   map[string]id.UserID           // by phone
	names   map[id.UserID]string
	err     error                  // what registration answers
	refuse  func(pin string) error // what it answers to a PIN; nil: err
	events  []client.Event

	invitations []client.Invitation
	settings    client.Settings
	unaddable   []id.UserID
	answering   error
}

func newFake() *fake {
	return &fake{
		me:      ann,
		members: map[id.ThreadID]*wirev1.Thread{}, broken: map[int]int{},
		history: map[id.ThreadID][]client.Event{},
		users:   map[string]id.UserID{"+4915100000002": bob, "+4915100000003": carl},
		names:   map[id.UserID]string{ann: "Ann", bob: "Bob", carl: "Carl 王"},
	}
}

func (f *fake) Identity() (client.Identity, bool) { return client.Identity{User: f.me}, !f.me.IsZero() }
func (f *fake) Outbox() int                       { return len(f.sent) }
func (f *fake) MarkRead(p client.Place)           { f.read = append(f.read, p) }
func (f *fake) Forget(m id.MessageID) error {
	f.calls = append(f.calls, "forget "+m.String())
	return nil
}

func (f *fake) Flush(context.Context) error { return nil }

func (f *fake) Direct(peer id.UserID) (client.To, error) {
	return client.To{Thread: id.DirectThread(f.me, peer), Peer: peer}, nil
}

func (f *fake) Send(to client.To, text string) (id.MessageID, error) {
	x := msgID(1000 + len(f.sent))
	f.sent = append(
		f.sent, client.Outgoing{
			Thread: to.Thread, ID: x, Data: []byte(text), ReplyTo: to.Reply.ID, ReplyAuthor: to.Reply.Author,
			DirectPeer: to.Peer,
		},
	)
	return x, nil
}

func (f *fake) CheckPhone(_ context.Context, number string) (client.Phone, error) {
	n, err := phone.Parse(number, "")
	if err != nil {
		return client.Phone{}, wire.Errorf(wirev1.Code_CODE_INVALID_PHONE, "%v", err)
	}
	return client.Phone{Number: n.E164, Shown: n.Shown, Region: n.Region}, nil
}

func (f *fake) RequestPin(_ context.Context, phone string) (time.Duration, time.Duration, error) {
	f.calls = append(f.calls, "pin "+phone)
	return 5 * time.Minute, time.Minute, f.err
}

func (f *fake) Register(_ context.Context, r client.Registration) (client.Identity, error) {
	f.calls = append(f.calls, "register "+r.Phone+" "+r.Pin)
	err := f.err
	if f.refuse != nil {
		err = f.refuse(r.Pin)
	}
	if err != nil {
		return client.Identity{}, err
	}
	f.me = ann
	return client.Identity{User: ann}, nil
}

func (f *fake) SetName(_ context.Context, name string) error {
	f.calls = append(f.calls, "name "+name)
	return nil
}

func (f *fake) Threads(_ context.Context, _ int, token []byte) ([]*wirev1.ThreadSummary, []byte, error) {
	f.calls = append(f.calls, "threads")
	if token == nil {
		return f.threads, f.next(0), nil
	}
	n := int(token[0])
	if f.broken[n]--; f.broken[n] >= 0 {
		return nil, nil, wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "")
	}
	return f.further[n], f.next(n + 1), nil
}

func (f *fake) next(n int) []byte {
	if n < len(f.further) {
		return []byte{byte(n)}
	}
	return nil
}

func (f *fake) Thread(_ context.Context, t id.ThreadID) (*wirev1.Thread, error) {
	if th := f.members[t]; th != nil {
		return th, nil
	}
	return nil, wire.Errorf(wirev1.Code_CODE_NOT_A_MEMBER, "")
}

func (f *fake) History(
	_ context.Context, t id.ThreadID, before topic.Position, limit int,
) ([]client.Event, topic.Position, error) {
	f.calls = append(f.calls, fmt.Sprintf("history before %d", before))
	var out []client.Event
	for _, e := range slices.Backward(f.history[t]) {
		p := position(e)
		if before > 0 && p >= before {
			continue
		}
		if len(out) == limit {
			return out, position(out[len(out)-1]), nil
		}
		out = append(out, e)
	}
	return out, 0, nil
}

func position(e client.Event) topic.Position {
	switch e := e.(type) {
	case client.Message:
		return e.Position
	case client.ThreadEvent:
		return e.Position
	}
	return -1
}

func (f *fake) Lookup(_ context.Context, phones ...string) ([]*wirev1.User, error) {
	var out []*wirev1.User
	for _, p := range phones {
		if u, ok := f.users[p]; ok {
			out = append(out, wirev1.User_builder{UserId: u[:], Name: f.names[u], Phone: p}.Build())
		}
	}
	return out, nil
}

func (f *fake) Users(_ context.Context, ids ...id.UserID) ([]*wirev1.User, error) {
	var out []*wirev1.User
	for _, u := range ids {
		out = append(out, wirev1.User_builder{UserId: u[:], Name: f.names[u]}.Build())
	}
	return out, nil
}

func (f *fake) CreateGroup(_ context.Context, title string, members ...id.UserID) (id.ThreadID, error) {
	f.calls = append(f.calls, fmt.Sprintf("group %s %d", title, len(members)))
	return group, f.notAddable(members)
}

func (f *fake) AddMembers(_ context.Context, _ id.ThreadID, m ...id.UserID) error {
	f.calls = append(f.calls, fmt.Sprintf("add %d", len(m)))
	return f.notAddable(m)
}

func (f *fake) notAddable(users []id.UserID) error {
	var not []id.UserID
	for _, u := range users {
		if slices.Contains(f.unaddable, u) {
			not = append(not, u)
		}
	}
	if len(not) == 0 {
		return nil
	}
	return &wire.Error{Code: wirev1.Code_CODE_NOT_ADDABLE, Users: not}
}

func (f *fake) Invitations(context.Context) ([]client.Invitation, error) {
	return slices.Clone(f.invitations), nil
}

func (f *fake) Invite(_ context.Context, _ id.ThreadID, users ...id.UserID) error {
	for _, u := range users {
		f.calls = append(f.calls, "invite "+f.names[u])
	}
	return nil
}

func (f *fake) WithdrawInvitation(_ context.Context, _ id.ThreadID, u id.UserID) error {
	f.calls = append(f.calls, "withdraw "+f.names[u])
	return nil
}

func (f *fake) AnswerInvitation(_ context.Context, _ id.ThreadID, accept bool) error {
	f.calls = append(f.calls, fmt.Sprint("accept ", accept))
	return f.answering
}

func (f *fake) Settings(context.Context) (client.Settings, error) { return f.settings, nil }

func (f *fake) SetMayAdd(_ context.Context, who client.MayAdd) error {
	f.settings.MayAdd = who
	f.calls = append(f.calls, fmt.Sprint("nobody may add ", who == client.Nobody))
	return nil
}

func (f *fake) SetBlocked(_ context.Context, u id.UserID, blocked bool) error {
	f.settings.Blocked = slices.DeleteFunc(f.settings.Blocked, func(b id.UserID) bool { return b == u })
	if blocked {
		f.settings.Blocked = append(f.settings.Blocked, u)
	}
	f.calls = append(f.calls, fmt.Sprintf("block %s %v", f.names[u], blocked))
	return nil
}

func (f *fake) RemoveMember(_ context.Context, _ id.ThreadID, u id.UserID) error {
	f.calls = append(f.calls, "remove "+f.names[u])
	return nil
}

func (f *fake) Leave(context.Context, id.ThreadID) error {
	f.calls = append(f.calls, "leave")
	return nil
}

func (f *fake) Rename(_ context.Context, _ id.ThreadID, title string) error {
	f.calls = append(f.calls, "rename "+title)
	return nil
}

func (f *fake) Events(ctx context.Context) func(yield func(client.Event) bool) {
	return func(yield func(client.Event) bool) {
		for len(f.events) > 0 {
			e := f.events[0]
			if !yield(e) {
				return
			}
			f.events = f.events[1:]
			if ctx.Err() != nil {
				return
			}
		}
	}
}

var group = id.ThreadID{6: 0x70, 8: 0x80, 15: 9}

// screen drives a Model as the program does, without a terminal.
type screen struct {
	t *testing.T
	m *Model
	f *fake
}

func newScreen(t *testing.T, f *fake, w, h int) *screen { return newScreenWith(t, f, Config{}, w, h) }

func newScreenWith(t *testing.T, f *fake, cfg Config, w, h int) *screen {
	cfg.Profile, cfg.location = "ann", time.UTC
	if cfg.now == nil {
		cfg.now = func() time.Time { return noon }
	}
	s := &screen{t: t, f: f, m: New(t.Context(), cfg, f)}
	s.send(tea.WindowSizeMsg{Width: w, Height: h})
	return s
}

// send gives the model a message, then runs the commands that follow until there are none. Clocks and what asks the
// terminal are left out.
func (s *screen) send(msg tea.Msg) {
	s.t.Helper()
	_, cmd := s.m.Update(msg)
	s.run(cmd, 0)
}

func (s *screen) run(cmd tea.Cmd, depth int) {
	if cmd == nil {
		return
	}
	if depth > 50 {
		s.t.Fatal("commands without end")
	}
	switch msg := cmd().(type) {
	case nil, tickMsg, tea.QuitMsg:
	case againMsg: // in time; not here
	case tea.BatchMsg:
		for _, c := range msg {
			s.run(c, depth+1)
		}
	default:
		_, next := s.m.Update(msg)
		s.run(next, depth+1)
	}
}

func (s *screen) events(es ...client.Event) {
	for _, e := range es {
		s.send(EventMsg{Event: e})
	}
}

var keyCodes = map[string]tea.Key{
	"enter": {
		Code: tea.KeyEnter,
	}, "esc": {Code: tea.KeyEscape}, "tab": {Code: tea.KeyTab}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
	"pgup": {
		Code: tea.KeyPgUp,
	}, "pgdown": {Code: tea.KeyPgDown}, "f1": {Code: tea.KeyF1}, "alt+enter": {Code: tea.KeyEnter, Mod: tea.ModAlt},
	"alt+up":   {Code: tea.KeyUp, Mod: tea.ModAlt},
	"alt+down": {Code: tea.KeyDown, Mod: tea.ModAlt}, "ctrl+end": {Code: tea.KeyEnd, Mod: tea.ModCtrl},
	"ctrl+n": {
		Code: 'n',
		Mod:  tea.ModCtrl,
	}, "ctrl+g": {Code: 'g', Mod: tea.ModCtrl}, "ctrl+o": {Code: 'o', Mod: tea.ModCtrl},
	"ctrl+y": {Code: 'y', Mod: tea.ModCtrl}, "ctrl+p": {Code: 'p', Mod: tea.ModCtrl},
	"ctrl+r": {Code: 'r', Mod: tea.ModCtrl}, "ctrl+f": {Code: 'f', Mod: tea.ModCtrl},
}

func (s *screen) keys(names ...string) {
	s.t.Helper()
	for _, n := range names {
		if k, ok := keyCodes[n]; ok {
			s.send(tea.KeyPressMsg(k))
			continue
		}
		for _, r := range n {
			s.send(tea.KeyPressMsg{Code: r, Text: string(r)})
		}
	}
}

// text is the screen without colours.
func (s *screen) text() string { return ansi.Strip(s.m.View().Content) }

// golden compares the screen with a file of testdata and checks that it has the size of the window.
func (s *screen) golden(name string) {
	s.t.Helper()
	s.fits()
	lines := strings.Split(s.text(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	got := strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		s.t.Errorf("screen %s (-got +want):\n%s", name, diff)
	}
}

func (s *screen) fits() {
	s.t.Helper()
	lines := strings.Split(s.m.View().Content, "\n")
	if len(lines) != s.m.height {
		s.t.Errorf("%d lines on a screen of %d", len(lines), s.m.height)
	}
	for i, l := range lines {
		if w := s.m.ruler.width(l); w > s.m.width {
			s.t.Errorf("line %d is %d wide on a screen of %d: %q", i, w, s.m.width, ansi.Strip(l))
		}
	}
}

func message(t id.ThreadID, n int, from id.UserID, at time.Time, text string) client.Message {
	return client.Message{
		Place:  client.Place{Thread: t, Position: topic.Position(n * 10), Ordinal: int64(n), Time: at},
		ID:     msgID(n),
		Sender: from,
		Text:   text,
	}
}

func note(t id.ThreadID, pos, ord int, at time.Time, e *eventv1.Event) client.ThreadEvent {
	return client.ThreadEvent{
		Place: client.Place{Thread: t, Position: topic.Position(pos), Ordinal: int64(ord), Time: at},
		Event: e,
	}
}

func receipt(t id.ThreadID, u id.UserID, delivered, read int) client.Receipt {
	return client.Receipt{Thread: t, User: u, Watermark: thread.Watermark{
		DeliveredPosition: topic.Position(delivered * 10), DeliveredOrdinal: int64(delivered),
		ReadPosition: topic.Position(read * 10), ReadOrdinal: int64(read),
	}}
}

func direct(peer id.UserID, last int, preview string, unread int, at time.Time) *wirev1.ThreadSummary {
	t := id.DirectThread(ann, peer)
	return wirev1.ThreadSummary_builder{
		ThreadId: t[:], Kind: wirev1.ThreadKind_THREAD_KIND_DIRECT, DirectPeer: peer[:],
		LastPosition: int64(last * 10), LastOrdinal: int64(last), LastTimeMs: at.UnixMilli(), LastSender: peer[:],
		Preview: preview, Unread: int64(unread), MemberCount: 2, Member: true,
		Own: wirev1.MemberWatermark_builder{UserId: ann[:], ReadOrdinal: int64(last - unread)}.Build(),
	}.Build()
}

// village is an account with a chat and a group.
func village() *fake {
	f := newFake()
	with := id.DirectThread(ann, bob)
	yesterday := noon.Add(-20 * time.Hour)
	f.threads = []*wirev1.ThreadSummary{
		direct(bob, 4, "See you there 👋", 2, noon.Add(-time.Hour)),
		wirev1.ThreadSummary_builder{
			ThreadId: group[:], Kind: wirev1.ThreadKind_THREAD_KIND_GROUP, Title: "Sunday walk 散歩",
			LastPosition: 30, LastOrdinal: 2, LastTimeMs: yesterday.UnixMilli(), LastSender: carl[:],
			Preview: "I bring the map", MemberCount: 3, Member: true, Role: eventv1.Role_ROLE_ADMIN,
		}.Build(),
	}
	f.history[with] = []client.Event{
		message(with, 1, ann, yesterday, "Hello Bob, are you coming on Sunday?\nWe meet at the station."),
		message(
			with, 2, bob, yesterday.Add(time.Minute),
			"Yes! When does the train leave? I have to find my boots first, and then somebody who looks after the cat.",
		),
		client.Message{
			Place:  client.Place{Thread: with, Position: 30, Ordinal: 3, Time: noon.Add(-2 * time.Hour)},
			ID:     msgID(3),
			Sender: bob,
			Text:   "I mean the one at ten",
			Reply:  event.MessageRef{Author: ann, ID: msgID(1)},
		},
		message(with, 4, bob, noon.Add(-time.Hour), "See you there 👋"),
	}
	f.history[group] = []client.Event{
		note(group, 5, 0, yesterday, eventv1.Event_builder{
			UserId: ann[:],
			ThreadCreated: eventv1.ThreadCreated_builder{
				Title:     "Sunday walk 散歩",
				MemberIds: [][]byte{bob[:]},
			}.Build(),
		}.Build()),
		message(group, 1, ann, yesterday, "Who is in?"),
		note(group, 15, 1, yesterday, eventv1.Event_builder{
			UserId:      ann[:],
			MemberAdded: eventv1.MemberAdded_builder{MemberIds: [][]byte{carl[:]}}.Build(),
		}.Build()),
		client.Message{
			Place:  client.Place{Thread: group, Position: 30, Ordinal: 2, Time: yesterday},
			ID:     msgID(2),
			Sender: carl,
			Text:   "I bring the map",
		},
	}
	mark := func(u id.UserID, delivered, read int64) *wirev1.MemberWatermark {
		return wirev1.MemberWatermark_builder{
			UserId:            u[:],
			DeliveredPosition: delivered * 10,
			DeliveredOrdinal:  delivered,
			ReadPosition:      read * 10,
			ReadOrdinal:       read,
		}.Build()
	}
	f.members[group] = wirev1.Thread_builder{Summary: f.threads[1], Members: []*wirev1.Member{
		wirev1.Member_builder{Watermark: mark(ann, 2, 2), Role: eventv1.Role_ROLE_ADMIN, Name: "Ann"}.Build(),
		wirev1.Member_builder{Watermark: mark(bob, 1, 0), Role: eventv1.Role_ROLE_MEMBER, Name: "Bob"}.Build(),
		wirev1.Member_builder{Watermark: mark(carl, 2, 2), Role: eventv1.Role_ROLE_MEMBER, Name: "Carl 王"}.Build(),
	}}.Build()
	return f
}
