package chat

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"charm.land/bubbles/v2/textarea"
	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"heliograph/edge/client"
	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Sizes of pages and of what is kept.
const (
	listPage    = 100
	historyPage = 60
	maxNames    = 200  // ids in one request
	keepIdle    = 500  // events of a conversation that was never opened
	keepLoaded  = 4000 // events of one that was, once it is left
)

// Config of the chat.
type Config struct {
	// Profile is the name that the status bar shows.
	Profile string
	// Phone is put into the registration's first field.
	Phone string
	// Pin reads the PIN that was sent to a number since a moment, where the deployment runs on this machine; nil: it is
	// typed.
	Pin func(ctx context.Context, phone string, since time.Time) (string, error)
	// Outbox is what waited in the device file at the start, so that it is shown.
	Outbox []client.Outgoing
	// Unsent is what was refused or rejected before, and is shown as that.
	Unsent []client.Unsent

	// For tests.

	now      func() time.Time // the clock; nil: time.Now
	location *time.Location   // where times of day are shown for; nil: local
}

type link int

const (
	linkDown link = iota
	linkSyncing
	linkLive
)

type focus int

const (
	focusList focus = iota
	focusCompose
	focusSelect
	focusInfo
)

// Model is the screen. See the package comment; it implements tea.Model.
type Model struct {
	ctx    context.Context //nolint:containedctx // commands of bubbletea take no argument; it is the program's own
	cfg    Config
	client Client

	width, height int
	ruler         ruler
	dark          bool
	theme         *theme
	rev           int // grows when names, theme or widths change: every rendered line is stale

	link    link
	why     string // the last connection ended
	stopped string // the client has stopped for good
	outbox  int

	me       id.UserID
	names    map[id.UserID]string
	phones   map[id.UserID]string
	askNames map[id.UserID]*nameAsk // those that are not known
	parked   map[id.ThreadID]bool   // in which messages of the outbox wait, as was said

	convs       map[id.ThreadID]*conversation
	order       []*conversation     // as the list shows them
	invitations []client.Invitation // the latest first
	settings    client.Settings

	listToken  []byte // next page; nil: none
	listLoaded bool
	listBusy   bool
	listAt     time.Time   // no page is asked for before
	cursor     id.ThreadID // in the list
	filter     string
	filtering  bool

	open     *conversation
	newFrom  int64 // messages of open above this ordinal were unread when it was opened; -1: none
	focus    focus
	selected *item
	info     bool
	infoAt   int
	infoItem *item
	help     bool
	form     *form
	enrol    bool // the form is part of the registration
	input    textarea.Model

	notice    string
	noticeBad bool
	noticeEnd time.Time
}

// New returns the screen over a client; events of the client are to be given to the program as EventMsg, the end of its
// Run as StoppedMsg.
func New(ctx context.Context, cfg Config, c Client) *Model {
	if cfg.now == nil {
		cfg.now = time.Now
	}
	if cfg.location == nil {
		cfg.location = time.Local
	}
	m := &Model{
		ctx: ctx, cfg: cfg, client: c, ruler: ruler{method: ansi.WcWidth}, dark: true, theme: newTheme(true),
		newFrom: -1,
		names:   map[id.UserID]string{}, phones: map[id.UserID]string{}, askNames: map[id.UserID]*nameAsk{},
		convs: map[id.ThreadID]*conversation{}, parked: map[id.ThreadID]bool{},
		input: textarea.New(),
	}
	m.input.ShowLineNumbers = false
	m.input.Prompt = ""
	m.input.Placeholder = "Write a message"
	m.input.DynamicHeight, m.input.MinHeight, m.input.MaxHeight, m.input.MaxContentHeight = true, 1, 6, 4000
	m.input.SetVirtualCursor(false)
	m.input.KeyMap.InsertNewline.SetKeys("alt+enter", "shift+enter", "ctrl+j")
	m.styleInput()
	who, ok := c.Identity()
	if !ok {
		m.startRegistration()
		return m
	}
	m.me = who.User
	for _, u := range cfg.Unsent {
		m.unsent(u.Outgoing, m.refusal(u.Code, u.Reason))
	}
	for _, o := range cfg.Outbox {
		m.unsent(o, "")
	}
	m.outbox = len(cfg.Outbox)
	return m
}

// unsent shows a message that is not in the log; why is empty while it waits to get there.
func (m *Model) unsent(o client.Outgoing, why string) *item {
	text := "(sealed)"
	if t, ok := o.Text(); ok {
		text = Clean(t)
	}
	conv := m.conversation(o.Thread)
	if !o.DirectPeer.IsZero() {
		conv.peer = o.DirectPeer
	}
	it := &item{
		id:     o.ID,
		sender: m.me,
		text:   text,
		reply:  o.Reply(),
		failed: why,
		place:  client.Place{Thread: o.Thread, Time: time.UnixMilli(o.ClientTimeMS)},
	}
	conv.insert(it)
	return it
}

