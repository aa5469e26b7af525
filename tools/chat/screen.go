package chat

import (
	"fmt"
	"slices"
	"strings"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"

	eventv1 "heliograph/schemas/event/v1"
)

const (
	listHead  = 2  // lines above the list
	narrow    = 64 // below, list and conversation take turns
	infoWidth = 34
)

func (m *Model) bodyHeight() int { return max(1, m.height-1) }

func (m *Model) listShown() bool {
	return !m.enrol && (m.width >= narrow || m.focus == focusList && m.form == nil || m.open == nil && m.form == nil)
}

func (m *Model) listWidth() int {
	switch {
	case !m.listShown():
		return 0
	case m.width < narrow:
		return m.width
	default:
		return max(24, min(36, m.width*3/10))
	}
}

// rightAt is the first column beside the list.
func (m *Model) rightAt() int {
	if w := m.listWidth(); w > 0 {
		return min(m.width, w+1)
	}
	return 0
}

func (m *Model) rightWidth() int { return max(0, m.width-m.rightAt()) }

// infoAlone tells whether the panel takes the conversation's place, for want of room.
func (m *Model) infoAlone() bool { return m.info && m.rightWidth() < 42+infoWidth }

func (m *Model) conversationShown() bool {
	return m.open != nil && m.rightWidth() > 0 && !m.infoAlone()
}

func (m *Model) conversationWidth() int {
	if m.info && !m.infoAlone() {
		return m.rightWidth() - infoWidth - 1
	}
	return max(10, m.rightWidth())
}

func (m *Model) conversationHeight() int {
	h := m.bodyHeight() - 3 - m.input.Height()
	if m.open != nil && m.open.reply != nil {
		h--
	}
	return max(1, h)
}

func (m *Model) pageSize() int { return max(1, m.conversationHeight()-2) }

func (m *Model) listRows() int { return max(1, (m.bodyHeight()-listHead)/2) }

// listTop is the first conversation that the list shows: the one in the middle is the chosen one, as far as there is
// room.
func (m *Model) listTop() int {
	list := m.listed()
	at := max(0, slices.IndexFunc(list, func(c *conversation) bool { return c.id == m.cursor }))
	return max(0, min(at-m.listRows()/2, len(list)-m.listRows()))
}

// layout fits the input to the window and keeps the list's cursor on something.
func (m *Model) layout() {
	m.input.MaxHeight = max(1, min(6, m.height/3))
	m.input.SetWidth(max(4, m.conversationWidth()-4))
	list := m.listed()
	if len(list) > 0 && !slices.ContainsFunc(list, func(c *conversation) bool { return c.id == m.cursor }) {
		m.cursor = list[0].id
	}
	if m.open != nil {
		m.infoAt = max(0, min(m.infoAt, len(m.people(m.open))-1))
	}
}

// View renders the screen.
func (m *Model) View() tea.View {
	v := tea.NewView("")
	v.AltScreen = true
	v.MouseMode = tea.MouseModeCellMotion
	v.WindowTitle = "Heliograph"
	if n := m.unread(); n > 0 {
		v.WindowTitle = fmt.Sprintf("(%d) Heliograph", n)
	}
	if m.width < 20 || m.height < 6 {
		v.SetContent("too small")
		return v
	}
	var right []string
	w, h, x := m.rightWidth(), m.bodyHeight(), m.rightAt()
	var cursor *tea.Cursor
	switch {
	case w == 0:
	case m.help:
		right = m.helpLines(w, h)
	case m.form != nil:
		right, cursor = m.formLines(w, h)
	case m.open == nil:
		right = m.emptyLines(w, h)
	case m.infoAlone():
		right = m.infoLines(m.open, w, h)
	default:
		right, cursor = m.conversationLines(h)
		if m.info {
			cw := m.conversationWidth()
			for i, l := range m.infoLines(m.open, infoWidth, h) {
				right[i] = m.ruler.fit(right[i], cw) + m.theme.rule.Render("│") + l
			}
		}
	}
	var b strings.Builder
	list := m.listLines(h)
	for y := range h {
		if x > 0 {
			b.WriteString(list[y])
			if w > 0 {
				b.WriteString(m.theme.rule.Render("│"))
			}
		}
		if y < len(right) {
			b.WriteString(m.ruler.cut(right[y], w))
		}
		b.WriteByte('\n')
	}
	b.WriteString(m.statusLine())
	v.SetContent(b.String())
	if cursor != nil {
		cursor.X += x
		cursor.Y = min(cursor.Y, h-1)
		v.Cursor = cursor
	}
	return v
}

