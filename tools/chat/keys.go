package chat

import (
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	eventv1 "heliograph/schemas/event/v1"
)

// key takes a key press: what works everywhere first, then what the part in focus knows.
func (m *Model) key(msg tea.KeyPressMsg) tea.Cmd {
	k := msg.String()
	if k == "ctrl+c" || k == "ctrl+q" {
		return tea.Quit
	}
	if m.help {
		m.help = false
		return nil
	}
	if m.form != nil {
		return m.formKey(msg)
	}
	if m.filtering {
		return m.filterKey(msg)
	}
	switch k {
	case "f1":
		m.help = true
	case "ctrl+n":
		return m.askChat()
	case "ctrl+g":
		return m.askGroup()
	case "ctrl+f":
		m.focusOn(focusList)
		m.filtering = true
	case "ctrl+o":
		m.toggleInfo(nil)
	case "ctrl+y":
		return m.askAnswer(0)
	case "ctrl+p":
		return m.askSettings()
	case "alt+up", "ctrl+up":
		return m.step(-1)
	case "alt+down", "ctrl+down":
		return m.step(1)
	case "pgup":
		m.scroll(m.pageSize())
	case "pgdown":
		m.scroll(-m.pageSize())
	case "ctrl+home":
		m.scroll(1 << 30)
	case "ctrl+end":
		m.scroll(-1 << 30)
	default:
		switch m.focus {
		case focusList:
			return m.listKey(k)
		case focusSelect:
			return m.selectKey(k)
		case focusInfo:
			return m.infoKey(k)
		default:
			return m.composeKey(msg)
		}
	}
	return nil
}

func (m *Model) composeKey(msg tea.KeyPressMsg) tea.Cmd {
	switch k := msg.String(); {
	case k == "enter":
		m.send()
		return nil
	case k == "esc":
		if m.open != nil && m.open.reply != nil {
			m.open.reply = nil
			return nil
		}
		m.focusOn(focusList)
		return nil
	case k == "tab":
		m.focusOn(focusList)
		return nil
	case k == "ctrl+r", k == "up" && m.input.Value() == "":
		m.selectMessage(-1)
		return nil
	}
	var cmd tea.Cmd
	m.input, cmd = m.input.Update(msg)
	return cmd
}

func (m *Model) listKey(k string) tea.Cmd {
	list := m.listed()
	at := slices.IndexFunc(list, func(c *conversation) bool { return c.id == m.cursor })
	switch k {
	case "up", "k":
		at--
	case "down", "j":
		at++
	case "home", "g":
		at = 0
	case "end", "G":
		at = len(list) - 1
	case "enter", "right", "l":
		if at >= 0 {
			return m.show(list[at])
		}
		return nil
	case "tab", "esc":
		if k == "esc" && m.filter != "" {
			m.filter = ""
			return nil
		}
		if m.open != nil {
			m.focusOn(focusCompose)
		}
		return nil
	case "/":
		m.filtering = true
		return nil
	case "n":
		return m.askChat()
	case "i":
		m.toggleInfo(nil)
		return nil
	case "?":
		m.help = true
		return nil
	default:
		return nil
	}
	if len(list) > 0 {
		m.cursor = list[max(0, min(at, len(list)-1))].id
	}
	return nil
}

func (m *Model) filterKey(msg tea.KeyPressMsg) tea.Cmd {
	switch k := msg.String(); k {
	case "esc":
		m.filter, m.filtering = "", false
	case "enter", "down", "up":
		m.filtering = false
		if list := m.listed(); len(list) > 0 &&
			!slices.ContainsFunc(list, func(c *conversation) bool { return c.id == m.cursor }) {
			m.cursor = list[0].id
		}
		if k == "enter" {
			return m.listKey("enter")
		}
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		if msg.Text != "" && len(m.filter) < 64 {
			m.filter += cleanTyped(msg.Text)
		}
	}
	return nil
}

// cleanTyped is Clean without line feeds, blanks kept: for what is typed bit by bit.
func cleanTyped(s string) string {
	out := []rune(Clean(s))
	return string(slices.DeleteFunc(out, func(r rune) bool { return r == '\n' }))
}

// selectMessage goes through the messages of the conversation; up is -1.
func (m *Model) selectMessage(d int) {
	c := m.open
	if c == nil {
		return
	}
	at := len(c.items)
	if m.selected != nil {
		if i := slices.Index(c.items, m.selected); i >= 0 {
			at = i
		}
	}
	for at += d; at >= 0 && at < len(c.items); at += d {
		if it := c.items[at]; it.message() && (it.placed || it.failed != "") {
			m.focusOn(focusSelect)
			m.selected = it
			m.reveal(c, at)
			return
		}
	}
	if d > 0 {
		m.focusOn(focusCompose)
	}
}

