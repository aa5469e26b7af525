package chat

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"charm.land/bubbles/v2/textinput"
	tea "charm.land/bubbletea/v2"

	"heliograph/edge/client"
	"heliograph/edge/wording"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// field of a form.
type field struct {
	label string
	input textinput.Model
}

// form asks for something and does it. With no fields it asks for a yes.
type form struct {
	title  string
	hint   []string
	fields []field
	at     int
	busy   string // what is being done; empty: nothing
	err    string
	submit func(values []string) tea.Cmd
	back   func() tea.Cmd            // esc; nil: it closes
	keys   map[string]func() tea.Cmd // further keys
	doing  string                    // what submit does, for busy
}

// formMsg tells how a form's work ended; apply is called when it went well.
type formMsg struct {
	form  *form
	err   error
	apply func() tea.Cmd
}

func (m *Model) newField(label, placeholder, value string, limit int) field {
	in := textinput.New()
	in.Prompt, in.Placeholder, in.CharLimit = "", placeholder, limit
	in.SetVirtualCursor(false)
	in.SetValue(value)
	in.CursorEnd()
	s := in.Styles()
	s.Focused.Placeholder, s.Blurred.Placeholder, s.Cursor.Blink = m.theme.dim, m.theme.dim, false
	in.SetStyles(s)
	in.SetWidth(40)
	return field{label: label, input: in}
}

func (m *Model) ask(f *form) tea.Cmd {
	m.form = f
	m.input.Blur()
	if len(f.fields) == 0 {
		return nil
	}
	return f.fields[f.at].input.Focus()
}

func (m *Model) closeForm() {
	m.form = nil
	if m.open == nil {
		m.focusOn(focusList)
		return
	}
	m.focusOn(m.focus)
}

func (m *Model) formKey(msg tea.KeyPressMsg) tea.Cmd {
	f := m.form
	if f.busy != "" {
		if msg.String() == "esc" && f.back == nil && !m.enrol {
			m.closeForm()
		}
		return nil
	}
	move := func(d int) tea.Cmd {
		if len(f.fields) == 0 {
			return nil
		}
		f.fields[f.at].input.Blur()
		f.at = (f.at + d + len(f.fields)) % len(f.fields)
		return f.fields[f.at].input.Focus()
	}
	switch k := msg.String(); k {
	case "esc":
		if f.back != nil {
			return f.back()
		}
		if !m.enrol {
			m.closeForm()
		}
		return nil
	case "tab", "down":
		return move(1)
	case "shift+tab", "up":
		return move(-1)
	case "enter":
		if f.at < len(f.fields)-1 {
			return move(1)
		}
		values := make([]string, len(f.fields))
		for i := range f.fields {
			values[i] = strings.TrimSpace(f.fields[i].input.Value())
		}
		f.err, f.busy = "", f.doing
		cmd := f.submit(values)
		if cmd == nil {
			f.busy = ""
		}
		return cmd
	default:
		if do := f.keys[k]; do != nil {
			return do()
		}
	}
	if len(f.fields) == 0 {
		return nil
	}
	var cmd tea.Cmd
	f.fields[f.at].input, cmd = f.fields[f.at].input.Update(msg)
	return cmd
}

func (m *Model) gotForm(msg formMsg) tea.Cmd {
	if m.form != msg.form {
		return nil // given up meanwhile
	}
	m.form.busy = ""
	if msg.err != nil {
		m.form.err = Words(msg.err, m.cfg.now())
		return nil
	}
	if msg.apply == nil {
		m.closeForm()
		return nil
	}
	return msg.apply()
}

// work runs f's work as a command.
func (m *Model) work(f *form, do func(ctx context.Context) (func() tea.Cmd, error)) tea.Cmd {
	ctx := m.ctx
	return func() tea.Msg {
		apply, err := do(ctx)
		return formMsg{form: f, err: err, apply: apply}
	}
}

// startRegistration asks for the phone number.
func (m *Model) startRegistration() { m.askPhone(m.cfg.Phone) }

