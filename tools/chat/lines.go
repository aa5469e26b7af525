package chat

import (
	"fmt"
	"strings"
	"time"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
)

// lineKey is everything that the rendered lines of an item depend on beside the item itself.
type lineKey struct {
	rev, width              int
	status                  status
	day, head, gap          bool
	selected, fresh         bool
	answer                  *item
	answerEdit, answerGone  bool
	text, why               int // lengths: an edit or a refusal changes the item in place
	today                   int
	sender                  id.UserID
	edited, deleted, placed bool
}

// quiet is after how long a sender's name is said again.
const quiet = 10 * time.Minute

func (m *Model) local(t time.Time) time.Time { return t.In(m.cfg.location) }

func (m *Model) clock(t time.Time) string { return m.local(t).Format("15:04") }

func sameDay(a, b time.Time) bool {
	ay, am, ad := a.Date()
	by, bm, bd := b.Date()
	return ay == by && am == bm && ad == bd
}

// day names a day as a separator does.
func (m *Model) day(t time.Time) string {
	t, now := m.local(t), m.local(m.cfg.now())
	switch {
	case sameDay(t, now):
		return "Today"
	case sameDay(t, now.AddDate(0, 0, -1)):
		return "Yesterday"
	case t.Year() == now.Year():
		return t.Format("Monday 2 January")
	default:
		return t.Format("Monday 2 January 2006")
	}
}

// stamp is the time in the list.
func (m *Model) stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	t, now := m.local(t), m.local(m.cfg.now())
	switch {
	case sameDay(t, now):
		return t.Format("15:04")
	case now.Sub(t) < 6*24*time.Hour && now.After(t):
		return t.Format("Mon")
	case t.Year() == now.Year():
		return t.Format("2 Jan")
	default:
		return t.Format("2006")
	}
}

// itemLines renders the item at an index of a conversation for a width.
func (m *Model) itemLines(c *conversation, at, width int) []string {
	it := c.items[at]
	var prev *item
	if at > 0 {
		prev = c.items[at-1]
	}
	key := lineKey{
		rev: m.rev, width: width, status: c.status(it, m.me), selected: it == m.selected, text: len(it.text),
		why: len(it.failed), sender: it.sender,
		edited: it.edited, deleted: it.deleted, placed: it.placed, today: m.local(m.cfg.now()).YearDay(),
	}
	key.day = prev == nil || !sameDay(m.local(prev.place.Time), m.local(it.place.Time))
	other := prev == nil || !prev.message() || prev.sender != it.sender || it.place.Time.Sub(prev.place.Time) > quiet
	key.head = c.group && it.sender != m.me && (other || key.day)
	key.gap = !key.day && prev != nil && (other || prev.message() != it.message())
	if c == m.open && m.newFrom >= 0 && it.message() && it.sender != m.me && it.place.Ordinal > m.newFrom {
		key.fresh = prev == nil || prev.place.Ordinal <= m.newFrom && (!prev.message() || prev.place.Ordinal > 0)
	}
	if !it.reply.IsZero() {
		if key.answer = c.find(it.reply); key.answer != nil {
			key.answerEdit, key.answerGone = key.answer.edited, key.answer.deleted
		}
	}
	if it.key == key && it.lines != nil {
		return it.lines
	}
	it.key, it.lines = key, m.render(c, it, key)
	return it.lines
}

func (m *Model) render(c *conversation, it *item, k lineKey) []string {
	var out []string
	if k.day {
		out = append(out, m.separator(m.day(it.place.Time), k.width))
	}
	if k.fresh {
		out = append(out, m.theme.accent.Render(m.centre("─── new ───", k.width)))
	} else if k.gap {
		out = append(out, "")
	}
	if !it.message() {
		for _, l := range m.ruler.wrap(m.note(it), max(10, k.width-8)) {
			out = append(out, m.theme.dim.Render(m.centre(l, k.width)))
		}
		return out
	}
	if k.head {
		out = append(out, "  "+m.theme.person(it.sender).Bold(true).Render(m.ruler.cut(m.name(it.sender), k.width-4)))
	}
	return append(out, m.bubble(c, it, k)...)
}

func (m *Model) centre(s string, w int) string {
	s = m.ruler.cut(s, w)
	return strings.Repeat(" ", max(0, (w-m.ruler.width(s))/2)) + s
}

