package edge

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/edge/client"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func TestQuarantinedThreadTellsItsMembers(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	g, unborn := id.NewGroup(), id.NewGroup()
	a.ask(wirev1.ClientFrame_builder{
		CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g", MemberIds: [][]byte{b.user[:]}}.Build(),
	})
	f.world.mu.Lock()
	f.world.threads[unborn] = thread.New(unborn)
	f.world.quarantined = map[id.ThreadID]bool{g: true, unborn: true}
	f.world.mu.Unlock()
	f.world.list(a.user, unborn)
	send := func(t id.ThreadID) wirev1.ClientFrame_builder {
		m := id.NewMessage()
		return wirev1.ClientFrame_builder{
			SendMessage: wirev1.SendMessage_builder{ThreadId: t[:], MessageId: m[:], Content: text("x")}.Build(),
		}
	}
	leave := wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g[:]}.Build()}
	for _, x := range []struct {
		name string
		from *device
		msg  wirev1.ClientFrame_builder
		want wirev1.Code
	}{
		{"a member sends", b, send(g), wirev1.Code_CODE_THREAD_PARKED},
		{"a member leaves", b, leave, wirev1.Code_CODE_THREAD_PARKED},
		{"another sends", c, send(g), wirev1.Code_CODE_NOT_A_MEMBER},
		{"another leaves", c, leave, wirev1.Code_CODE_NOT_A_MEMBER},
		{"its first event is the bad one", a, send(unborn), wirev1.Code_CODE_THREAD_PARKED},
		{"another, who cannot know of it", c, send(unborn), wirev1.Code_CODE_NOT_A_MEMBER},
		{"created again", a, wirev1.ClientFrame_builder{
			CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g"}.Build(),
		}, wirev1.Code_CODE_THREAD_PARKED},
	} {
		t.Run(x.name, func(t *testing.T) {
			got := x.from.ask(x.msg)
			x.from.refused(got, x.want)
			if parked := x.want == wirev1.Code_CODE_THREAD_PARKED; wire.Lookup(x.want).Retriable != parked ||
				(got.GetError().GetRetryAfterMs() > 0) != parked {
				t.Errorf("retriable %v, after %d ms", wire.Lookup(x.want).Retriable, got.GetError().GetRetryAfterMs())
			}
		})
	}
	if got := a.ask(direct(a, b, "other threads go on")); !got.HasAck() {
		t.Errorf("another thread: %v", got)
	}
}

// TestNamesAndTitles: an edge takes names and titles as people have them, cleaned, and refuses what deceives or shows
// nothing, wherever it takes one. (What is which: package wording.)
func TestNamesAndTitles(t *testing.T) {
	f := start(t, nil)
	a := f.dial(t).register("+491").sync()
	d := id.NewDevice()
	for said, want := range map[string]wirev1.Code{
		"\u202eabc": wirev1.Code_CODE_INVALID, "a\u2067b": wirev1.Code_CODE_INVALID,
		"a\u202cb": wirev1.Code_CODE_INVALID,
		"a\u0085b": wirev1.Code_CODE_INVALID, "a\u2028b": wirev1.Code_CODE_INVALID, "\u3164": wirev1.Code_CODE_INVALID,
		"a\U000E0041": wirev1.Code_CODE_INVALID, " ": wirev1.Code_CODE_INVALID,
		"שלום \u200fعلي": 0, " \u2068Ann\u2069": 0, "डॉक्टर लक्ष्मीनारायण त्रिपाठी शास्त्री": 0,
	} {
		g := id.NewGroup()
		for _, msg := range []wirev1.ClientFrame_builder{
			{SetProfile: wirev1.SetProfile_builder{Name: said}.Build()},
			{CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: said}.Build()},
			{LinkDevice: wirev1.LinkDevice_builder{
				DeviceId: d[:], PublicKey: make([]byte, 32), DeviceName: said,
			}.Build()},
		} {
			switch got := a.ask(msg); {
			case want != 0:
				a.refused(got, want)
			case got.HasError():
				t.Errorf("%+q: %v", said, got.GetError())
			}
		}
		f.world.mu.Lock()
		if s := f.world.threads[g]; want == 0 && (s == nil || strings.ContainsAny(s.Title, "\u2068\u2069")) {
			t.Errorf("%+q made %+v", said, s)
		}
		f.world.mu.Unlock()
	}
}