func (m *Model) askPhone(phone string) tea.Cmd {
	m.enrol = true
	f := &form{
		title: "Welcome to Heliograph", doing: "asking for a PIN",
		hint: []string{
			"Your phone number is your name here. A PIN comes by SMS to prove that it is yours.",
			"enter goes on · ctrl+t I have a PIN already",
		},
		fields: []field{m.newField("Phone number", "+49 1512 3456789", phone, phoneRunes)},
	}
	f.submit = func(v []string) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			n, err := m.client.CheckPhone(ctx, v[0])
			return func() tea.Cmd { return m.confirmPhone(n) }, err
		})
	}
	f.keys = map[string]func() tea.Cmd{"ctrl+t": func() tea.Cmd {
		written := strings.TrimSpace(f.fields[0].input.Value())
		f.busy, f.err = "checking the number", ""
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			n, err := m.client.CheckPhone(ctx, written)
			return func() tea.Cmd { return m.askPin(n.Number, time.Time{}, 0) }, err
		})
	}}
	return m.ask(f)
}

// confirmPhone shows the number as the server reads it: an SMS to one with a typing error reaches a stranger.
func (m *Model) confirmPhone(n client.Phone) tea.Cmd {
	country := ""
	if n.Region != "001" {
		country = " (" + n.Region + ")"
	}
	f := &form{
		title: "Is this your number?", doing: "asking for a PIN",
		hint: []string{CleanLine(n.Shown + country), "enter sends a PIN there by SMS · esc changes the number"},
		back: func() tea.Cmd { return m.askPhone(n.Shown) },
	}
	f.submit = func([]string) tea.Cmd {
		since := m.cfg.now()
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			expires, _, err := m.client.RequestPin(ctx, n.Number)
			return func() tea.Cmd { return m.askPin(n.Number, since, expires) }, err
		})
	}
	return m.ask(f)
}

// How much may be typed or pasted: a number with all that comes along with it, and a whole SMS with the PIN in it,
// which may be of several parts.
const (
	phoneRunes = 64
	// A character of a name may be of many; the edge counts the characters.
	nameRunes  = 4 * wording.NameChars
	titleRunes = 4 * wording.TitleChars
	pinRunes   = 480
)

var errNoPin = errors.New("type the six digits of the SMS")

func (m *Model) askPin(number string, since time.Time, expires time.Duration) tea.Cmd {
	f := &form{
		title: "PIN for " + CleanLine(number), doing: "registering",
		fields: []field{m.newField("PIN", "six digits", "", pinRunes)},
		back:   func() tea.Cmd { return m.askPhone(number) },
	}
	if expires > 0 {
		f.hint = append(f.hint,
			fmt.Sprintf("An SMS is on its way. The PIN is valid until %s.", m.clock(m.cfg.now().Add(expires))))
	}
	if m.cfg.Pin != nil {
		f.hint = append(f.hint,
			"This deployment runs on this machine: just press enter, and the PIN is read from its SMS file.")
	}
	f.hint = append(f.hint, "enter registers · ctrl+r asks for another PIN · esc changes the number")
	f.submit = func(v []string) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			pin := v[0]
			if pin == "" && m.cfg.Pin != nil {
				short, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				var err error
				if pin, err = m.cfg.Pin(short, number, since); err != nil {
					return nil, fmt.Errorf("no PIN found: %w", err)
				}
			}
			if pin == "" {
				return nil, errNoPin
			}
			who, err := m.client.Register(
				ctx, client.Registration{Phone: number, Pin: pinIn(pin), DeviceName: "terminal"},
			)
			if err != nil {
				return nil, err
			}
			known := ""
			if users, err := m.client.Users(ctx, who.User); err == nil && len(users) == 1 {
				known = users[0].GetName() // registered before
			}
			return func() tea.Cmd { m.me = who.User; return m.askName(known) }, nil
		})
	}
	f.keys = map[string]func() tea.Cmd{"ctrl+r": func() tea.Cmd {
		since := m.cfg.now()
		f.busy, f.err = "asking for another PIN", ""
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			expires, _, err := m.client.RequestPin(ctx, number)
			return func() tea.Cmd { return m.askPin(number, since, expires) }, err
		})
	}}
	return m.ask(f)
}