func (m *Model) separator(s string, w int) string {
	s = m.ruler.cut(" "+s+" ", w)
	left := max(0, (w-m.ruler.width(s))/2)
	right := max(0, w-left-m.ruler.width(s))
	line := func(n int) string { return m.theme.rule.Render(strings.Repeat("─", n)) }
	return line(left) + m.theme.dim.Render(s) + line(right)
}

// bubble renders a message: others' at the left, one's own at the right.
func (m *Model) bubble(c *conversation, it *item, k lineKey) []string {
	mine := it.sender == m.me
	most := max(8, min(k.width-10, 76))
	text := it.text
	body, dim := m.theme.other, m.theme.otherDim
	if mine {
		body, dim = m.theme.own, m.theme.ownDim
	}
	if k.selected {
		body = m.theme.chosen
		dim = m.theme.chosen
	}
	if it.deleted {
		text, body = "this message was taken back", dim
	}
	lines := m.ruler.wrap(text, most)
	meta := m.clock(it.place.Time)
	if it.edited && !it.deleted {
		meta = "edited " + meta
	}
	mark, markStyle := "", dim
	switch k.status {
	case statusOutbox:
		mark = "◷"
	case statusSent:
		mark = "✓"
	case statusDelivered:
		mark = "✓✓"
	case statusRead:
		mark, markStyle = "✓✓", m.theme.ownRead
		if k.selected {
			markStyle = m.theme.chosen.Foreground(m.theme.ownRead.GetForeground()).Bold(true)
		}
	case statusFailed:
		mark, markStyle = "✗", m.theme.ownBad
	}
	metaWidth := m.ruler.width(meta)
	if mark != "" {
		metaWidth += 1 + m.ruler.width(mark)
	}
	answer := ""
	if !it.reply.IsZero() {
		answer = "↪ an earlier message"
		if !it.reply.Author.IsZero() {
			answer = "↪ " + m.who(it.reply.Author) + ": an earlier message"
		}
		if a := k.answer; a != nil {
			answer = "↪ " + m.who(a.sender) + ": " + CleanLine(clip(a.text, 256))
			if a.deleted {
				answer = "↪ a message that was taken back"
			}
		}
		answer = m.ruler.cut(answer, most)
	}
	widest := m.ruler.width(answer)
	for _, l := range lines {
		widest = max(widest, m.ruler.width(l))
	}
	last := m.ruler.width(lines[len(lines)-1])
	inline := last+2+metaWidth <= most
	if inline {
		widest = max(widest, last+2+metaWidth)
	}
	widest = max(widest, metaWidth)
	var rows []string
	if answer != "" {
		rows = append(rows, dim.Italic(true).Render(m.ruler.fit(answer, widest)))
	}
	tail := dim.Render(meta)
	if mark != "" {
		tail += dim.Render(" ") + markStyle.Render(mark)
	}
	for i, l := range lines {
		if i < len(lines)-1 || !inline {
			rows = append(rows, body.Render(m.ruler.fit(l, widest)))
			continue
		}
		rows = append(rows, body.Render(m.ruler.fit(l, widest-metaWidth))+tail)
	}
	if !inline {
		rows = append(rows, body.Render(strings.Repeat(" ", widest-metaWidth))+tail)
	}
	edge := m.theme.person(it.sender)
	if mine {
		edge = m.theme.accent
	}
	for i, r := range rows {
		r = body.Render(" ") + r + body.Render(" ")
		if mine {
			pad := strings.Repeat(" ", max(0, k.width-widest-4))
			rows[i] = pad + r + edge.Render("▐")
			continue
		}
		rows[i] = " " + edge.Render("▌") + r
	}
	if it.failed != "" {
		for _, l := range m.ruler.wrap("not sent: "+it.failed, most) {
			rows = append(rows, strings.Repeat(" ", max(0, k.width-m.ruler.width(l)-2))+m.theme.bad.Render(l))
		}
	}
	return rows
}

