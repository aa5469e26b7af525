package chat

import (
	"bytes"
	"errors"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func (m *Model) loadList(token []byte) tea.Cmd {
	if m.listBusy {
		return nil
	}
	m.listBusy = true
	return func() tea.Msg {
		threads, next, err := m.client.Threads(m.ctx, listPage, token)
		return threadsMsg{threads: threads, next: next, first: token == nil, err: err}
	}
}

func (m *Model) loadThread(t id.ThreadID) tea.Cmd {
	return func() tea.Msg {
		th, err := m.client.Thread(m.ctx, t)
		return threadMsg{id: t, thread: th, err: err}
	}
}

func (m *Model) loadPage(c *conversation, kind pageKind, before topic.Position) tea.Cmd {
	if c.loading && kind != pageGap {
		return nil
	}
	c.loading = c.loading || kind != pageGap
	t := c.id
	return func() tea.Msg {
		events, next, err := m.client.History(m.ctx, t, before, historyPage)
		return historyMsg{id: t, kind: kind, events: events, next: next, err: err}
	}
}

// listWait is after how long a page of the list is asked for again that did not come.
const listWait = 5 * time.Second

func (m *Model) gotThreads(msg threadsMsg) tea.Cmd {
	m.listBusy, m.listAt = false, time.Time{}
	if msg.err != nil {
		m.say(true, "the thread list: "+Words(msg.err, m.cfg.now()))
		m.listAt = m.cfg.now().Add(listWait)
		return nil
	}
	if !msg.first || !m.listLoaded {
		m.listToken = msg.next
	}
	m.listLoaded = true
	for _, s := range msg.threads {
		if t, err := id.From[id.ThreadID](s.GetThreadId()); err == nil {
			m.conversation(t).summary(s)
		}
	}
	m.sortList()
	return nil
}

// againMsg asks for a thread again: the view was behind what came live.
type againMsg struct{ id id.ThreadID }

// patience is how often a thread is asked for again until the view has caught up; the waits double from wait on.
const (
	patience = 6
	wait     = 200 * time.Millisecond
)

func (m *Model) gotThread(msg threadMsg) tea.Cmd {
	c := m.convs[msg.id]
	if c == nil {
		return nil
	}
	behind := errors.Is(msg.err, &wire.Error{Code: wirev1.Code_CODE_NOT_A_MEMBER}) && c.lastPos >= 0 && c.member
	if msg.err == nil {
		behind = topic.Position(msg.thread.GetSummary().GetLastPosition()) < c.lastPos
		c.details(msg.thread, behind)
		for _, mem := range msg.thread.GetMembers() {
			if u, err := id.From[id.UserID](mem.GetWatermark().GetUserId()); err == nil {
				m.named(u, mem.GetName())
			}
		}
		for _, i := range msg.thread.GetInvited() {
			if u, err := id.From[id.UserID](i.GetUserId()); err == nil {
				m.named(u, i.GetName())
			}
		}
		m.sortList()
	}
	if !behind || c.tries >= patience {
		c.tries = 0
		return nil
	}
	c.tries++
	return tea.Tick(wait<<(c.tries-1), func(time.Time) tea.Msg { return againMsg{msg.id} })
}

func (m *Model) gotHistory(msg historyMsg) tea.Cmd {
	c := m.convs[msg.id]
	if c == nil {
		return nil
	}
	if msg.kind != pageGap {
		c.loading = false
	}
	if msg.err != nil {
		if !c.loaded && errors.Is(msg.err, &wire.Error{Code: wirev1.Code_CODE_NOT_A_MEMBER}) {
			c.loaded = true // it is so new that the views do not know it; what there is comes live
			return nil
		}
		m.say(true, "older messages: "+Words(msg.err, m.cfg.now()))
		return nil
	}
	for _, e := range msg.events {
		c.event(e, m.me, false)
	}
	if msg.kind == pageOlder || msg.kind == pageNewest && !c.loaded {
		c.next = msg.next
	}
	c.loaded = true
	if at := c.gap(); at > 0 {
		return m.loadPage(c, pageGap, at)
	}
	return nil
}

func (m *Model) named(u id.UserID, name string) {
	name = CleanLine(name)
	if name != "" && m.names[u] != name {
		m.names[u] = name
		m.rev++
	}
}

// nameAsk is the asking for a name that is not known.
type nameAsk struct {
	busy  bool      // asked for, without an answer yet
	at    time.Time // not before; zero: at once
	tries int       // answers without a name
}

// A stranger may say his name after he has written, and the view of users be behind him: so he is asked for again until
// his name is known, after waits that double, and soon when he writes.
const (
	nameWait    = 2 * time.Second
	maxNameWait = time.Minute
)

func (m *Model) gotUsers(msg usersMsg) {
	for _, u := range msg.users {
		if x, err := id.From[id.UserID](u.GetUserId()); err == nil {
			m.named(x, u.GetName())
		}
	}
	for _, u := range msg.asked {
		a := m.askNames[u]
		switch {
		case a == nil:
		case m.names[u] != "":
			delete(m.askNames, u)
		default:
			a.busy, a.at = false, m.cfg.now().Add(min(maxNameWait, nameWait<<min(a.tries, 10)))
			a.tries++
		}
	}
}

// heard has a stranger asked for soon who has just written.
func (m *Model) heard(u id.UserID) {
	if a := m.askNames[u]; a != nil {
		a.tries = 0
		if soon := m.cfg.now().Add(nameWait); a.at.After(soon) {
			a.at = soon
		}
	}
}

// want notes that a name is needed.
func (m *Model) want(u id.UserID) {
	if u.IsZero() || m.names[u] != "" || m.askNames[u] != nil {
		return
	}
	m.askNames[u] = &nameAsk{}
}

// loadNames asks for the names that are needed.
func (m *Model) loadNames() tea.Cmd {
	if m.link != linkLive {
		return nil
	}
	var ids []id.UserID
	for u, a := range m.askNames {
		if !a.busy && len(ids) < maxNames && !m.cfg.now().Before(a.at) {
			ids = append(ids, u)
			a.busy = true
		}
	}
	if len(ids) == 0 {
		return nil
	}
	slices.SortFunc(ids, func(a, b id.UserID) int { return bytes.Compare(a[:], b[:]) })
	return func() tea.Msg {
		users, err := m.client.Users(m.ctx, ids...)
		return usersMsg{users: users, asked: ids, err: err}
	}
}
