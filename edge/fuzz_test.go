package edge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/auth"
	"heliograph/edge/session"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// memConn is a connection whose device has said all that it will ever say.
type memConn struct {
	in     io.Reader
	cancel context.CancelFunc

	mu    sync.Mutex // guards the rest
	out   bytes.Buffer
	pages []*memPage
	code  wirev1.Code
	ended bool
}

func (c *memConn) Control() session.Stream          { return c }
func (c *memConn) Exporter() ([]byte, error)        { return make([]byte, 32), nil }
func (c *memConn) Remote() netip.Addr               { return netip.IPv4Unspecified() }
func (c *memConn) Authenticated()                   {}
func (c *memConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memConn) Read(p []byte) (int, error)       { return c.in.Read(p) }

func (c *memConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return 0, io.ErrClosedPipe
	}
	return c.out.Write(p)
}

func (c *memConn) OpenPage(context.Context) (session.Page, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &memPage{}
	c.pages = append(c.pages, p)
	return p, nil
}

func (c *memConn) Close(code wirev1.Code, _ string) {
	c.mu.Lock()
	c.code, c.ended = code, true
	c.mu.Unlock()
	c.cancel()
}

type memPage struct{ bytes.Buffer }

func (p *memPage) SetWriteDeadline(time.Time) error { return nil }
func (p *memPage) Close() error                     { return nil }
func (p *memPage) Cancel()                          {}

// open lets every proof through: the fuzzer cannot sign.
type open struct{ gate }

var somebody = auth.Identity{User: id.UserID{1}, Device: id.DeviceID{6: 0x70, 8: 0x80}}

func (open) Register(context.Context, *wirev1.Register, []byte, []byte, netip.Addr) (auth.Identity, error) {
	return somebody, nil
}

func (open) Authenticate(context.Context, *wirev1.Authenticate, []byte, []byte, netip.Addr) (auth.Identity, error) {
	return somebody, nil
}

// wholeReads answers every query: reads breaks on purpose.
type wholeReads struct{ reads }

func (wholeReads) GetThread(context.Context, id.UserID, id.ThreadID) (*wirev1.Thread, error) {
	return &wirev1.Thread{}, nil
}