// note says what happened to a thread.
func (m *Model) note(it *item) string {
	actor := m.who(it.sender)
	var text string
	switch e := it.event; e.WhichBody() {
	case eventv1.Event_ThreadCreated_case:
		text = fmt.Sprintf("%s created “%s”", actor, CleanLine(e.GetThreadCreated().GetTitle()))
		if others := m.namesOf(idsOf(e.GetThreadCreated().GetMemberIds()), it.sender); others != "" {
			text += " with " + others
		}
	case eventv1.Event_ThreadRenamed_case:
		text = fmt.Sprintf("%s renamed the group to “%s”", actor, CleanLine(e.GetThreadRenamed().GetTitle()))
	case eventv1.Event_MemberAdded_case:
		text = actor + " added " + m.namesOf(idsOf(e.GetMemberAdded().GetMemberIds()), id.UserID{})
	case eventv1.Event_MemberRemoved_case:
		text = actor + " removed " + m.namesOf(idsOf([][]byte{e.GetMemberRemoved().GetMemberId()}), id.UserID{})
	case eventv1.Event_MemberLeft_case:
		text = actor + " left"
	case eventv1.Event_RoleChanged_case:
		who := m.namesOf(idsOf([][]byte{e.GetRoleChanged().GetMemberId()}), id.UserID{})
		if e.GetRoleChanged().GetRole() == eventv1.Role_ROLE_ADMIN {
			text = actor + " made " + who + " an admin"
		} else {
			text = actor + " took the admin role from " + who
		}
	default:
		if text = m.inviteNote(it); text == "" {
			text = "something that this version does not know"
		}
	}
	return text + " · " + m.clock(it.place.Time)
}

// namesOf lists users in words, without one.
func (m *Model) namesOf(users []id.UserID, without id.UserID) string {
	var names []string
	more := 0
	for _, u := range users {
		switch {
		case u == without:
		case len(names) == 8:
			more++
		case u == m.me:
			names = append(names, "you")
		default:
			names = append(names, m.name(u))
		}
	}
	if more > 0 {
		return strings.Join(names, ", ") + fmt.Sprintf(" and %d more", more)
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

// shown is what of a conversation is on the screen.
type shown struct {
	lines  []string
	top    int   // index of the uppermost item
	lowest *item // lowest item of the log whose end can be seen
}

// view renders as much of a conversation as the screen shows, from the bottom up, and keeps its scroll within bounds.
func (m *Model) view(c *conversation) shown {
	w, h := m.conversationWidth(), m.conversationHeight()
	type block struct {
		lines []string
		at    int
	}
	var blocks []block
	total, i := 0, len(c.items)
	for i > 0 && total < h+c.scroll {
		i--
		b := block{m.itemLines(c, i, w), i}
		blocks = append(blocks, b)
		total += len(b.lines)
	}
	if i == 0 && total < h+c.scroll {
		head := block{at: 0}
		switch {
		case c.loaded && c.next == 0 && c.hidden():
			words := "· what came before is not shown to you ·"
			if c.elsewhere {
				words = "· what came before is on your former device ·"
			}
			head.lines = []string{m.theme.dim.Render(m.centre(words, w))}
		case c.loaded && c.next == 0 && len(c.items) == 0:
			head.lines = []string{m.theme.dim.Render(m.centre("Say hello.", w)), ""}
		case c.loaded && c.next == 0:
			head.lines = []string{m.theme.dim.Render(m.centre("· this is where it begins ·", w))}
		default:
			head.lines = []string{m.theme.dim.Render(m.centre("· loading what came before ·", w))}
		}
		blocks = append(blocks, head)
		total += len(head.lines)
		if total < h+c.scroll {
			c.scroll = max(0, total-h)
		}
	}
	end := total - c.scroll
	start := max(0, end-h)
	out := shown{lines: make([]string, 0, h), top: -1}
	for range h - (end - start) {
		out.lines = append(out.lines, "")
	}
	line := 0
	for n := len(blocks) - 1; n >= 0; n-- {
		b := blocks[n]
		for j, l := range b.lines {
			if line >= start && line < end {
				if out.top < 0 {
					out.top = b.at
				}
				out.lines = append(out.lines, l)
				if j == len(b.lines)-1 && b.at < len(c.items) && c.items[b.at].placed {
					out.lowest = c.items[b.at]
				}
			}
			line++
		}
	}
	return out
}

// reveal scrolls so that an item can be seen.
func (m *Model) reveal(c *conversation, at int) {
	w, h := m.conversationWidth(), m.conversationHeight()
	below := 0
	for i := len(c.items) - 1; i > at; i-- {
		below += len(m.itemLines(c, i, w))
	}
	own := len(m.itemLines(c, at, w))
	if below < c.scroll {
		c.scroll = below
	}
	if below+own > c.scroll+h {
		c.scroll = below + min(own, h) - h
	}
	c.scroll = max(0, c.scroll)
}
