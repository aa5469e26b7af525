package client

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"heliograph/schemas/id"
	wirev1 "heliograph/schemas/wire/v1"
)

// A message keeps its text until it has come back: acknowledged and then rejected, with a restart in between, it is as
// unsent as one that was refused at once, over further restarts, and is never sent again by itself.
func TestUnsentKeepsItsText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	me := identity(t)
	th := id.NewGroup()
	type sent struct {
		text string
		m    id.MessageID
	}
	came := make(chan sent, 10)
	var rejects []id.MessageID
	var echo *wirev1.ServerFrame
	run := func(until func(c *Client, e Event) bool, send ...string) (ids []id.MessageID) {
		t.Helper()
		store, err := OpenFileStore(path)
		must(t, err)
		if saved := load(t, store); saved.Identity.User.IsZero() {
			must(t, store.SetIdentity(me))
		}
		cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
			switch f.WhichBody() {
			case wirev1.ClientFrame_Sync_case:
				for _, m := range rejects {
					p.write(wirev1.ServerFrame_builder{Rejected: wirev1.Rejected_builder{
						ThreadId: th[:], MessageId: m[:], Position: 5, Code: wirev1.Code_CODE_NOT_A_MEMBER,
					}.Build()}.Build())
				}
				if echo != nil {
					p.write(echo)
				}
			case wirev1.ClientFrame_SendMessage_case:
				m := f.GetSendMessage()
				text, _ := Outgoing{Data: m.GetContent().GetData()}.Text()
				came <- sent{text, id.MessageID(m.GetMessageId())}
				if text == "refused" {
					p.write(wirev1.ServerFrame_builder{
						RequestId: f.GetRequestId(),
						Error:     wirev1.Error_builder{Code: wirev1.Code_CODE_TOO_LARGE, Message: "long"}.Build(),
					}.Build())
					return true
				}
			}
			return false
		})
		cfg.Store = store
		c, err := New(cfg)
		must(t, err)
		ctx, cancel := context.WithCancel(within(t))
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		for _, text := range send {
			m, err := c.Send(To{Thread: th}, text)
			must(t, err)
			ids = append(ids, m)
		}
		for e := range c.Events(ctx) {
			if until(c, e) {
				break
			}
		}
		if ctx.Err() != nil {
			t.Fatal("what was waited for did not come")
		}
		cancel()
		must(t, <-done, c.Close())
		return ids
	}
	texts := func(c *Client) (out []string) {
		for _, u := range c.Unsent() {
			text, _ := u.Text()
			out = append(out, text+": "+u.Code.String())
		}
		return out
	}
	check := func(what string, got, want []string) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", what, d)
		}
	}
	answers := 0
	ids := run(func(c *Client, e Event) bool {
		switch e := e.(type) {
		case Sent:
			answers++
		case Failed:
			answers++
			if text, _ := e.Message.Text(); text != "refused" {
				t.Errorf("Failed tells of %q", text)
			}
		}
		return answers == 3
	}, "rejected later", "refused", "comes back")
	rejects, echo = ids[:1], eventFrame(t, th, 6, me, ids[2], "comes back")
	synced := func(check func(*Client)) func(*Client, Event) bool {
		return func(c *Client, e Event) bool {
			if r, ok := e.(Rejected); ok {
				if text, _ := r.Message.Text(); text != "rejected later" {
					t.Errorf("Rejected tells of %q", text)
				}
			}
			_, ok := e.(Synced)
			if ok {
				check(c)
			}
			return ok
		}
	}
	both := []string{"refused: CODE_TOO_LARGE", "rejected later: CODE_NOT_A_MEMBER"}
	run(synced(func(c *Client) { check("after the rejection", texts(c), both) }))
	run(synced(func(c *Client) {
		check("after a restart", texts(c), both)
		must(t, c.Forget(ids[1]))
	}))
	run(synced(func(c *Client) { check("after one was forgotten", texts(c), both[1:]) }))
	store, err := OpenFileStore(path)
	must(t, err)
	saved := load(t, store)
	must(t, store.Close())
	if len(saved.Acked)+len(saved.Outbox) > 0 || len(saved.Unsent) != 1 {
		t.Errorf("the store has %d acknowledged, %d to be sent, %d unsent", len(saved.Acked), len(saved.Outbox),
			len(saved.Unsent))
	}
	if n := len(came); n != 3 {
		t.Errorf("%d messages were sent, want each of 3 once", n)
	}
}

// What is kept has a bound: the oldest go.
func TestUnsentIsBounded(t *testing.T) {
	r, c, send := refusingEdge(t)
	th := id.NewGroup()
	for range keepUnsent + 3 {
		send(th, "x")
		r.next("x").refuse(wirev1.Code_CODE_TOO_LARGE)
	}
	eventually(t, func() bool { return c.Outbox() == 0 })
	saved := load(t, c.cfg.Store)
	if n, m := len(c.Unsent()), len(saved.Unsent); n != keepUnsent || m != keepUnsent {
		t.Errorf("%d are kept and %d stored, want %d", n, m, keepUnsent)
	}
}

// A rewritten file has what was not sent, and what is not known yet.
func TestCompactedStoreKeepsUnsent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	s, err := OpenFileStore(path)
	must(t, err)
	a, b, w := id.NewMessage(), id.NewMessage(), id.NewMessage()
	for _, m := range []id.MessageID{a, b, w} {
		must(t, s.Put(Outgoing{Thread: id.NewGroup(), ID: m, Data: m[:]}))
	}
	must(t, s.Acked(a, 7), s.Acked(b, 8), s.Refuse(b, wirev1.Code_CODE_INVALID, "why"))
	before := load(t, s)
	s.mu.Lock()
	err = s.compact()
	s.mu.Unlock()
	must(t, err)
	s = reopen(t, s)
	if d := cmp.Diff(before, load(t, s)); d != "" {
		t.Errorf("after the rewrite (-before +after):\n%s", d)
	}
	if len(before.Outbox) != 1 || len(before.Acked) != 1 || before.Acked[0].At != 7 || len(before.Unsent) != 1 {
		t.Errorf("%+v", before)
	}
	must(t, s.Close())
}

// A file of a version that noted no position of what is acknowledged has none.
func TestAckedWithoutAPosition(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	m, th := id.NewMessage(), id.NewGroup()
	must(t, os.WriteFile(path, fmt.Appendf(nil,
		"{\"put\":{\"thread\":%q,\"id\":%q,\"data\":\"aGk=\",\"client_time\":\"1\"}}\n"+
			"{\"drop\":%[2]q,\"acked\":true}\n", th, m), 0o600))
	s, err := OpenFileStore(path)
	must(t, err)
	got := load(t, s).Acked
	if len(got) != 1 || got[0].ID != m || got[0].At != -1 || string(got[0].Data) != "hi" {
		t.Errorf("acknowledged: %+v", got)
	}
	must(t, s.Close())
}
