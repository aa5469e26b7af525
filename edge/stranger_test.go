package edge

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/testing/protocmp"

	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	wirev1 "heliograph/schemas/wire/v1"
)

// A stranger is told of a thread that is there just what he is told of one that is not, and no sooner.
func TestStrangersLearnNothing(t *testing.T) {
	f := start(t, nil)
	a, b, c := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync(), f.dial(t).register("+493").sync()
	there, none, unborn := id.NewGroup(), id.NewGroup(), id.NewGroup()
	create := func(g id.ThreadID) wirev1.ClientFrame_builder {
		return wirev1.ClientFrame_builder{
			CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "g", MemberIds: [][]byte{b.user[:]}}.Build(),
		}
	}
	a.ask(create(there))
	f.world.mu.Lock()
	f.world.threads[unborn] = thread.New(unborn)
	f.world.quarantined = map[id.ThreadID]bool{unborn: true}
	f.world.mu.Unlock()
	m := id.NewMessage()
	kinds := map[string]func(g []byte) wirev1.ClientFrame_builder{
		"send": func(g []byte) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				SendMessage: wirev1.SendMessage_builder{ThreadId: g, MessageId: m[:], Content: text("x")}.Build(),
			}
		},
		"leave": func(g []byte) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g}.Build()}
		},
		"rename": func(g []byte) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				RenameThread: wirev1.RenameThread_builder{ThreadId: g, Title: "x"}.Build(),
			}
		},
		"add": func(g []byte) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				AddMembers: wirev1.AddMembers_builder{ThreadId: g, MemberIds: [][]byte{c.user[:]}}.Build(),
			}
		},
		"remove": func(g []byte) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				RemoveMember: wirev1.RemoveMember_builder{ThreadId: g, MemberId: a.user[:]}.Build(),
			}
		},
		"role": func(g []byte) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				SetRole: wirev1.SetRole_builder{ThreadId: g, MemberId: a.user[:], Role: 1}.Build(),
			}
		},
		"invite":   func(g []byte) wirev1.ClientFrame_builder { return invite(id.ThreadID(g), a.user) },
		"withdraw": func(g []byte) wirev1.ClientFrame_builder { return withdraw(id.ThreadID(g), a.user) },
		"accept":   func(g []byte) wirev1.ClientFrame_builder { return answer(id.ThreadID(g), true) },
		"views": func(g []byte) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{GetViews: wirev1.GetViews_builder{ThreadId: g}.Build()}
		},
		"watermarks": func(g []byte) wirev1.ClientFrame_builder {
			w := wirev1.Watermark_builder{ThreadId: g, DeliveredOrdinal: 1}.Build()
			return wirev1.ClientFrame_builder{
				Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{w}}.Build(),
			}
		},
		"give up": func(g []byte) wirev1.ClientFrame_builder {
			return wirev1.ClientFrame_builder{
				AbandonMessage: wirev1.AbandonMessage_builder{ThreadId: g, MessageId: m[:]}.Build(),
			}
		},
	}
	type answer struct {
		frame *wirev1.ServerFrame
		quick bool
	}
	begun := time.Now()
	asked := map[uint64]string{}
	answers := map[string]map[string]answer{}
	for name, of := range map[string]id.ThreadID{"there": there, "not there": none, "not readable": unborn} {
		answers[name] = map[string]answer{}
		for kind, frame := range kinds {
			asked[c.send(frame(of[:]))] = name + "/" + kind
		}
	}
	for range asked {
		got, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		for got.GetRequestId() == 0 {
			if got, err = c.read(); err != nil {
				t.Fatal(err)
			}
		}
		for name := range answers {
			if kind, ok := strings.CutPrefix(asked[got.GetRequestId()], name+"/"); ok {
				got.SetRequestId(0)
				answers[name][kind] = answer{got, time.Since(begun) < 200*time.Millisecond}
				break
			}
		}
	}
	for name := range answers {
		d := cmp.Diff(answers["not there"], answers[name], protocmp.Transform(), cmp.AllowUnexported(answer{}))
		if d != "" {
			t.Errorf("%s (-not there +it):\n%s", name, d)
		}
	}
	for kind, got := range answers["not there"] {
		if harmless := kind == "watermarks" || kind == "give up"; !harmless &&
			got.frame.GetError().GetCode() != wirev1.Code_CODE_NOT_A_MEMBER {
			t.Errorf("%s: %v", kind, got.frame)
		}
	}
	if d := cmp.Diff(c.ask(create(there)).GetError(), c.ask(create(unborn)).GetError(), protocmp.Transform()); d != "" {
		t.Errorf("creating what is there, and what cannot be read:\n%s", d)
	}
	c.refused(c.ask(create(there)), wirev1.Code_CODE_CONFLICT)
	if got := b.ask(kinds["views"](there[:])); !got.HasViews() {
		t.Errorf("a member got %v", got)
	}
}

// What a message has in fields that nobody knows counts as its content does.
func TestUnknownFieldsCount(t *testing.T) {
	f := start(t, nil)
	a, b := f.dial(t).register("+491").sync(), f.dial(t).register("+492").sync()
	unknown := func(n int) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, 999, protowire.BytesType), make([]byte, n))
	}
	author, m := id.UserID{1}, id.NewMessage()
	for _, x := range []struct {
		name           string
		content, reply int
		want           wirev1.Code
	}{
		{"a few", 100, 100, 0},
		{"in the content", thread.MaxSealed, 0, wirev1.Code_CODE_TOO_LARGE},
		{"in what it answers", 0, thread.MaxSealed, wirev1.Code_CODE_TOO_LARGE},
		{"in both together", thread.MaxSealed / 2, thread.MaxSealed / 2, wirev1.Code_CODE_TOO_LARGE},
	} {
		msg := direct(a, b, "x")
		msg.SendMessage.GetContent().ProtoReflect().SetUnknown(unknown(x.content))
		ref := event.MessageRef{Author: author, ID: m}.Proto()
		ref.ProtoReflect().SetUnknown(unknown(x.reply))
		msg.SendMessage.SetReply(ref)
		if got := a.ask(msg); got.GetError().GetCode() != x.want || got.HasAck() != (x.want == 0) {
			t.Errorf("%s: got %v, want %v", x.name, got, x.want)
		}
	}
	kept := 0
	for _, r := range f.world.log() {
		kept += len(r.ev.GetMessageSent().GetContent().ProtoReflect().GetUnknown())
	}
	if kept < 100 {
		t.Error("what nobody knows was not kept")
	}
}