// refusal says why a message was not taken.
func (m *Model) refusal(c wirev1.Code, reason string) string {
	if c == wirev1.Code_CODE_NOT_A_MEMBER {
		return "you were not a member"
	}
	return Words(&wire.Error{Code: c, Message: reason}, m.cfg.now())
}

func (m *Model) styleInput() {
	s := textarea.DefaultStyles(m.dark)
	for _, st := range []*textarea.StyleState{&s.Focused, &s.Blurred} {
		st.CursorLine = st.CursorLine.UnsetBackground()
		st.Placeholder = m.theme.dim
	}
	s.Cursor.Blink = false
	m.input.SetStyles(s)
}

// EventMsg gives the screen an event of the client.
type EventMsg struct{ Event client.Event }

// StoppedMsg tells that the client's Run has returned.
type StoppedMsg struct{ Err error }

type tickMsg struct{}

type threadsMsg struct {
	threads []*wirev1.ThreadSummary
	next    []byte
	first   bool
	err     error
}

type threadMsg struct {
	id     id.ThreadID
	thread *wirev1.Thread
	err    error
}

type pageKind int

const (
	pageNewest pageKind = iota
	pageOlder
	pageGap
)

type historyMsg struct {
	id     id.ThreadID
	kind   pageKind
	events []client.Event
	next   topic.Position
	err    error
}

type usersMsg struct {
	users []*wirev1.User
	asked []id.UserID
	err   error
}

// Init asks the terminal what it is and starts the clock.
func (m *Model) Init() tea.Cmd {
	return tea.Batch(tea.RequestBackgroundColor, tick(), m.input.Focus())
}

func tick() tea.Cmd { return tea.Tick(time.Second, func(time.Time) tea.Msg { return tickMsg{} }) }

// Update takes one message and then sees to what follows from it: read watermarks, older pages, names.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	cmd := m.update(msg)
	return m, tea.Batch(cmd, m.settle())
}

func (m *Model) update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.rev++
	case tea.BackgroundColorMsg:
		m.dark = msg.IsDark()
		m.theme = newTheme(m.dark)
		m.rev++
		m.styleInput()
	case tea.ModeReportMsg:
		if msg.Mode == ansi.ModeUnicodeCore &&
			(msg.Value == ansi.ModeReset || msg.Value == ansi.ModeSet || msg.Value == ansi.ModePermanentlySet) {
			m.ruler.method = ansi.GraphemeWidth
			m.rev++
		}
	case tickMsg:
		m.outbox = m.client.Outbox()
		if m.notice != "" && m.cfg.now().After(m.noticeEnd) {
			m.notice = ""
		}
		return tick()
	case tea.KeyPressMsg:
		return m.key(msg)
	case tea.PasteMsg:
		return m.paste(msg)
	case tea.MouseWheelMsg:
		m.wheel(msg.Mouse())
	case tea.MouseClickMsg:
		return m.click(msg.Mouse())
	case EventMsg:
		return m.event(msg.Event)
	case StoppedMsg:
		m.link = linkDown
		if msg.Err != nil {
			m.stopped = Words(msg.Err, m.cfg.now())
		}
	case threadsMsg:
		return m.gotThreads(msg)
	case threadMsg:
		return m.gotThread(msg)
	case againMsg:
		if c := m.convs[msg.id]; c != nil && m.link == linkLive {
			return m.loadThread(c.id)
		}
	case historyMsg:
		return m.gotHistory(msg)
	case usersMsg:
		m.gotUsers(msg)
	case ownMsg:
		m.gotOwn(msg)
	case formMsg:
		return m.gotForm(msg)
	}
	return nil
}

// say puts a word into the status bar for a while.
func (m *Model) say(bad bool, text string) {
	m.notice, m.noticeBad, m.noticeEnd = text, bad, m.cfg.now().Add(8*time.Second)
}

func (m *Model) conversation(t id.ThreadID) *conversation {
	c := m.convs[t]
	if c == nil {
		c = newConversation(t, m.me)
		m.convs[t] = c
		m.order = append(m.order, c)
	}
	return c
}

// sortList puts the conversation with the newest message first.
func (m *Model) sortList() {
	slices.SortStableFunc(m.order, func(a, b *conversation) int {
		if c := b.when().Compare(a.when()); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(b.lastPos, a.lastPos), bytes.Compare(b.id[:], a.id[:]))
	})
}

// when is the time by which the list is ordered.
func (c *conversation) when() time.Time {
	t := c.lastTime
	if n := len(c.items); n > 0 && c.items[n-1].place.Time.After(t) {
		t = c.items[n-1].place.Time
	}
	return t
}