func (m *Model) unread() int64 {
	var n int64
	for _, c := range m.order {
		n += c.unread
	}
	return n
}

// listLines renders the list: two lines for each conversation.
func (m *Model) listLines(h int) []string {
	w := m.listWidth()
	if w == 0 {
		return nil
	}
	out := make([]string, 0, h)
	head := m.theme.accent.Render(" Chats")
	right := ""
	if n := m.unread(); n > 0 {
		more := ""
		if m.listToken != nil {
			more = "+" // there are threads that are not loaded yet
		}
		right = m.theme.badge.Render(fmt.Sprintf(" %d%s ", n, more)) + " "
	}
	out = append(out, m.ruler.between(head, right, w))
	switch {
	case m.filtering:
		out = append(out, m.ruler.fit(m.theme.accent.Render(" / ")+m.filter+"▏", w))
	case m.filter != "":
		out = append(out, m.ruler.fit(m.theme.dim.Render(" / "+m.filter+" (esc: all)"), w))
	case len(m.invitations) > 0:
		out = append(out, m.ruler.fit(m.theme.accent.Render(m.invitationsLine()), w))
	default:
		out = append(out, m.theme.rule.Render(strings.Repeat("─", w)))
	}
	list := m.listed()
	if len(list) == 0 {
		words := "No chats yet."
		switch {
		case m.filter != "":
			words = "Nothing found."
		case !m.listLoaded:
			words = "Loading…"
		}
		out = append(out, "", m.theme.dim.Render(m.ruler.fit(" "+words, w)))
	}
	top := m.listTop()
	for _, c := range list[min(top, len(list)):min(len(list), top+m.listRows())] {
		out = append(out, m.listItem(c, w)...)
	}
	for len(out) < h {
		out = append(out, "")
	}
	out = out[:h]
	for i := range out {
		out[i] = m.ruler.fit(out[i], w)
	}
	return out
}

func (m *Model) listItem(c *conversation, w int) []string {
	title := m.title(c)
	preview := c.preview
	last := c.lastItem()
	who := c.lastSender
	if last != nil && !last.placed { // newer than what the log has
		preview, who = CleanLine(clip(last.text, 256)), last.sender
	}
	switch {
	case c.draft != "" && c != m.open:
		preview = "Draft: " + CleanLine(clip(c.draft, 256))
	case preview == "" && c.lastOrd > 0 && c.elsewhere && last == nil:
		preview = "on your former device"
	case preview == "" && !c.lastTime.IsZero():
		preview = "(sealed)"
	case preview == "":
		preview = "no messages yet"
	case who == m.me:
		preview = "You: " + preview
	case c.group:
		preview = m.name(who) + ": " + preview
	}
	if last != nil && last.failed != "" && !last.placed && c.draft == "" {
		preview = "Not sent: " + CleanLine(clip(last.text, 256))
	}
	if !c.member {
		preview = "you are no longer a member"
	}
	mark := " "
	if c == m.open {
		mark = "▌"
	}
	badge := ""
	if n := c.unread; n > 0 {
		badge = fmt.Sprintf(" %d ", n)
		if n > 999 {
			badge = " 999+ "
		}
	}
	chosen := m.focus == focusList && c.id == m.cursor
	if chosen {
		s := m.theme.chosen
		one := m.ruler.between(m.ruler.cut(title, w-9), m.stamp(c.when())+" ", w-2)
		two := m.ruler.between(preview, strings.TrimSpace(badge)+" ", w-2)
		return []string{
			m.theme.accent.Render(mark) + s.Bold(true).Render(" "+one),
			m.theme.accent.Render(mark) + s.Render(" "+two),
		}
	}
	if badge != "" {
		title, badge = m.theme.bold.Render(m.ruler.cut(title, w-9)), m.theme.badge.Render(badge)+" "
	}
	return []string{
		m.theme.accent.Render(mark) + " " + m.ruler.between(title, m.theme.dim.Render(m.stamp(c.when()))+" ", w-2),
		m.theme.accent.Render(mark) + " " + m.ruler.between(m.theme.dim.Render(m.ruler.cut(preview, w-2)), badge, w-2),
	}
}