func (m *Model) selectKey(k string) tea.Cmd {
	switch k {
	case "up", "k":
		m.selectMessage(-1)
	case "down", "j":
		m.selectMessage(1)
	case "enter", "r", "ctrl+r":
		if it := m.selected; it.failed != "" { // nobody has it: it is written again
			m.input.SetValue(strings.TrimLeft(m.input.Value()+"\n"+it.text, "\n"))
			m.forget(m.open, it)
		} else {
			m.open.reply = it
		}
		m.focusOn(focusCompose)
	case "d", "delete":
		if it := m.selected; it.failed != "" {
			m.forget(m.open, it)
			m.focusOn(focusCompose)
		}
	case "i":
		if m.selected.placed {
			m.toggleInfo(m.selected)
		}
	case "?":
		m.help = true
	case "esc", "tab", "q":
		m.focusOn(focusCompose)
	}
	return nil
}

func (m *Model) toggleInfo(it *item) {
	if m.info {
		m.info = false
		if m.focus == focusInfo {
			m.focusOn(focusCompose)
		}
		m.rev++
		return
	}
	if m.open == nil {
		return
	}
	m.info, m.infoAt, m.infoItem = true, 0, it
	m.focusOn(focusInfo)
	m.rev++
}

func (m *Model) infoKey(k string) tea.Cmd {
	c := m.open
	if c == nil {
		return nil
	}
	admin := c.group && c.member && c.role == eventv1.Role_ROLE_ADMIN
	refuse := func() tea.Cmd {
		switch {
		case !c.group:
			m.say(true, "this is a chat of two; ctrl+g makes a group")
		case !c.member:
			m.say(true, "you are not a member of this group any more")
		default:
			m.say(true, "only admins of the group may do that")
		}
		return nil
	}
	switch k {
	case "up", "k":
		m.infoAt = max(0, m.infoAt-1)
	case "down", "j":
		m.infoAt = min(len(m.people(c))-1, m.infoAt+1)
	case "a":
		if !admin {
			return refuse()
		}
		return m.askAdd(c)
	case "v":
		if !admin {
			return refuse()
		}
		return m.askInvite(c)
	case "b":
		if people := m.people(c); m.infoAt < len(people) && people[m.infoAt].user != m.me {
			return m.askBlock(people[m.infoAt].user)
		}
		m.say(true, "choose whom to block")
	case "d", "delete":
		people := m.people(c)
		if !admin || m.infoAt >= len(people) {
			return refuse()
		}
		switch p := people[m.infoAt]; {
		case p.user == m.me:
			return m.askLeave(c)
		case p.invited:
			return m.askWithdraw(c, p.user)
		default:
			return m.askRemove(c, p.user)
		}
	case "l":
		if !c.group || !c.member {
			return refuse()
		}
		return m.askLeave(c)
	case "r":
		if !admin {
			return refuse()
		}
		return m.askRename(c)
	case "?":
		m.help = true
	case "esc", "q", "i":
		m.toggleInfo(nil)
	case "tab":
		m.focusOn(focusCompose)
	}
	return nil
}

// step opens the conversation above or below the open one.
func (m *Model) step(d int) tea.Cmd {
	list := m.listed()
	if len(list) == 0 {
		return nil
	}
	at := slices.Index(list, m.open)
	switch {
	case at >= 0:
		at += d
	case d < 0:
		at = len(list) - 1
	default:
		at = 0
	}
	if at < 0 || at >= len(list) {
		return nil
	}
	return m.show(list[at])
}

func (m *Model) scroll(lines int) {
	if m.open == nil {
		return
	}
	m.open.scroll = max(0, m.open.scroll+lines)
}

func (m *Model) paste(msg tea.PasteMsg) tea.Cmd {
	var cmd tea.Cmd
	switch {
	case m.form != nil && len(m.form.fields) > 0 && m.form.busy == "":
		in := &m.form.fields[m.form.at].input
		*in, cmd = in.Update(tea.PasteMsg{Content: CleanLine(msg.Content)})
	case m.form != nil || m.help:
	case m.filtering:
		m.filter += CleanLine(clip(msg.Content, 64))
	case m.open != nil:
		m.focusOn(focusCompose)
		m.input, cmd = m.input.Update(tea.PasteMsg{Content: Clean(clip(msg.Content, 64<<10))})
	}
	return cmd
}

func (m *Model) wheel(e tea.Mouse) {
	d := 0
	switch e.Button {
	case tea.MouseWheelUp:
		d = 1
	case tea.MouseWheelDown:
		d = -1
	}
	if m.form != nil || m.help || d == 0 {
		return
	}
	if m.listShown() && e.X < m.listWidth() {
		m.listKey(map[int]string{1: "up", -1: "down"}[d])
		return
	}
	m.scroll(3 * d)
}

func (m *Model) click(e tea.Mouse) tea.Cmd {
	if m.form != nil || m.help || e.Button != tea.MouseLeft || e.Y >= m.height-1 {
		return nil
	}
	if m.listShown() && e.X < m.listWidth() {
		list := m.listed()
		if at := m.listTop() + (e.Y-listHead)/2; e.Y >= listHead && at < len(list) {
			return m.show(list[at])
		}
		m.focusOn(focusList)
		return nil
	}
	if m.open != nil && !m.infoAlone() {
		m.focusOn(focusCompose)
	}
	return nil
}
