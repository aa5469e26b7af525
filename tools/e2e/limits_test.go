package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/client"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// testText: the longest text goes everywhere whole, and one byte more goes nowhere.
func testText(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	to := ann.to(bob)
	var b strings.Builder
	for n := 0; b.Len() < thread.MaxText; n++ {
		fmt.Fprintf(&b, "%d é\n", n)
	}
	text := strings.ToValidUTF8(b.String()[:thread.MaxText-1], "")
	text += strings.Repeat("$", thread.MaxText-len(text))
	longest := ann.say(to, text)
	bob.has(longest)

	if _, err := ann.u.Send(to, text+"x"); codeOf(err) != wirev1.Code_CODE_TOO_LARGE {
		t.Errorf("the client says %v to a text that is too long", err)
	}
	over := outgoing(t, to, text+"x") // past the client's own check
	must(t, ann.u.SendRaw(over))
	var failed error
	until(t, "the edge refuses it", func() bool { _, failed, _ = ann.outcome(over.ID); return failed != nil })
	if codeOf(failed) != wirev1.Code_CODE_TOO_LARGE {
		t.Errorf("the edge says %v to a text that is too long", failed)
	}
	last := ann.say(to, "short")
	bob.has(last)

	tr := e.agree(t, ann, bob)
	e.viewsAgree(t)
	if diff := cmp.Diff([]string{text, "short"}, bob.texts(to.Thread)); diff != "" {
		t.Errorf("bob's messages (-want +got):\n%s", clip(diff))
	}
	var body string
	must(t, e.ch.QueryRow(ctx, `SELECT body FROM messages FINAL WHERE thread_id = ? AND message_id = ?`,
		uuid.UUID(to.Thread), uuid.UUID(longest)).Scan(&body))
	if body != text {
		t.Errorf("in the history it has %d bytes, want the %d that were sent", len(body), len(text))
	}
	want := tr.expected(bob, to.Thread)
	trim, restore := e.trimmer(t, to.Thread)
	for _, store := range []string{"Postgres", "ClickHouse"} {
		got, _ := pages(t, e, bob, to.Thread, 10)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pages out of %s (-log +pages):\n%s", store, clip(diff))
		}
		trim(1 << 60)
	}
	restore()
}

// testCrowd: a group takes its 1,024 members, most of whom are away, and not one more.
func testCrowd(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob, away := e.user(t, "ann", 0), e.user(t, "bob", 1), e.user(t, "away", 1)
	away.leave()
	crowd := e.enrol(t, thread.MaxMembers-2)
	others := append([]id.UserID{bob.me.User, away.me.User}, crowd...) // with ann, one more than there is room for
	e.caughtUp(t)

	if _, err := ann.u.CreateGroup(ctx, "too many", others...); codeOf(err) != wirev1.Code_CODE_GROUP_FULL {
		t.Errorf("creating a group of %d ended with %v", len(others)+1, err)
	}
	spare := others[len(others)-1]
	group, err := ann.u.CreateGroup(ctx, "all", others[:len(others)-1]...)
	must(t, err)
	to := client.To{Thread: group}
	hello := ann.say(to, "hello all")
	bob.has(hello)
	if err := ann.u.AddMembers(ctx, group, spare); codeOf(err) != wirev1.Code_CODE_GROUP_FULL {
		t.Errorf("adding member %d ended with %v", thread.MaxMembers+1, err)
	}
	ann.has(bob.say(to, "still here"))
	away.come()
	away.has(hello)

	// Room for one is room for one.
	must(t, ann.u.RemoveMember(ctx, group, crowd[0]))
	must(t, ann.u.AddMembers(ctx, group, spare))
	if err := ann.u.AddMembers(ctx, group, crowd[0]); codeOf(err) != wirev1.Code_CODE_GROUP_FULL {
		t.Errorf("adding member %d ended with %v", thread.MaxMembers+1, err)
	}
	last := bob.say(to, "and goodbye")
	ann.has(last)
	away.has(last)

	tr := e.agree(t, ann, bob, away)
	e.viewsAgree(t)
	if n := tr.threads[group].state.ActiveMembers(); n != thread.MaxMembers {
		t.Errorf("the log has %d members, want %d", n, thread.MaxMembers)
	}
	v, err := ann.u.Thread(ctx, group)
	must(t, err)
	if n := v.GetSummary().GetMemberCount(); n != thread.MaxMembers {
		t.Errorf("ann is told of %d members, want %d", n, thread.MaxMembers)
	}
}

// enrol writes the registrations of n users to the log, as if each had come with a PIN.
func (e *env) enrol(t *testing.T, n int) []id.UserID {
	t.Helper()
	var out []id.UserID
	for _, me := range e.enrolDevices(t, n) {
		out = append(out, me.User)
	}
	return out
}

// enrolDevices is enrol, and returns what their devices need to connect.
func (e *env) enrolDevices(t *testing.T, n int) []client.Identity {
	t.Helper()
	var out []client.Identity
	var records []*kgo.Record
	for range n {
		me, key, err := client.NewDevice(id.UserID(id.NewMessage()))
		must(t, err)
		u, d := me.User, me.Device
		value, err := proto.Marshal(
			eventv1.Event_builder{UserId: u[:], DeviceId: d[:], UserRegistered: eventv1.UserRegistered_builder{
				PhoneHash: u[:], Generation: 1, DeviceId: d[:], PublicKey: key,
			}.Build()}.Build(),
		)
		must(t, err)
		records = append(records, &kgo.Record{
			Topic: string(topic.Users), Partition: int32(topic.SlotOf(topic.Subject(u), e.Partitions())),
			Key: u[:], Value: value,
		})
		out = append(out, me)
	}
	e.append(t, records...)
	return out
}