// event takes what the client yields.
func (m *Model) event(e client.Event) tea.Cmd {
	defer m.sortList()
	m.outbox = m.client.Outbox()
	switch e := e.(type) {
	case client.Connected:
		m.link, m.why = linkSyncing, ""
	case client.Synced:
		m.link, m.why = linkLive, ""
		clear(m.askNames)
		if who, ok := m.client.Identity(); ok {
			m.me = who.User
		}
		cmds := []tea.Cmd{m.loadList(nil), m.loadOwn()}
		if m.open != nil {
			clear(m.open.askedGap)
			cmds = append(cmds, m.loadPage(m.open, pageNewest, 0), m.loadThread(m.open.id))
		}
		return tea.Batch(cmds...)
	case client.Disconnected:
		m.link, m.why = linkDown, Words(e.Err, m.cfg.now())
	case client.Message:
		m.heard(e.Sender)
		return m.live(e, e.Place)
	case client.ThreadEvent:
		return m.live(e, e.Place)
	case client.Invitation:
		m.invited(e)
	case client.Receipt:
		c := m.convs[e.Thread]
		if c == nil {
			return nil
		}
		c.watermark(e.User, e.Watermark)
		if e.User == m.me {
			c.read(e.Watermark.ReadOrdinal)
		}
	case client.ThreadChanged:
		if t, err := id.From[id.ThreadID](e.Summary.GetThreadId()); err == nil {
			m.conversation(t).summary(e.Summary)
			if m.open != nil && m.open.id == t && m.link == linkLive {
				return m.loadThread(t)
			}
		}
	case client.Sent:
		if c := m.convs[e.Ack.Thread]; c != nil {
			c.place(m.me, e.ID, client.Place{Thread: e.Ack.Thread, Position: e.Ack.Position, Time: e.Ack.Time})
		}
	case client.Delayed:
		if !m.parked[e.Thread] {
			m.parked[e.Thread] = true
			m.say(true, "what you write to "+m.title(m.conversation(e.Thread))+" waits: "+Words(e.Err, m.cfg.now()))
		}
	case client.ThreadLate:
		if e.Err == nil && m.parked[e.Thread] {
			delete(m.parked, e.Thread)
			m.say(false, "what you wrote to "+m.title(m.conversation(e.Thread))+" goes out now")
		}
	case client.Unreadable:
		m.say(true, "the server sent something that this version cannot read")
	case client.Failed:
		m.fail(e.Thread, e.ID, e.Message, Words(e.Err, m.cfg.now()))
	case client.Rejected:
		m.fail(e.Thread, e.ID, e.Message, m.refusal(e.Code, ""))
	}
	return nil
}

// fail shows a message as not sent. It may be one of an earlier run, or of another device of the user: then there is
// nothing to show.
func (m *Model) fail(t id.ThreadID, x id.MessageID, o client.Outgoing, why string) {
	c := m.conversation(t)
	it := c.byID[changeKey{m.me, x}]
	switch {
	case it != nil:
		it.failed, it.key = why, lineKey{}
	case !o.ID.IsZero():
		m.unsent(o, why)
	}
	m.say(true, "a message to "+m.title(c)+" was refused: "+why)
}

// forget takes a message that was not sent from the screen and from the device.
func (m *Model) forget(c *conversation, it *item) {
	if err := m.client.Forget(it.id); err != nil {
		m.say(true, Words(err, m.cfg.now()))
		return
	}
	c.drop(it)
	delete(c.byID, changeKey{it.sender, it.id})
}

// live takes an event of a thread as it happens.
func (m *Model) live(e client.Event, p client.Place) tea.Cmd {
	_, known := m.convs[p.Thread]
	c := m.conversation(p.Thread)
	joined := c.member
	fresh := c.event(e, m.me, true)
	if fresh && c.scroll > 0 && c == m.open {
		i := slices.IndexFunc(c.items, func(it *item) bool { return it.placed && it.place.Position == p.Position })
		if i >= 0 {
			c.scroll += len(m.itemLines(c, i, m.conversationWidth()))
		}
	}
	if c != m.open {
		c.trim()
	}
	_, note := e.(client.ThreadEvent)
	if !known || !joined && c.member || note && c == m.open {
		return m.loadThread(p.Thread) // title, peer and members are not in the event
	}
	if c == m.open {
		if at := c.gap(); at > 0 {
			return m.loadPage(c, pageGap, at)
		}
	}
	return nil
}

// trim bounds what is kept of a conversation that is not on the screen.
func (c *conversation) trim() {
	switch n := len(c.items); {
	case !c.loaded && n > keepIdle, c.loaded && n > keepLoaded:
		cut := c.items[:n-keepIdle/2]
		for _, it := range cut {
			if it.message() {
				delete(c.byID, changeKey{it.sender, it.id})
			}
		}
		c.items = slices.Clone(c.items[n-keepIdle/2:])
		c.loaded, c.next, c.scroll, c.reply = false, 0, 0, nil
		clear(c.changes)
	}
}