// lastItem is the last message that is loaded.
func (c *conversation) lastItem() *item {
	for i := len(c.items) - 1; i >= 0; i-- {
		if c.items[i].message() {
			return c.items[i]
		}
	}
	return nil
}

func (m *Model) subtitle(c *conversation) string {
	switch {
	case c.group && !c.member:
		return "you are no longer a member"
	case c.group && c.count == 1:
		return "1 member"
	case c.group && c.count > 0:
		return fmt.Sprintf("%d members", c.count)
	}
	if p := m.phones[c.peer]; p != "" && p != m.title(c) {
		return p
	}
	return ""
}

func (m *Model) conversationLines(h int) ([]string, *tea.Cursor) {
	c, w := m.open, m.conversationWidth()
	out := make([]string, 0, h)
	title, subtitle := m.theme.bold.Render(m.ruler.cut(m.title(c), w-4)), m.theme.dim.Render(m.subtitle(c))
	out = append(out, m.ruler.between(" "+title, subtitle+" ", w))
	out = append(out, m.theme.rule.Render(strings.Repeat("─", w)))
	out = append(out, m.view(c).lines...)
	rule := strings.Repeat("─", w)
	if c.scroll > 0 {
		below := " ↓ newer below "
		if n := c.unread; n > 0 {
			below = fmt.Sprintf(" ↓ %d unread below ", n)
		}
		rule = strings.Repeat("─", max(0, w-m.ruler.width(below)-2)) + below + "──"
	}
	out = append(out, m.theme.rule.Render(rule))
	if c.reply != nil {
		text := " ↪ " + m.who(c.reply.sender) + ": " + CleanLine(clip(c.reply.text, 256))
		out = append(out, m.theme.accent.Render(m.ruler.cut(text, w-14))+m.theme.dim.Render("  esc cancels"))
	}
	at := len(out)
	prompt := m.theme.dim.Render(" › ")
	if m.focus == focusCompose {
		prompt = m.theme.accent.Render(" › ")
	}
	for i, l := range strings.Split(m.input.View(), "\n") {
		if i > 0 {
			prompt = "   "
		}
		out = append(out, prompt+l)
	}
	var cursor *tea.Cursor
	if m.focus == focusCompose && !m.filtering {
		if cursor = m.input.Cursor(); cursor != nil {
			cursor.X += 3
			cursor.Y += at
		}
	}
	for len(out) < h {
		out = append(out, "")
	}
	return out[:h], cursor
}

func (m *Model) emptyLines(w, h int) []string {
	words := []string{
		m.theme.accent.Render(m.centre("Heliograph", w)), "",
		m.theme.dim.Render(m.centre("↑ ↓ and enter open a chat", w)),
		m.theme.dim.Render(m.centre("ctrl+n begins one with a phone number", w)),
		m.theme.dim.Render(m.centre("ctrl+g makes a group · F1 shows the keys", w)),
	}
	return append(make([]string, max(0, h/2-3)), words...)
}

