package e2e

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/client"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// testConversation: what people do, over two edges, and P1: the ack is a receipt that the log and the views honour.
func testConversation(t *testing.T, e *env) {
	ctx := e.context(t)
	phone := e.phone()
	ann, bob, cid := e.user(t, "ann", 0), e.userAt(t, phone, "bob", 1), e.user(t, "cid", 1)

	var bobID id.UserID
	settled(t, "ann finds bob by his number", func() string {
		users, err := ann.u.Lookup(ctx, phone)
		if err != nil {
			return err.Error()
		}
		if len(users) != 1 || users[0].GetName() != "bob" {
			return "not found"
		}
		bobID = id.UserID(users[0].GetUserId())
		return ""
	})
	if bobID != bob.me.User {
		t.Fatalf("bob is %s, found %s", bob.me.User, bobID)
	}

	hi := ann.say(ann.to(bob), "hi")
	bob.has(hi)
	back := ann.to(bob)
	question := event.MessageRef{Author: ann.me.User, ID: hi}
	back.Peer, back.Reply = ann.me.User, question
	answer := bob.say(back, "hello")
	ann.has(answer)
	ack := ann.acked(hi)
	bob.acked(answer)

	tr := e.agree(t, ann, bob)
	direct := ann.to(bob).Thread
	c := tr.threads[direct]
	if got, want := c.accepted[0].At, ack.Position; got != want || c.accepted[0].Message != hi {
		t.Errorf("the log has %s at %d, the ack said %s at %d", c.accepted[0].Message, got, hi, want)
	}
	if got, want := ack.Slot, topic.SlotOf(topic.Subject(direct), e.Partitions()); got != want {
		t.Errorf("the ack names slot %d, want %d", got, want)
	}
	settled(t, "both views have passed the ack", func() string {
		v, err := ann.u.Views(ctx, direct)
		if err != nil {
			return err.Error()
		}
		if v.GetPostgresNext() <= int64(ack.Position) || v.GetClickhouseNext() <= int64(ack.Position) {
			return v.String()
		}
		return ""
	})

	// Receipts: delivered by itself, read when it is shown.
	place, _ := bob.place(hi)
	until(
		t, "ann sees that bob has it",
		func() bool { return ann.mark(direct, bob.me.User).DeliveredPosition >= place.Position },
	)
	bob.u.MarkRead(place)
	until(
		t, "ann sees that bob has read it",
		func() bool { return ann.mark(direct, bob.me.User).ReadPosition >= place.Position },
	)

	group, err := ann.u.CreateGroup(ctx, "trip", bob.me.User, cid.me.User)
	must(t, err)
	to := client.To{Thread: group}
	var said []id.MessageID
	for _, text := range []string{"one", "two", "three"} {
		said = append(said, ann.say(to, text))
	}
	cid.has(said...)
	bob.has(said...)
	must(t, ann.u.Rename(ctx, group, "journey"))
	reply := cid.say(to, "four")
	ann.has(reply)
	bob.has(reply)
	if diff := cmp.Diff([]string{"one", "two", "three", "four"}, bob.texts(group)); diff != "" {
		t.Errorf("bob's messages (-want +got):\n%s", diff)
	}

	// Neither has read anything of the group; what cid has sent is not unread to him.
	list := func(d *device, thread id.ThreadID, ok func(*wirev1.ThreadSummary) bool, what string) {
		t.Helper()
		settled(t, what, func() string {
			threads, _, err := d.u.Threads(ctx, 10, nil)
			if err != nil {
				return err.Error()
			}
			for _, s := range threads {
				if id.ThreadID(s.GetThreadId()) == thread {
					if ok(s) {
						return ""
					}
					return s.String()
				}
			}
			return "not in the list"
		})
	}
	list(bob, group, func(s *wirev1.ThreadSummary) bool {
		return s.GetUnread() == 4 && s.GetTitle() == "journey" && s.GetPreview() == "four" && s.GetMemberCount() == 3
	}, "bob's list shows four unread messages of the journey")
	list(cid, group, func(s *wirev1.ThreadSummary) bool { return s.GetUnread() == 3 }, "cid's list shows ann's three")
	p, _ := bob.place(reply)
	bob.u.MarkRead(p)
	list(
		bob, group, func(s *wirev1.ThreadSummary) bool { return s.GetUnread() == 0 },
		"bob's list shows none after reading",
	)

	must(t, cid.u.Leave(ctx, group))
	after := ann.say(to, "five")
	bob.has(after)
	if _, ok := cid.place(after); ok {
		t.Error("cid got a message after leaving")
	}
	tr = e.agree(t, ann, bob, cid)
	e.viewsAgree(t)

	traceable(
		t, tr, topic.Subject(direct), topic.Subject(group), topic.Subject(ann.me.User), topic.Subject(bob.me.User),
		topic.Subject(cid.me.User),
	)

	// The answer names what it answers by author and id: in the log, on both devices and in the history.
	for _, s := range append([]seen{tr.threads[direct].accepted[1]}, ann.copyOf(direct)[1], bob.copyOf(direct)[1]) {
		if s.Message != answer || s.Reply != question {
			t.Errorf("%s answers %v, want %s, which answers %v", s.Message, s.Reply, answer, question)
		}
	}
	var sent eventv1.Event
	must(t, proto.Unmarshal(tr.threads[direct].raw[1], &sent))
	if m := sent.GetMessageSent(); len(m.GetReplyTo()) != 0 || !m.HasReply() {
		t.Errorf("the log has reply_to %x beside reply %v", m.GetReplyTo(), m.GetReply())
	}
	var answered string
	must(t, e.ch.QueryRow(ctx, `
		SELECT q.body
		FROM messages AS a FINAL JOIN messages AS q FINAL
			ON q.thread_id = a.thread_id AND q.message_id = a.reply_to AND q.sender_id = a.reply_author
		WHERE a.thread_id = ? AND a.message_id = ?`, uuid.UUID(direct), uuid.UUID(answer)).Scan(&answered))
	if answered != "hi" {
		t.Errorf("in the history the answer is to %q, want %q", answered, "hi")
	}
}

