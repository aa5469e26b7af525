package edge

import (
	"bufio"
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// FuzzSession lets a device say anything in each state. Whatever it is: no panic, nothing but whole frames comes back,
// no request is answered more often than it was asked, who is not let in is pushed nothing and writes nothing to the
// log, the session ends by a code that closes, and the session beside it does not notice.
func FuzzSession(f *testing.F) {
	u, m := onlooker.User, id.NewMessage()
	th := id.DirectThread(somebody.User, u)
	g := id.NewGroup()
	for state := range byte(len(stages)) {
		f.Add(state, frames(f,
			helloFrame,
			wirev1.ClientFrame_builder{RequestPin: wirev1.RequestPin_builder{Phone: "+4915112345678"}.Build()},
			proofFrame,
			proofFrame,
		))
		f.Add(state, frames(f,
			wirev1.ClientFrame_builder{Register: wirev1.Register_builder{Phone: "+49", DeviceId: m[:]}.Build()},
		))
		f.Add(state, frames(f,
			wirev1.ClientFrame_builder{Sync: &wirev1.Sync{}},
			wirev1.ClientFrame_builder{
				SendMessage: wirev1.SendMessage_builder{
					ThreadId:   th[:],
					MessageId:  m[:],
					DirectPeer: u[:],
					Content:    text("x"),
				}.Build(),
			},
			wirev1.ClientFrame_builder{
				CreateGroup: wirev1.CreateGroup_builder{ThreadId: g[:], Title: "t", MemberIds: [][]byte{u[:]}}.Build(),
			},
			wirev1.ClientFrame_builder{
				Watermarks: wirev1.Watermarks_builder{
					Items: []*wirev1.Watermark{wirev1.Watermark_builder{ThreadId: g[:], DeliveredPosition: 1}.Build()},
				}.Build(),
			},
			wirev1.ClientFrame_builder{
				AddMembers: wirev1.AddMembers_builder{ThreadId: g[:], MemberIds: [][]byte{u[:]}}.Build(),
			},
			wirev1.ClientFrame_builder{
				RemoveMember: wirev1.RemoveMember_builder{ThreadId: g[:], MemberId: u[:]}.Build(),
			},
			wirev1.ClientFrame_builder{
				SetRole: wirev1.SetRole_builder{ThreadId: g[:], MemberId: u[:], Role: 2}.Build(),
			},
			wirev1.ClientFrame_builder{RenameThread: wirev1.RenameThread_builder{ThreadId: g[:], Title: "t"}.Build()},
			wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: g[:]}.Build()},
		))
		f.Add(state, frames(f,
			wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{ThreadId: g[:]}.Build()},
			wirev1.ClientFrame_builder{ListThreads: &wirev1.ListThreads{}},
			wirev1.ClientFrame_builder{GetThread: wirev1.GetThread_builder{ThreadId: g[:]}.Build()},
			wirev1.ClientFrame_builder{LookupUsers: &wirev1.LookupUsers{}},
			wirev1.ClientFrame_builder{GetUsers: &wirev1.GetUsers{}},
			wirev1.ClientFrame_builder{SetProfile: wirev1.SetProfile_builder{Name: "n"}.Build()},
			wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}},
			wirev1.ClientFrame_builder{
				LinkDevice: wirev1.LinkDevice_builder{DeviceId: m[:], PublicKey: make([]byte, 32)}.Build(),
			},
			wirev1.ClientFrame_builder{RevokeDevice: wirev1.RevokeDevice_builder{DeviceId: m[:]}.Build()},
			wirev1.ClientFrame_builder{GetViews: wirev1.GetViews_builder{ThreadId: g[:]}.Build()},
		))
		f.Add(state, []byte{0xc0, 0, 0, 1, 0, 0, 0, 0})
		f.Add(state, frame.AppendLength(nil, wire.MaxFrame+1))
		f.Add(state, frames(f, syncFrame, syncFrame, syncFrame, helloFrame))
		f.Add(state, []byte{0, 0, 4, 0xf2, 0x07, 1, 'x'})
	}
	f.Fuzz(func(t *testing.T, state byte, data []byte) {
		stage := stages[int(state)%len(stages)]
		a := newArena(t)
		d := a.connect(hostile)
		stage.enter(a, d)
		if !stage.early {
			a.push()
		}
		events := len(a.world.log())
		d.raw(data)
		if stage.name == "draining" {
			d.conn.in.read()
			for _, s := range a.sessions() {
				s.Close(wirev1.Code_CODE_DRAINING)
			}
		}
		d.conn.in.end()
		a.push()
		a.undisturbed()
		<-d.done
		if code, ended := d.conn.outcome(); !ended ||
			code != wirev1.Code_CODE_UNSPECIFIED && !wire.Lookup(code).Closes {
			t.Fatalf("ended with %v", code)
		}
		a.world.mu.Lock()
		known := len(a.world.sessions)
		a.world.mu.Unlock()
		if known != 1 || len(a.sessions()) != 0 {
			t.Fatal("the session is still registered")
		}
		for d.next() != nil {
		}
		account(t, d, a.let.Load())
		if n := len(a.world.log()) - events - 2; n > 0 && !a.let.Load() { // beside what friend and witness said
			t.Fatalf("%d events before authentication", n)
		}
		a.undisturbed()
		if code, ended := a.witness.conn.outcome(); ended {
			t.Fatalf("the witness ended with %v", code)
		}
	})
}

// account compares what a device has got with what it asked.
func account(t *testing.T, d *mouth, let bool) {
	t.Helper()
	asked := map[uint64]int{}
	for in := bufio.NewReader(&d.said); ; {
		raw, err := frame.Read(in, nil, wire.MaxFrame)
		var f wirev1.ClientFrame
		if err != nil || proto.Unmarshal(raw, &f) != nil {
			break
		}
		asked[f.GetRequestId()]++
	}
	for _, p := range d.conn.pages {
		in := bufio.NewReader(bytes.NewReader(p.Bytes()))
		var f wirev1.ServerFrame
		if raw, err := frame.Read(in, nil, wire.MaxServerFrame); err != nil || proto.Unmarshal(raw, &f) != nil ||
			in.Buffered() > 0 {
			continue // given up when the session ended
		}
		d.got = append(d.got, &f)
	}
	for _, f := range d.got {
		switch req := f.GetRequestId(); {
		case req != 0 && asked[req] == 0:
			t.Fatalf("an answer that nobody asked for: %v", f)
		case req != 0:
			asked[req]--
		case !let:
			t.Fatalf("pushed to nobody: %v", f)
		}
	}
}