func (m *Model) formLines(w, h int) ([]string, *tea.Cursor) {
	f := m.form
	inner := max(12, min(58, w-6))
	var body []string
	add := func(style func(...string) string, text string) {
		for _, l := range m.ruler.wrap(text, inner) {
			body = append(body, style(l))
		}
	}
	add(m.theme.accent.Render, f.title)
	body = append(body, "")
	cx, cy := -1, 0
	var in *textinput.Model
	for i := range f.fields {
		f.fields[i].input.SetWidth(inner - 4)
		label := m.theme.dim.Render(f.fields[i].label)
		mark := "  "
		if i == f.at {
			mark = m.theme.accent.Render("› ")
			in, cx, cy = &f.fields[i].input, 2, len(body)+1
		}
		body = append(body, label, mark+f.fields[i].input.View(), "")
	}
	switch {
	case f.busy != "":
		add(m.theme.dim.Render, f.busy+"…")
		if m.link == linkDown && m.why != "" {
			add(m.theme.bad.Render, "no connection: "+m.why)
		}
	case f.err != "":
		add(m.theme.bad.Render, f.err)
		body = append(body, "")
	}
	for _, hint := range f.hint {
		add(m.theme.dim.Render, hint)
	}
	left, top := max(0, (w-inner-4)/2), max(0, (h-len(body)-2)/2)
	pad := strings.Repeat(" ", left)
	out := make([]string, top, h)
	out = append(out, pad+m.theme.rule.Render("╭"+strings.Repeat("─", inner+2)+"╮"))
	for _, l := range body {
		out = append(out, pad+m.theme.rule.Render("│")+" "+m.ruler.fit(l, inner)+" "+m.theme.rule.Render("│"))
	}
	out = append(out, pad+m.theme.rule.Render("╰"+strings.Repeat("─", inner+2)+"╯"))
	if in == nil || f.busy != "" {
		return out, nil
	}
	cursor := in.Cursor()
	if cursor != nil {
		cursor.X += left + 2 + cx
		cursor.Y = top + 1 + cy
	}
	return out, cursor
}

// people lists the members as the panel shows them, and behind them those who are invited.
func (m *Model) people(c *conversation) []member {
	if len(c.members) > 0 || c.group {
		out := slices.Clone(c.members)
		for _, u := range c.invited {
			out = append(out, member{user: u, invited: true})
		}
		return out
	}
	if c.peer.IsZero() {
		return nil
	}
	return []member{{user: m.me}, {user: c.peer}}
}

func (m *Model) infoLines(c *conversation, w, h int) []string {
	var out []string
	add := func(style func(...string) string, text string) {
		for _, l := range m.ruler.wrap(text, w-2) {
			out = append(out, " "+style(l))
		}
	}
	add(m.theme.bold.Render, m.title(c))
	kind := "chat of two"
	if c.group {
		kind = fmt.Sprintf("group, %d members", c.count)
	}
	plural := "s"
	if c.lastOrd == 1 {
		plural = ""
	}
	add(m.theme.dim.Render, fmt.Sprintf("%s, %d message%s", kind, c.lastOrd, plural))
	out = append(out, "")
	it := m.infoItem
	if it == nil { // the last own message
		for i := len(c.items) - 1; i >= 0 && it == nil; i-- {
			if x := c.items[i]; x.message() && x.sender == m.me && x.placed {
				it = x
			}
		}
	}
	if it != nil {
		what := "your last message"
		if m.infoItem != nil {
			what = "this message"
		}
		add(m.theme.accent.Render, fmt.Sprintf("%s, %s:", what, m.local(it.place.Time).Format("2 Jan 15:04:05")))
		out = append(out, " "+m.ruler.cut("“"+CleanLine(clip(it.text, 128))+"”", w-2))
		add(m.theme.dim.Render, fmt.Sprintf("position %d in the log", it.place.Position))
		add(m.theme.dim.Render, "helio trace "+it.id.String())
		out = append(out, "")
	}
	people := m.people(c)
	var keys string
	switch {
	case c.group && c.member && c.role == eventv1.Role_ROLE_ADMIN:
		keys = "a add · v invite · d remove · r rename · l leave · b block · esc closes"
	case c.group && c.member:
		keys = "l leave · b block · esc closes"
	default:
		keys = "b block · esc closes"
	}
	foot := m.ruler.wrap(keys, w-2)
	rows := max(1, h-len(out)-len(foot)-1)
	top := max(0, min(m.infoAt-rows/2, len(people)-rows))
	for i, p := range people[min(top, len(people)):min(len(people), top+rows)] {
		name := m.who(p.user)
		if p.role == eventv1.Role_ROLE_ADMIN {
			name += " (admin)"
		}
		reach := ""
		switch {
		case p.invited:
			reach = m.theme.dim.Render("invited")
		case it != nil && p.user != it.sender:
			switch {
			case c.joined[p.user] > it.place.Position:
				reach = m.theme.dim.Render("came later")
			default:
				reach = map[status]string{
					statusSent: m.theme.dim.Render("✓ sent"), statusDelivered: m.theme.dim.Render("✓✓ delivered"),
					statusRead: m.theme.good.Render("✓✓ read"),
				}[c.reach(p.user, it)]
			}
		}
		mark := "  "
		if m.focus == focusInfo && top+i == m.infoAt {
			mark = m.theme.accent.Render("› ")
		}
		out = append(out, m.ruler.between(mark+name, reach+" ", w))
	}
	for len(out) < h-len(foot) {
		out = append(out, "")
	}
	for _, l := range foot {
		out = append(out, " "+m.theme.dim.Render(l))
	}
	return out[:min(len(out), h)]
}

