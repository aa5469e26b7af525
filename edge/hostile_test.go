package edge

import (
	"bytes"
	"testing"

	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestHostileFramesInEachStage: what no honest device sends is refused by a code, or closes the connection with one,
// whatever the connection has done before.
func TestHostileFramesInEachStage(t *testing.T) {
	const (
		ok        = wirev1.Code_CODE_UNSPECIFIED
		protocol  = wirev1.Code_CODE_PROTOCOL
		tooLarge  = wirev1.Code_CODE_FRAME_TOO_LARGE
		strangers = wirev1.Code_CODE_NOT_AUTHENTICATED
	)
	th, m := id.DirectThread(somebody.User, friend), id.NewMessage()
	message := wirev1.ClientFrame_builder{RequestId: 99, SendMessage: wirev1.SendMessage_builder{
		ThreadId: th[:], MessageId: m[:], DirectPeer: friend[:], Content: text("x"),
	}.Build()}
	forged := wirev1.ClientFrame_builder{
		RequestId:    99,
		Authenticate: wirev1.Authenticate_builder{Signature: []byte(noProof)}.Build(),
	}
	one := func(b wirev1.ClientFrame_builder) []byte {
		out, err := frame.Append(nil, b.Build())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, x := range []struct {
		name string
		data []byte
		// What it comes to before authentication and after it: an answer to request 99, or the end. ok as answer: none.
		early, late, earlyEnd, lateEnd wirev1.Code
	}{
		{"4 GiB", []byte{0xc0, 0, 0, 1, 0, 0, 0, 0}, ok, ok, tooLarge, tooLarge},
		{"the longest of all", bytes.Repeat([]byte{0xff}, 8), ok, ok, tooLarge, tooLarge},
		{"one byte too long", frame.AppendLength(nil, wire.MaxFrame+1), ok, ok, tooLarge, tooLarge},
		{"lengths not in their shortest form", []byte{0x40, 0, 0x80, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0},
			ok, ok, ok, ok},
		{"no protobuf", []byte{2, 0xff, 0xff}, ok, ok, protocol, protocol},
		{"a frame that ends too soon", []byte{10, 1}, ok, ok, protocol, protocol},
		{"an unknown frame", []byte{4, 0xf2, 0x07, 1, 'x'}, ok, ok, ok, ok},
		{"an unknown request", []byte{6, 0x08, 99, 0xf2, 0x07, 1, 'x'},
			strangers, wirev1.Code_CODE_UNKNOWN_REQUEST, ok, ok},
		{"an empty frame", []byte{0}, ok, ok, ok, ok},
		{"a message without content",
			one(wirev1.ClientFrame_builder{RequestId: 99, SendMessage: &wirev1.SendMessage{}}),
			strangers, wirev1.Code_CODE_INVALID, ok, ok},
		{"history of no thread", one(wirev1.ClientFrame_builder{RequestId: 99, GetHistory: &wirev1.GetHistory{}}),
			strangers, wirev1.Code_CODE_INVALID, ok, ok},
		{"a forged proof", one(forged), wirev1.Code_CODE_AUTHENTICATION_FAILED, ok, ok, protocol},
		{"a proof once more", append(one(proofFrame), one(proofFrame)...), ok, ok, protocol, protocol},
		{"a message, and 4 GiB", append(one(message), 0xc0, 0, 0, 1, 0, 0, 0, 0), ok, ok, tooLarge, tooLarge},
	} {
		for _, stage := range stages {
			t.Run(x.name+"/"+stage.name, func(t *testing.T) {
				a := newArena(t)
				d := a.connect(hostile)
				stage.enter(a, d)
				before := len(a.world.log())
				answer, end := x.early, x.earlyEnd
				if !stage.early {
					answer, end = x.late, x.lateEnd
				}
				if stage.name == "before hello" && answer == wirev1.Code_CODE_AUTHENTICATION_FAILED {
					answer, end = ok, protocol // there is no nonce to sign yet
				}
				d.raw(x.data)
				if end == ok {
					if answer != ok {
						if f := d.answer(99); f.GetError().GetCode() != answer {
							t.Fatalf("got %v, want %v", f, answer)
						}
					}
					alive(d, stage.early)
				}
				d.conn.in.end()
				<-d.done
				if code, _ := d.conn.outcome(); code != end {
					t.Errorf("ended with %v, want %v", code, end)
				}
				if n := len(a.world.log()) - before; n > 0 && stage.early {
					t.Errorf("%d events before authentication", n)
				}
				a.undisturbed()
			})
		}
	}
}

// alive checks that a session still answers.
func alive(d *mouth, early bool) {
	d.t.Helper()
	if !early {
		d.want(
			"devices", wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}}, (*wirev1.ServerFrame).HasDevices,
		)
		return
	}
	d.want(
		"a refusal", syncFrame,
		func(f *wirev1.ServerFrame) bool { return f.GetError().GetCode() == wirev1.Code_CODE_NOT_AUTHENTICATED },
	)
}