func (m *Model) askName(known string) tea.Cmd {
	f := &form{
		title: "You are in", doing: "saving",
		hint:   []string{"What should others call you?", "enter goes on"},
		fields: []field{m.newField("Name", "what others see", CleanLine(known), nameRunes)},
	}
	f.submit = func(v []string) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			done := func() tea.Cmd {
				m.enrol = false
				m.named(m.me, v[0])
				m.closeForm()
				return nil
			}
			if v[0] == "" || v[0] == known {
				return done, nil
			}
			return done, m.client.SetName(ctx, CleanLine(v[0]))
		})
	}
	return m.ask(f)
}

func (m *Model) askChat() tea.Cmd {
	f := &form{
		title: "New chat", doing: "looking up",
		hint:   []string{"enter opens the chat · esc closes"},
		fields: []field{m.newField("Phone number or name", "+49 1512 3456789", "", 64)},
	}
	f.submit = func(v []string) tea.Cmd {
		if v[0] == "" {
			return nil
		}
		find := m.finder()
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			people, err := find(ctx, v[0])
			if err != nil {
				return nil, err
			}
			if len(people) != 1 {
				return nil, errors.New("one person, please; ctrl+g makes a group")
			}
			to, err := m.client.Direct(people[0].id)
			return func() tea.Cmd {
				m.meet(people)
				c := m.conversation(to.Thread)
				c.peer = people[0].id
				m.closeForm()
				return m.show(c)
			}, err
		})
	}
	return m.ask(f)
}

func (m *Model) askGroup() tea.Cmd {
	f := &form{
		title: "New group", doing: "creating the group",
		hint: []string{
			"Phone numbers with + or names of people you chat with, separated by commas.",
			"enter goes on and creates · esc closes",
		},
		fields: []field{
			m.newField("Title", "Sunday walk", "", titleRunes),
			m.newField("Members", "+49 1512 3456789, Bob", "", 2000),
		},
	}
	f.submit = func(v []string) tea.Cmd {
		if v[0] == "" {
			f.err = "a group needs a title"
			return nil
		}
		find := m.finder()
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			people, err := find(ctx, v[1])
			if err != nil {
				return nil, err
			}
			title := CleanLine(v[0])
			t, err := m.create(ctx, title, ids(people), nil)
			if not := unaddable(err); len(not) > 0 {
				return func() tea.Cmd {
					m.meet(people)
					return m.askInviteThose(not, func(ctx context.Context) (id.ThreadID, error) {
						return m.create(ctx, title, without(people, not), not)
					}, func(t id.ThreadID) tea.Cmd { return m.created(t, title) })
				}, nil
			}
			return func() tea.Cmd { m.meet(people); m.closeForm(); return m.created(t, title) }, err
		})
	}
	return m.ask(f)
}

func (m *Model) askAdd(c *conversation) tea.Cmd {
	f := &form{
		title: "Add to " + m.title(c), doing: "adding",
		hint:   []string{"Phone numbers with + or names, separated by commas.", "enter adds · esc closes"},
		fields: []field{m.newField("Members", "+49 1512 3456789, Bob", "", 2000)},
	}
	f.submit = func(v []string) tea.Cmd {
		if v[0] == "" {
			return nil
		}
		find := m.finder()
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			people, err := find(ctx, v[0])
			if err == nil {
				err = m.client.AddMembers(ctx, c.id, ids(people)...)
			}
			if not := unaddable(err); len(not) > 0 {
				return func() tea.Cmd {
					m.meet(people)
					return m.askInviteThose(not, func(ctx context.Context) (id.ThreadID, error) {
						if others := without(people, not); len(others) > 0 {
							if err := m.client.AddMembers(ctx, c.id, others...); err != nil {
								return c.id, err
							}
						}
						return c.id, m.client.Invite(ctx, c.id, not...)
					}, m.loadThread)
				}, nil
			}
			return func() tea.Cmd { m.meet(people); m.closeForm(); return m.loadThread(c.id) }, err
		})
	}
	return m.ask(f)
}

