package operator_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// TestTailSubject: the last events of one subject, or those since a time, from its slot alone, also when thousands of
// others came after them.
func TestTailSubject(t *testing.T) {
	w := newLog(t)
	ann := id.UserID{1}
	quiet := id.DirectThread(ann, id.UserID{2})
	var loud id.ThreadID
	for n := byte(3); loud.IsZero() || slotOf(loud) != slotOf(quiet); n++ {
		loud = id.DirectThread(ann, id.UserID{n})
	}
	begin := time.Now().UTC().Add(-time.Hour).Truncate(time.Second)
	for i := range 5 {
		w.put(
			quiet, begin.Add(time.Duration(i)*time.Minute), message(id.NewMessage(), ann, id.UserID{2}, fmt.Sprint(i)),
		)
	}
	var recs []*kgo.Record
	body, err := proto.Marshal(message(id.NewMessage(), ann, id.UserID{9}, "loud"))
	if err != nil {
		t.Fatal(err)
	}
	for range 7000 {
		recs = append(recs, w.cfg.NewRecord(topic.Threads, slotOf(loud), loud[:], body))
	}
	if err := w.cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	for i := 5; i < 8; i++ {
		w.put(quiet, time.Now(), message(id.NewMessage(), ann, id.UserID{2}, fmt.Sprint(i)))
	}
	subject := topic.Subject(quiet)
	at := func(t time.Time) *time.Time { return &t }
	for name, c := range map[string]struct {
		tail operator.Tail
		want []string
	}{
		"the last":        {operator.Tail{Last: 2}, []string{"6", "7"}},
		"far back":        {operator.Tail{Last: 6}, []string{"2", "3", "4", "5", "6", "7"}},
		"all there are":   {operator.Tail{Last: 100}, []string{"0", "1", "2", "3", "4", "5", "6", "7"}},
		"since the start": {operator.Tail{Since: &time.Time{}}, []string{"0", "1", "2", "3", "4", "5", "6", "7"}},
		"since a time":    {operator.Tail{Since: at(begin.Add(3 * time.Minute))}, []string{"3", "4", "5", "6", "7"}},
		"since a while":   {operator.Tail{Since: at(time.Now().Add(-30 * time.Minute))}, []string{"5", "6", "7"}},
		"from a position": {
			operator.Tail{From: &operator.From{Slot: slotOf(quiet), Position: 4}},
			[]string{"4", "5", "6", "7"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.tail.Topic, c.tail.Subject, c.tail.Bodies = topic.Threads, &subject, true
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			var got []string
			err := c.tail.Run(ctx, w.cfg, func(l operator.Line) error {
				got = append(got, fmt.Sprint(l.Fields["content"]))
				if l.Subject != quiet.String() || l.Slot != slotOf(quiet) {
					t.Errorf("%+v is not about the subject", l)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTailFollows: what comes after the last events is shown as it comes, until whoever is shown it has enough.
func TestTailFollows(t *testing.T) {
	w := newLog(t)
	ann, bob := id.UserID{1}, id.UserID{2}
	about := id.DirectThread(ann, bob)
	w.put(about, time.Now(), message(id.NewMessage(), ann, bob, "0"))
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	enough := errors.New("enough")
	var got []string
	err := operator.Tail{Topic: topic.Threads, Last: 5, Follow: true, Bodies: true}.Run(ctx, w.cfg,
		func(l operator.Line) error {
			got = append(got, fmt.Sprint(l.Fields["content"]))
			if len(got) == 3 {
				return enough
			}
			w.put(about, time.Now(), message(id.NewMessage(), bob, ann, fmt.Sprint(len(got))))
			return nil
		})
	if !errors.Is(err, enough) || ctx.Err() != nil {
		t.Errorf("it ended with %v", err)
	}
	if diff := cmp.Diff([]string{"0", "1", "2"}, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestTailRefuses: a place that is not there.
func TestTailRefuses(t *testing.T) {
	w := newLog(t)
	about := id.DirectThread(id.UserID{1}, id.UserID{2})
	subject := topic.Subject(about)
	for name, c := range map[string]struct {
		tail operator.Tail
		want string
	}{
		"a slot beyond the last": {operator.Tail{From: &operator.From{Slot: writtenSlots}}, "no slot 3"},
		"another subject's slot": {
			operator.Tail{Subject: &subject, From: &operator.From{Slot: (slotOf(about) + 1) % writtenSlots}},
			"not in slot",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c.tail.Topic = topic.Threads
			err := c.tail.Run(t.Context(), w.cfg, func(operator.Line) error { return nil })
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