// traceable: every event about the subjects says who appended it and which request led to it, and a ThreadLeft which
// event did.
func traceable(t *testing.T, tr *truth, about ...topic.Subject) {
	t.Helper()
	at := map[string]*eventv1.Event{}
	kinds := map[string]int{}
	place := func(tp topic.Topic, slot int32, position int64) string {
		return fmt.Sprintf("%s:%d:%d", tp, slot, position)
	}
	for tp, slots := range tr.records {
		for slot, recs := range slots {
			for _, r := range recs {
				if !slices.Contains(about, topic.Subject(r.Key)) {
					continue
				}
				ev := &eventv1.Event{}
				must(t, proto.Unmarshal(r.Value, ev))
				at[place(tp, slot, r.Offset)] = ev
				kinds[event.TypeOf(ev).String()]++
			}
		}
	}
	for where, ev := range at {
		kind := event.TypeOf(ev).String()
		if ev.GetProducer() == "" || ev.GetRules() != event.CurrentRules || len(ev.GetRequestId()) <= wire.RequestTag {
			t.Errorf("%s at %s is by %q, of request %x, under rules %d",
				kind, where, ev.GetProducer(), ev.GetRequestId(), ev.GetRules())
		}
		c := ev.GetCause()
		if !ev.HasThreadLeft() {
			if c != nil {
				t.Errorf("%s at %s has the cause %v", kind, where, c)
			}
			continue
		}
		tp, err := topic.FromNumber(c.GetTopic())
		must(t, err)
		by := at[place(tp, c.GetSlot(), c.GetPosition())]
		if !by.HasMemberLeft() && !by.HasMemberRemoved() || !bytes.Equal(by.GetRequestId(), ev.GetRequestId()) {
			t.Errorf("thread_left at %s names %v as its cause: %v", where, c, by)
		}
	}
	for _, kind := range []string{
		"user_registered", "profile_changed", "thread_joined", "thread_left", "message_sent",
	} {
		if kinds[kind] == 0 {
			t.Errorf("no %s to look at", kind)
		}
	}
}