var helpText = [][2]string{
	{"enter", "send"},
	{"alt+enter, ctrl+j", "new line"},
	{"alt+↑ alt+↓", "chat above or below"},
	{"pgup pgdown, wheel", "scroll"},
	{"↑ in an empty line, ctrl+r", "choose a message: enter replies, i shows who has it"},
	{"esc, tab", "to the list and back"},
	{"/ in the list, ctrl+f", "find in the list"},
	{"ctrl+n", "new chat by phone number"},
	{"ctrl+g", "new group"},
	{"ctrl+o", "members, receipts, add, invite, remove, block"},
	{"ctrl+y, ctrl+p", "invitations, settings"},
	{"ctrl+c", "quit"},
	{"", ""},
	{"◷", "in the outbox of this device"},
	{"✓", "the log has it"},
	{"✓✓", "on every member's device; in colour: read by all"},
}

func (m *Model) helpLines(w, h int) []string {
	out := []string{" " + m.theme.accent.Render("Keys") + m.theme.dim.Render("  any key closes"), ""}
	for _, k := range helpText {
		left := min(28, w/2)
		for i, l := range m.ruler.wrap(k[1], max(10, w-left-2)) {
			key := k[0]
			if i > 0 {
				key = ""
			}
			out = append(out, " "+m.theme.bold.Render(m.ruler.fit(key, left))+l)
		}
	}
	return out[:min(len(out), h)]
}

func (m *Model) statusLine() string {
	state := map[link]string{linkDown: "○ connecting", linkSyncing: "◌ syncing", linkLive: "● live"}[m.link]
	switch {
	case m.enrol && m.link == linkDown && m.why == "":
		state = "○ not registered yet"
	case m.stopped != "":
		state = "✗ " + m.stopped
	}
	left := " " + state
	if m.cfg.Profile != "" && m.stopped == "" {
		left += " · " + CleanLine(m.cfg.Profile)
	}
	if m.outbox > 0 {
		left += fmt.Sprintf(" · ◷ %d in the outbox", m.outbox)
	}
	if m.stopped == "" && m.link == linkDown && m.why != "" {
		left += " · " + m.why
	}
	var right string
	switch {
	case m.notice != "":
		right = m.notice + " "
		if m.noticeBad {
			right = "! " + right
		}
	case m.form != nil || m.help:
		right = ""
	case m.focus == focusList:
		right = "enter open · / find · ctrl+n chat · ctrl+g group · F1 help "
	case m.focus == focusSelect && m.selected != nil && m.selected.failed != "":
		right = "↑↓ choose · enter write it again · d forget · esc back "
	case m.focus == focusSelect:
		right = "↑↓ choose · enter reply · i receipts · esc back "
	case m.focus == focusInfo:
		right = "↑↓ choose · esc back "
	default:
		right = "ctrl+n chat · ctrl+g group · ctrl+o info · F1 help "
	}
	room := m.width - m.ruler.width(left) - 2
	if m.notice != "" && room < m.ruler.width(right) { // words that matter go first
		return m.theme.bar.Render(m.ruler.fit(" "+right, m.width))
	}
	return m.theme.bar.Render(m.ruler.between(left, m.ruler.cut(right, max(0, room)), m.width))
}