// name of a user as others see him, or what else is known of him.
func (m *Model) name(u id.UserID) string {
	if n := m.names[u]; n != "" {
		return n
	}
	m.want(u)
	if p := m.phones[u]; p != "" {
		return p
	}
	return "user " + u.String()[:4]
}

// who is name, or "You".
func (m *Model) who(u id.UserID) string {
	if u == m.me {
		return "You"
	}
	return m.name(u)
}

// title of a conversation.
func (m *Model) title(c *conversation) string {
	switch {
	case c.group && c.title != "":
		return c.title
	case c.group:
		return "group"
	case c.peer.IsZero():
		return "chat"
	case c.peer == m.me:
		return "Notes to myself"
	default:
		return m.name(c.peer)
	}
}

// listed returns the conversations that the list shows.
func (m *Model) listed() []*conversation {
	if m.filter == "" {
		return m.order
	}
	want := strings.ToLower(m.filter)
	var out []*conversation
	for _, c := range m.order {
		if strings.Contains(strings.ToLower(m.title(c)+"\n"+c.preview), want) {
			out = append(out, c)
		}
	}
	return out
}

// show opens a conversation.
func (m *Model) show(c *conversation) tea.Cmd {
	if m.open == c {
		m.focusOn(focusCompose)
		return nil
	}
	if m.open != nil {
		m.open.draft = m.input.Value()
		m.open.trim()
	}
	m.open, m.cursor, m.selected, m.infoAt, m.infoItem = c, c.id, nil, 0, nil
	m.newFrom = -1
	if c.unread > 0 {
		m.newFrom = c.readOrd
	}
	m.input.SetValue(c.draft)
	m.focusOn(focusCompose)
	var cmds []tea.Cmd
	if !c.loaded && m.link == linkLive {
		cmds = append(cmds, m.loadPage(c, pageNewest, 0))
	}
	if m.link == linkLive {
		cmds = append(cmds, m.loadThread(c.id))
	}
	return tea.Batch(cmds...)
}

func (m *Model) focusOn(f focus) {
	m.focus = f
	if f == focusCompose {
		m.input.Focus()
	} else {
		m.input.Blur()
	}
	if f != focusSelect {
		m.selected = nil
	}
}

// send puts what was written into the outbox.
func (m *Model) send() {
	c, text := m.open, strings.TrimRight(m.input.Value(), " \n")
	if c == nil || strings.TrimSpace(text) == "" {
		return
	}
	if !c.member {
		m.say(true, "you are not a member of this group any more")
		return
	}
	to := client.To{Thread: c.id, Peer: c.peer}
	if c.group {
		to.Peer = id.UserID{}
	}
	if c.reply != nil {
		to.Reply = event.MessageRef{Author: c.reply.sender, ID: c.reply.id}
	}
	x, err := m.client.Send(to, Clean(text))
	if err != nil {
		m.say(true, Words(err, m.cfg.now()))
		return
	}
	c.insert(&item{
		id:     x,
		sender: m.me,
		text:   Clean(text),
		reply:  to.Reply,
		place:  client.Place{Thread: c.id, Time: m.cfg.now()},
	})
	c.scroll, c.reply, c.draft = 0, nil, ""
	m.newFrom = -1
	m.input.Reset()
	m.outbox = m.client.Outbox()
	m.sortList()
}

// settle does what follows from what is on the screen now.
func (m *Model) settle() tea.Cmd {
	var cmds []tea.Cmd
	for _, c := range m.order {
		if !c.group {
			m.want(c.peer)
		} else if c.preview != "" {
			m.want(c.lastSender)
		}
	}
	if m.width > 0 {
		m.layout()
		if c := m.open; c != nil && m.conversationShown() {
			v := m.view(c)
			if v.top < 5 && c.loaded && c.next > 0 && m.link == linkLive {
				cmds = append(cmds, m.loadPage(c, pageOlder, c.next))
			}
			if v.lowest != nil && m.form == nil && !m.help {
				p, own := v.lowest.place, c.marks[m.me]
				further := p.Position > own.ReadPosition || p.Ordinal > own.ReadOrdinal
				if further && (p.Ordinal > 0 || !v.lowest.message()) { // an ack has no ordinal; its event follows
					m.client.MarkRead(p)
					c.watermark(m.me, thread.Watermark{ReadPosition: p.Position, ReadOrdinal: p.Ordinal})
					c.read(p.Ordinal)
				}
			}
		}
	}
	// All of it, a page after the other: the head counts all that is unread.
	if m.listToken != nil && m.link == linkLive && !m.cfg.now().Before(m.listAt) {
		cmds = append(cmds, m.loadList(m.listToken))
	}
	return tea.Batch(append(cmds, m.loadNames())...)
}