func (m *Model) askRename(c *conversation) tea.Cmd {
	f := &form{
		title: "Rename the group", doing: "renaming", hint: []string{"enter renames · esc closes"},
		fields: []field{m.newField("Title", "", c.title, titleRunes)},
	}
	f.submit = func(v []string) tea.Cmd {
		if v[0] == "" {
			return nil
		}
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) {
			return nil, m.client.Rename(ctx, c.id, CleanLine(v[0]))
		})
	}
	return m.ask(f)
}

func (m *Model) askRemove(c *conversation, u id.UserID) tea.Cmd {
	f := &form{
		title: fmt.Sprintf("Remove %s from %s?", m.name(u), m.title(c)),
		doing: "removing",
		hint:  []string{"enter removes · esc closes"},
	}
	f.submit = func([]string) tea.Cmd {
		return m.work(
			f, func(ctx context.Context) (func() tea.Cmd, error) { return nil, m.client.RemoveMember(ctx, c.id, u) },
		)
	}
	return m.ask(f)
}

func (m *Model) askLeave(c *conversation) tea.Cmd {
	f := &form{
		title: fmt.Sprintf("Leave %s?", m.title(c)),
		doing: "leaving",
		hint:  []string{"What was said stays readable. enter leaves · esc closes"},
	}
	f.submit = func([]string) tea.Cmd {
		return m.work(f, func(ctx context.Context) (func() tea.Cmd, error) { return nil, m.client.Leave(ctx, c.id) })
	}
	return m.ask(f)
}

// person whom the user named in a form.
type person struct {
	id          id.UserID
	name, phone string
}

func ids(people []person) []id.UserID {
	out := make([]id.UserID, len(people))
	for i, p := range people {
		out[i] = p.id
	}
	return out
}

func (m *Model) meet(people []person) {
	for _, p := range people {
		m.named(p.id, p.name)
		if p.phone != "" {
			m.phones[p.id] = CleanLine(p.phone)
		}
	}
	m.rev++
}

// finder returns a function that turns phone numbers and known names into people; it works on a copy of the names, so
// it may run beside the screen.
func (m *Model) finder() func(context.Context, string) ([]person, error) {
	known := map[string][]id.UserID{}
	for u, n := range m.names {
		known[strings.ToLower(n)] = append(known[strings.ToLower(n)], u)
	}
	return func(ctx context.Context, text string) ([]person, error) {
		return findPeople(ctx, m.client, known, text)
	}
}

func findPeople(ctx context.Context, c Client, known map[string][]id.UserID, text string) ([]person, error) {
	var out []person
	var phones []string
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ';' || r == '\n' }) {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		switch users := known[strings.ToLower(part)]; {
		case isPhone(part):
			phones = append(phones, part)
		case len(users) == 1:
			out = append(out, person{id: users[0]})
		case len(users) > 1:
			return nil, fmt.Errorf("there are several people named %s; write the phone number", CleanLine(part))
		case part[0] >= '0' && part[0] <= '9':
			return nil, wire.Errorf(wirev1.Code_CODE_INVALID_PHONE, "%s", part)
		default:
			return nil, fmt.Errorf("nobody here is named %s; write the phone number", CleanLine(part))
		}
	}
	if len(phones) == 0 {
		return out, nil
	}
	users, err := c.Lookup(ctx, phones...)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	for _, u := range users {
		x, err := id.From[id.UserID](u.GetUserId())
		if err != nil {
			continue
		}
		found[u.GetPhone()] = true
		out = append(out, person{id: x, name: u.GetName(), phone: u.GetPhone()})
	}
	for _, p := range phones {
		if !found[p] {
			return nil, fmt.Errorf("%s is not registered here", CleanLine(p))
		}
	}
	return out, nil
}