// TestEmptyTexts: a message of which nobody would see anything is refused; what this version does not know is
// something.
func TestEmptyTexts(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	for name, c := range map[string]struct {
		data []byte
		key  uint64
		want wirev1.Code
	}{
		"nothing":           {nil, 0, wirev1.Code_CODE_INVALID},
		"blanks":            {text(" \n\u200b").GetData(), 0, wirev1.Code_CODE_INVALID},
		"a thumb":           {text("👍🏽").GetData(), 0, 0},
		"sealed":            {nil, 7, 0},
		"of a newer client": {[]byte{0xc0, 0x3e, 1}, 0, 0}, // field 1,000
	} {
		msg := direct(a, b, "x")
		msg.SendMessage.SetContent(eventv1.Sealed_builder{Data: c.data, KeyId: c.key}.Build())
		switch got := a.ask(msg); {
		case c.want != 0:
			a.refused(got, c.want)
		case !got.HasAck():
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestReceiptIsNeverLower: an edge that lags behind what a device has seen elsewhere writes nothing of it, rather than
// less, until it has caught up.
func TestReceiptIsNeverLower(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	th := id.DirectThread(a.user, b.user)
	claim := func(position, ordinal int64) {
		b.tell(wirev1.ClientFrame_builder{
			Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{wirev1.Watermark_builder{
				ThreadId: th[:], DeliveredPosition: position, DeliveredOrdinal: ordinal, ReadPosition: position,
				ReadOrdinal: ordinal,
			}.Build()}}.Build(),
		})
	}
	marks := func(want ...thread.Watermark) {
		t.Helper()
		until(t, "the receipts", func() bool {
			f.world.mu.Lock()
			defer f.world.mu.Unlock()
			return len(f.world.marks) >= len(want)
		})
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		var got []thread.Watermark
		for _, m := range f.world.marks {
			got = append(got, m.w)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("receipts (-want +got):\n%s", d)
		}
	}
	at := func(position topic.Position, ordinal int64) thread.Watermark {
		return thread.Watermark{
			DeliveredPosition: position,
			DeliveredOrdinal:  ordinal,
			ReadPosition:      position,
			ReadOrdinal:       ordinal,
		}
	}
	a.ask(direct(a, b, "0"))
	a.ask(direct(a, b, "1"))
	claim(1, 2)
	marks(at(1, 2))
	f.world.mu.Lock()
	f.world.hold = true
	f.world.mu.Unlock()
	for range 4 {
		a.ask(direct(a, b, "another edge has it already"))
	}
	claim(3, 4)
	claim(5, 6)
	claim(4, 5)
	b.ask(wirev1.ClientFrame_builder{ListThreads: &wirev1.ListThreads{}}) // the claims were taken before
	marks(at(1, 2))
	f.world.release()
	marks(at(1, 2), at(5, 6))
	claim(99, 99) // more than there is, which must be seen as that once the edge has read so far
	b.ask(wirev1.ClientFrame_builder{ListThreads: &wirev1.ListThreads{}})
	marks(at(1, 2), at(5, 6))
	f.world.mu.Lock()
	f.world.next[topic.Threads] = 200 // of other threads
	f.world.known = thread.Watermark{ReadPosition: 7, ReadOrdinal: 7}
	f.world.mu.Unlock()
	marks(
		at(1, 2), at(5, 6),
		thread.Watermark{DeliveredPosition: 5, DeliveredOrdinal: 6, ReadPosition: 7, ReadOrdinal: 7},
	)
}

// texts are the messages of a thread in the order in which its fold accepted them.
func (w *world) texts(t *testing.T, th id.ThreadID) (out []string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	state := thread.New(th)
	for at, r := range w.appended {
		if r.topic == topic.Threads && r.subject == topic.Subject(th) &&
			state.Apply(event.Of(r.ev), topic.Position(at), int64(at)).Outcome == thread.Accepted {
			s, ok := event.Text(r.ev.GetMessageSent().GetContent())
			if !ok {
				t.Fatal("a message without text")
			}
			out = append(out, s)
		}
	}
	return out
}

// TestRefusedMessageHoldsThoseBehindIt: messages that are on their way behind one that is refused for now are refused
// too until it comes again.
func TestRefusedMessageHoldsThoseBehindIt(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	th := id.DirectThread(a.user, b.user)
	a.ask(direct(a, b, "0"))
	refuse := ""
	kept := false
	f.world.mu.Lock()
	f.world.refuse = func(e *eventv1.Event) (bool, bool) {
		s, _ := event.Text(e.GetMessageSent().GetContent())
		return e.HasMessageSent() && s == refuse, kept
	}
	f.world.mu.Unlock()
	set := func(text string, keep bool) {
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		refuse, kept = text, keep
	}
	messages := map[string]wirev1.ClientFrame_builder{}
	for _, s := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
		messages[s] = direct(a, b, s)
	}
	// send expects that the first of the texts is answered by want, and those behind it by what follows from that.
	var head string
	send := func(want wirev1.Code, texts ...string) {
		t.Helper()
		waiting := map[uint64]string{}
		if want == wirev1.Code_CODE_UNAVAILABLE {
			head = texts[0]
		}
		for _, s := range texts {
			waiting[a.send(messages[s])] = s
		}
		for len(waiting) > 0 { // refusals may come before earlier acks
			got, err := a.read()
			if err != nil {
				t.Fatal(err)
			}
			if waiting[got.GetRequestId()] == "" {
				continue
			}
			s := waiting[got.GetRequestId()]
			want, first := want, []byte(nil)
			if want != 0 && s != head {
				want, first = wirev1.Code_CODE_OUT_OF_TURN, messages[head].SendMessage.GetMessageId()
				if len(waiting) == len(texts) && texts[0] == head {
					t.Errorf("%s was refused before %s, because of which", s, head)
				}
			}
			if got.GetError().GetCode() != want || got.HasAck() != (want == 0) ||
				!bytes.Equal(got.GetError().GetMessageId(), first) {
				t.Fatalf("%s: got %v, want %v", s, got, want)
			}
			delete(waiting, got.GetRequestId())
		}
	}
	set("1", false)
	send(wirev1.Code_CODE_UNAVAILABLE, "1", "2", "3")
	set("", false)
	send(wirev1.Code_CODE_OUT_OF_TURN, "2", "3")
	if got := a.ask(direct(a, c, "to somebody else")); !got.HasAck() {
		t.Errorf("another thread: %v", got)
	}
	send(0, "1", "2", "3")
	set("4", true) // the log has it all the same
	send(wirev1.Code_CODE_UNAVAILABLE, "4", "5")
	set("", false)
	send(wirev1.Code_CODE_OUT_OF_TURN, "6")
	send(0, "4", "5", "6")
	set("7", false)
	send(wirev1.Code_CODE_UNAVAILABLE, "7", "8")
	set("", false)
	for _, x := range []struct {
		name string
		give []byte
		want wirev1.Code
	}{
		{"another is given up", messages["8"].SendMessage.GetMessageId(), wirev1.Code_CODE_OUT_OF_TURN},
		{"the refused one is given up", messages["7"].SendMessage.GetMessageId(), 0},
	} {
		if got := a.ask(wirev1.ClientFrame_builder{
			AbandonMessage: wirev1.AbandonMessage_builder{ThreadId: th[:], MessageId: x.give}.Build(),
		}); !got.HasDone() {
			t.Fatalf("%s: got %v", x.name, got)
		}
		send(x.want, "8")
	}
	f.world.mu.Lock()
	joins := 0
	f.world.refuse = func(e *eventv1.Event) (bool, bool) {
		if e.HasThreadJoined() {
			joins++
		}
		return joins == 1, false
	}
	f.world.mu.Unlock()
	d := f.dial(t).register("+494").sync()
	first, second := direct(a, d, "1"), direct(a, d, "2")
	a.refused(a.ask(first), wirev1.Code_CODE_UNAVAILABLE) // the thread could not be begun
	a.refused(a.ask(second), wirev1.Code_CODE_OUT_OF_TURN)
	for _, m := range []wirev1.ClientFrame_builder{first, second} {
		if got := a.ask(m); !got.HasAck() {
			t.Fatalf("got %v", got)
		}
	}
	if d := cmp.Diff([]string{"0", "1", "2", "3", "4", "5", "6", "8"}, f.world.texts(t, th)); d != "" {
		t.Errorf("the thread (-want +got):\n%s", d)
	}
}

// TestRateLimitKeepsTheOrder: the refusal comes before anything else was looked at, and counts all the same.
func TestRateLimitKeepsTheOrder(t *testing.T) {
	f := start(t, func(c *Config) { c.Session.SendRate, c.Session.SendBurst = 50, 2 })
	c, b := f.joinWith(t, "+491", client.Config{MinBackoff: time.Millisecond}), f.dial(t).register("+492").sync()
	inOrder(t, f, c, b, 30)
}

// TestClientKeepsItsOrderOverRefusals: a client whose messages are refused at random, some after the log had them, has
// them in the thread in its order.
func TestClientKeepsItsOrderOverRefusals(t *testing.T) {
	f := start(t, func(c *Config) { c.Session.RetryAfter = time.Millisecond })
	c, b := f.joinWith(t, "+491", client.Config{MinBackoff: time.Millisecond}), f.dial(t).register("+492").sync()
	r := rand.New(rand.NewPCG(1, 2))
	f.world.mu.Lock()
	f.world.refuse = func(*eventv1.Event) (bool, bool) { return r.IntN(6) == 0, r.IntN(3) == 0 }
	f.world.mu.Unlock()
	inOrder(t, f, c, b, 400)
}

// inOrder sends messages and checks that the thread has them in order.
func inOrder(t *testing.T, f *fixture, from *client.Client, to *device, n int) {
	t.Helper()
	dest, err := from.Direct(to.user)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for k := range n {
		want = append(want, fmt.Sprint(k))
		if _, err := from.Send(dest, want[k]); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "an empty outbox", func() bool { return from.Outbox() == 0 })
	if d := cmp.Diff(want, f.world.texts(t, dest.Thread)); d != "" {
		t.Errorf("the thread (-want +got):\n%s", d)
	}
}

// TestBudgetOfADay: a user who has sent a day's messages is told when to go on, on every connection; others go on.
func TestBudgetOfADay(t *testing.T) {
	f := start(t, func(c *Config) { c.Session.SendsPerDay = 3 })
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	for range 3 {
		if got := a.ask(direct(a, b, "x")); !got.HasAck() {
			t.Fatalf("got %v", got)
		}
	}
	for range 2 {
		d := f.again(t, a)
		got := d.ask(direct(a, b, "y"))
		d.refused(got, wirev1.Code_CODE_RATE_LIMITED)
		if ms := got.GetError().GetRetryAfterMs(); ms < 1000 {
			t.Errorf("told to come back after %d ms", ms)
		}
	}
	if got := b.ask(direct(b, a, "z")); !got.HasAck() {
		t.Errorf("another user: %v", got)
	}
}

// TestClientGivesUp: a client that gives up a message that the log does not take sends those behind it.
func TestClientGivesUp(t *testing.T) {
	f := start(t, func(c *Config) { c.Session.RetryAfter = time.Millisecond })
	c, b := f.joinWith(t, "+491", client.Config{MinBackoff: time.Millisecond}), f.dial(t).register("+492").sync()
	f.world.mu.Lock()
	f.world.refuse = func(e *eventv1.Event) (bool, bool) {
		s, _ := event.Text(e.GetMessageSent().GetContent())
		return s == "never", false
	}
	f.world.mu.Unlock()
	dest, err := c.Direct(b.user)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Send(dest, "never")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"1", "2"} {
		if _, err := c.Send(dest, s); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "a refusal", func() bool {
		f.world.mu.Lock()
		defer f.world.mu.Unlock()
		return f.world.refusals > 0
	})
	if ok, err := c.Abandon(m); !ok || err != nil {
		t.Fatalf("giving up: %v, %v", ok, err)
	}
	until(t, "an empty outbox", func() bool { return c.Outbox() == 0 })
	if d := cmp.Diff([]string{"1", "2"}, f.world.texts(t, dest.Thread)); d != "" {
		t.Errorf("the thread (-want +got):\n%s", d)
	}
}