func frames(t testing.TB, bs ...wirev1.ClientFrame_builder) []byte {
	var out []byte
	for k, b := range bs {
		b.RequestId = uint64(k) + 1
		var err error
		if out, err = frame.Append(out, b.Build()); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// FuzzSession lets a device say anything in each state. Whatever it is: no panic, nothing but whole frames comes back, nothing reaches the log before
// authentication, and the session ends by a code of the table.
func FuzzSession(f *testing.F) {
	th, m, u := id.DirectThread(somebody.User, id.UserID{2}), id.NewMessage(), id.UserID{2}
	g := id.NewGroup()
	hello := wirev1.ClientFrame_builder{Hello: wirev1.Hello_builder{Client: "fuzz"}.Build()}
	authenticate := wirev1.ClientFrame_builder{Authenticate: &wirev1.Authenticate{}}
	for state := range byte(3) {
		f.Add(state, frames(f, hello, wirev1.ClientFrame_builder{RequestPin: wirev1.RequestPin_builder{Phone: "+4915112345678"}.Build()}, authenticate))
		f.Add(state, frames(f, wirev1.ClientFrame_builder{Register: wirev1.Register_builder{Phone: "+49", DeviceId: m[:]}.Build()}))
		f.Add(state, frames(f,
			wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}},
			wirev1.ClientFrame_builder{SendMessage: wirev1.SendMessage_builder{ThreadId: th[:], MessageId: m[:], DirectPeer: u[:], Content: text("x")}.Build()},
			wirev1.ClientFrame_builder{CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "t", MemberIds: [][]byte{u[:]}}.Build()},
			wirev1.ClientFrame_builder{Watermarks: wirev1.Watermarks_builder{Items: []*wirev1.Watermark{wirev1.Watermark_builder{ThreadId: g[:], DeliveredPosition: 1}.Build()}}.Build()},
			wirev1.ClientFrame_builder{AddMembers: wirev1.AddMembers_builder{ThreadId: g[:], MemberIds: [][]byte{u[:]}}.Build()},
			wirev1.ClientFrame_builder{RemoveMember: wirev1.RemoveMember_builder{ThreadId: g[:], MemberId: u[:]}.Build()},
			wirev1.ClientFrame_builder{SetRole: wirev1.SetRole_builder{ThreadId: g[:], MemberId: u[:], Role: 2}.Build()},
			wirev1.ClientFrame_builder{RenameThread: wirev1.RenameThread_builder{ThreadId: g[:], Title: "t"}.Build()},
			wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g[:]}.Build()},
		))
		f.Add(state, frames(f,
			wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{ThreadId: g[:]}.Build()},
			wirev1.ClientFrame_builder{ListThreads: &wirev1.ListThreads{}}, wirev1.ClientFrame_builder{GetThread: wirev1.GetThread_builder{ThreadId: g[:]}.Build()},
			wirev1.ClientFrame_builder{LookupUsers: &wirev1.LookupUsers{}}, wirev1.ClientFrame_builder{GetUsers: &wirev1.GetUsers{}},
			wirev1.ClientFrame_builder{SetProfile: wirev1.SetProfile_builder{Name: "n"}.Build()}, wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}},
			wirev1.ClientFrame_builder{LinkDevice: wirev1.LinkDevice_builder{DeviceId: m[:], PublicKey: make([]byte, 32)}.Build()},
			wirev1.ClientFrame_builder{RevokeDevice: wirev1.RevokeDevice_builder{DeviceId: m[:]}.Build()},
			wirev1.ClientFrame_builder{GetViews: wirev1.GetViews_builder{ThreadId: g[:]}.Build()},
		))
		f.Add(state, []byte{0xc0, 0, 0, 1, 0, 0, 0, 0})
		f.Add(state, []byte{0, 0, 4, 0xf2, 0x07, 1, 'x'})
	}
	f.Fuzz(func(t *testing.T, state byte, data []byte) {
		var prologue []byte
		authenticated := state%3 == 2
		switch state % 3 {
		case 1:
			prologue = frames(t, hello)
		case 2:
			prologue = frames(t, hello, authenticate)
		}
		w := newWorld()
		w.users[u] = true
		r := &registry{sessions: map[owner]*session.Session{}}
		srv, err := session.New(session.Config{Partitions: partitions, RequestTimeout: time.Second}, readSide{w}, open{gate{w}}, wholeReads{reads{w}}, w, r, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		c := &memConn{in: bytes.NewReader(append(prologue, data...)), cancel: cancel}
		srv.Serve(ctx, c)
		if c.code == wirev1.Code_CODE_INTERNAL || wire.Lookup(c.code).Name == "" || !c.ended {
			t.Fatalf("ended with %v", c.code)
		}
		if r.count() != 0 || len(w.sessions) != 0 {
			t.Fatal("the session is still registered")
		}
		in := bufio.NewReader(&c.out)
		for {
			raw, err := frame.Read(in, nil, wire.MaxServerFrame)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("the server wrote: %v", err)
			}
			var got wirev1.ServerFrame
			if err := proto.Unmarshal(raw, &got); err != nil {
				t.Fatalf("the server wrote: %v", err)
			}
			authenticated = authenticated || got.WhichBody() == wirev1.ServerFrame_Authenticated_case
		}
		if n := len(w.log()); n > 0 && !authenticated && !bytes.Contains(data, []byte{0x2a}) && !bytes.Contains(data, []byte{0x22}) {
			t.Fatalf("%d events before authentication", n) // 0x22 and 0x2a are the tags of Register and Authenticate
		}
	})
}
