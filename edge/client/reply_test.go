package client

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// An answer names its message by author and id, over a restart too. To an edge that does not know of authors, and from
// an outbox of a version that did not, it goes by id alone.
func TestReplyNamesAuthor(t *testing.T) {
	th, ann, question := id.NewGroup(), id.UserID{1}, id.NewMessage()
	ref := event.MessageRef{Author: ann, ID: question}
	type reply struct {
		ReplyTo []byte
		Reply   *eventv1.MessageRef
	}
	byID, byName := reply{ReplyTo: question[:]}, reply{Reply: ref.Proto()}
	for _, c := range []struct {
		name     string
		features []string
		want     map[string]reply
	}{
		{"edge of now", wire.Features, map[string]reply{"earlier": byID, "kept": byName, "new": byName, "none": {}}},
		{"edge of before", nil, map[string]reply{"earlier": byID, "kept": byID, "new": byID, "none": {}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "device")
			store, err := OpenFileStore(path)
			must(t, err)
			must(t, store.SetIdentity(identity(t)), store.Close())
			// What the version before MessageRef wrote for a message of its outbox.
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			must(t, err)
			_, err = fmt.Fprintf(f,
				`{"put":{"thread":%q,"id":%q,"data":"%s","reply_to":%q,"client_time":"12"}}`+"\n",
				th, id.NewMessage(), "CgdlYXJsaWVy", question)
			must(t, err, f.Close())
			store, err = OpenFileStore(path)
			must(t, err)
			offline, err := New(Config{Addrs: []string{"edge:1"}, Store: store})
			must(t, err)
			_, err = offline.Send(To{Thread: th, Reply: ref}, "kept")
			must(t, err)
			store = reopen(t, store)
			defer func() { must(t, store.Close()) }()

			got := make(chan *wirev1.SendMessage, 10)
			cfg := fakeEdge(t, func(p *peer, f *wirev1.ClientFrame) bool {
				switch f.WhichBody() {
				case wirev1.ClientFrame_Hello_case:
					p.write(wirev1.ServerFrame_builder{RequestId: f.GetRequestId(), Welcome: wirev1.Welcome_builder{
						Nonce: make([]byte, wire.NonceSize), Features: c.features,
					}.Build()}.Build())
					return true
				case wirev1.ClientFrame_SendMessage_case:
					got <- f.GetSendMessage()
				default:
				}
				return false
			})
			cfg.Store = store
			cl, _ := start(t, cfg)
			_, err = cl.Send(To{Thread: th, Reply: ref}, "new")
			must(t, err)
			_, err = cl.Send(To{Thread: th}, "none")
			must(t, err)
			sent := map[string]reply{}
			for range c.want {
				select {
				case m := <-got:
					text, _ := event.Text(m.GetContent())
					sent[text] = reply{m.GetReplyTo(), m.GetReply()}
				case <-within(t).Done():
					t.Fatalf("only %d were sent", len(sent))
				}
			}
			if d := cmp.Diff(c.want, sent, protocmp.Transform()); d != "" {
				t.Error(d)
			}
		})
	}
}

// A message that comes in names what it answers, in either form.
func TestReplyIsRead(t *testing.T) {
	th, me, m, question := id.NewGroup(), identity(t), id.NewMessage(), id.NewMessage()
	named := event.MessageRef{Author: id.UserID{1}, ID: question}
	for _, c := range []struct {
		name string
		sent eventv1.MessageSent_builder
		want event.MessageRef
	}{
		{"none", eventv1.MessageSent_builder{}, event.MessageRef{}},
		{"by id alone", eventv1.MessageSent_builder{ReplyTo: question[:]}, event.MessageRef{ID: question}},
		{"by author and id", eventv1.MessageSent_builder{Reply: named.Proto()}, named},
		{"both, of which the author counts", eventv1.MessageSent_builder{ReplyTo: m[:], Reply: named.Proto()}, named},
	} {
		c.sent.MessageId = m[:]
		raw, err := proto.Marshal(eventv1.Event_builder{UserId: me.User[:], MessageSent: c.sent.Build()}.Build())
		must(t, err)
		got, err := decodeEvent(wirev1.Event_builder{ThreadId: th[:], Event: raw}.Build())
		must(t, err)
		if got := got.(Message); got.Reply != c.want || got.ID != m {
			t.Errorf("%s: message %s answers %v, want %v", c.name, got.ID, got.Reply, c.want)
		}
	}
}
