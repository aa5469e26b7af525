package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/edge/client"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// command runs a command of helio on the cluster, and returns what it says.
func (e *env) command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(e.context(t), helio, append(args,
		"--kafka", e.KafkaAddr(), "--postgres", e.PostgresURL(), "--clickhouse", e.ClickHouseAddr())...)
	cmd.Env = append(os.Environ(), "HELIO_CLICKHOUSE_PASSWORD="+e.ClickHousePassword().Reveal())
	out, err := cmd.Output()
	t.Logf("helio %s\n%s", strings.Join(args, " "), out)
	return string(out), err
}

// testReleased: an operator drops the event that stops a thread. Senders are let in within a second, what was parked
// comes in order, and both views are what a fold gives that never saw the event; testRebuild builds them anew.
func testReleased(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob := e.user(t, "ann", 0), e.user(t, "bob", 1)
	sick, err := ann.u.CreateGroup(ctx, "sick", bob.me.User)
	must(t, err)
	bob.has(ann.say(client.To{Thread: sick}, "before the unreadable one"))
	at := e.appended(t, unreadable(e, sick))
	var behind []id.MessageID
	for range 20 { // as they came meanwhile through an edge that had not seen it yet
		m := id.NewMessage()
		behind = append(behind, m)
		content := outgoing(t, client.To{}, "behind the unreadable one").Data
		data, err := proto.Marshal(eventv1.Event_builder{
			UserId: ann.me.User[:], DeviceId: ann.me.Device[:], MessageSent: eventv1.MessageSent_builder{
				MessageId: m[:],
				Content:   eventv1.Sealed_builder{Data: content}.Build(),
			}.Build(),
		}.Build())
		must(t, err)
		r := unreadable(e, sick)
		r.Value = data
		e.append(t, r)
	}
	waits := bob.say(client.To{Thread: sick}, "as soon as it goes on")
	until(t, "the sender is told", func() bool {
		bob.mu.Lock()
		defer bob.mu.Unlock()
		return codeOf(bob.delayed[waits]) == wirev1.Code_CODE_THREAD_PARKED
	})
	e.caughtUp(t)

	var list struct {
		Stopped []struct {
			Subject  string           `json:"subject"`
			Position topic.Position   `json:"position"`
			Behind   map[string]int64 `json:"behind"`
		} `json:"stopped"`
	}
	out, err := e.command(t, "quarantine", "list", "-o", "json")
	must(t, err)
	must(t, json.Unmarshal([]byte(out), &list))
	found := false
	for _, s := range list.Stopped {
		if s.Subject == sick.String() {
			found = s.Position == at && s.Behind["threads"] == 20 && s.Behind["history"] == 20
		}
	}
	if !found {
		t.Errorf("listed is %+v, want %s at %d with 20 parked behind it in both views", list.Stopped, sick, at)
	}
	if out, err = e.command(t, "quarantine", "show", sick.String()); err != nil || !strings.Contains(out, "ffffff") {
		t.Errorf("shown is %q, %v", out, err)
	}
	drop := []string{
		"quarantine", "drop", sick.String(), "--position", strconv.FormatInt(int64(at), 10), "--note", "a test",
	}
	for _, refused := range [][]string{
		{"quarantine", "drop", sick.String(), "--position", "1", "--note", "a test", "--yes"},
		drop, // nobody can be asked
		{"quarantine", "retry", id.NewGroup().String()},
	} {
		if _, err = e.command(t, refused...); err == nil {
			t.Errorf("%v was done", refused)
		}
	}
	out, err = e.command(t, "quarantine", "retry", sick.String())
	if err == nil || strings.Count(out, "has tried it again") != 2 {
		t.Errorf("a retry says %q, %v", out, err)
	}
	_, err = e.command(t, append(drop, "--yes")...)
	must(t, err)
	began := time.Now() // both views have it by now
	place := bob.acked(waits)
	t.Logf("a sender was let in %v after the command had ended", time.Since(began))
	ann.has(waits)
	last := at
	for _, d := range []*device{ann, bob} {
		last = at
		for _, m := range append(behind, waits) {
			d.has(m)
			p, _ := d.place(m)
			if p.Position <= last {
				t.Errorf("%s has a message at %d behind one at %d", d.name, p.Position, last)
			}
			last = p.Position
		}
	}
	if place.Position != last {
		t.Errorf("the message that waited is at %d, acknowledged at %d", last, place.Position)
	}
	ann.has(bob.say(client.To{Thread: sick}, "and on"))
	e.viewsAgree(t)
	for view, n := range e.eventsOf(t, sick) {
		if n != 1+1+len(behind)+2 {
			t.Errorf("%s has %d events of the thread, want %d", view, n, 1+1+len(behind)+2)
		}
	}
}

// appended produces a record as it is, and returns where it lies.
func (e *env) appended(t *testing.T, r *kgo.Record) topic.Position {
	t.Helper()
	e.append(t, r)
	return topic.Position(r.Offset)
}
