package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"heliograph/edge/auth"
	"heliograph/edge/client"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func codeOf(err error) wirev1.Code {
	var we *wire.Error
	if errors.As(err, &we) {
		return we.Code
	}
	return wirev1.Code_CODE_UNSPECIFIED
}

func wantCode(t *testing.T, what string, err error, want wirev1.Code) {
	t.Helper()
	if codeOf(err) != want {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// applicant is a client that has not registered yet, from an address of its own.
func (e *env) applicant(t *testing.T) *client.Client {
	t.Helper()
	cfg := e.Client()
	release, err := e.Address(&cfg)
	must(t, err)
	cl, err := client.New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cl.Run(ctx) // its end is not what is tested
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := release(); err != nil {
			t.Error(err)
		}
	})
	return cl
}

// testPins: few tries, a growing delay, expiry, single use, limits by phone, and nothing of the number or the PIN in
// the log.
func testPins(t *testing.T, e *env) {
	ctx := e.context(t)
	request := func(cl *client.Client, phone string) (string, error) {
		since := time.Now()
		if _, _, err := cl.RequestPin(ctx, phone); err != nil {
			return "", err
		}
		return e.WaitPin(ctx, phone, since)
	}
	register := func(cl *client.Client, phone, pin string) error {
		_, err := cl.Register(ctx, client.Registration{Phone: phone, Pin: pin, Name: "pin"})
		return err
	}
	wrong := func(pin string) string {
		if pin[0] == '9' {
			return "0" + pin[1:]
		}
		return "9" + pin[1:]
	}

	t.Run("wrong", func(t *testing.T) {
		cl, phone := e.applicant(t), e.phone()
		pin, err := request(cl, phone)
		must(t, err)
		for range 5 {
			wantCode(t, "a wrong PIN", register(cl, phone, wrong(pin)), wirev1.Code_CODE_AUTHENTICATION_FAILED)
		}
		wantCode(
			t, "the right PIN after five wrong tries", register(cl, phone, pin), wirev1.Code_CODE_AUTHENTICATION_FAILED,
		)
		_, _, err = cl.RequestPin(ctx, phone)
		wantCode(t, "another PIN at once", err, wirev1.Code_CODE_RATE_LIMITED)
		pin, err = request(e.applicant(t), phone) // those tries were of one device
		must(t, err)
		wantCode(t, "another device's PIN", register(cl, phone, pin), wirev1.Code_CODE_AUTHENTICATION_FAILED)
	})
	t.Run("expired", func(t *testing.T) {
		cl, phone := e.applicant(t), e.phone()
		pin, err := request(cl, phone)
		must(t, err)
		// Five minutes are not waited for: the row is made as old.
		tag, err := e.pg.Exec(
			ctx, `UPDATE registration.device_pins SET expires = now() - interval '1 second' WHERE expires > now()`,
		)
		must(t, err)
		if tag.RowsAffected() == 0 {
			t.Fatal("there is no PIN to expire")
		}
		wantCode(t, "an expired PIN", register(cl, phone, pin), wirev1.Code_CODE_AUTHENTICATION_FAILED)
	})
	t.Run("once", func(t *testing.T) {
		first, second, phone := e.applicant(t), e.applicant(t), e.phone()
		pin, err := request(first, phone)
		must(t, err)
		must(t, register(first, phone, pin))
		wantCode(t, "a PIN that was used", register(second, phone, pin), wirev1.Code_CODE_AUTHENTICATION_FAILED)
	})
	t.Run("soon", func(t *testing.T) {
		phone := e.phone()
		cl := e.applicant(t)
		_, err := request(cl, phone)
		must(t, err)
		_, _, err = cl.RequestPin(ctx, phone)
		wantCode(t, "a second PIN of one device at once", err, wirev1.Code_CODE_RATE_LIMITED)
		pin, err := request(e.applicant(t), phone) // a stranger who asks is in nobody's way
		must(t, err)
		if len(pin) != 6 {
			t.Errorf("another device's PIN for the number is %q", pin)
		}
	})
	t.Run("address", func(t *testing.T) {
		cl := e.applicant(t)
		for n := range 20 {
			if _, _, err := cl.RequestPin(ctx, e.phone()); err != nil {
				t.Fatalf("PIN %d from one address: %v", n+1, err)
			}
		}
		_, _, err := cl.RequestPin(ctx, e.phone())
		wantCode(t, "the 21st PIN from one address", err, wirev1.Code_CODE_RATE_LIMITED)
	})
	t.Run("number", func(t *testing.T) {
		_, _, err := e.applicant(t).RequestPin(ctx, "12")
		wantCode(t, "a number that is none", err, wirev1.Code_CODE_INVALID_PHONE)
	})
	t.Run("secret", func(t *testing.T) {
		file, err := os.ReadFile(e.SMS())
		must(t, err)
		for line := range strings.Lines(string(file)) {
			var s auth.SMS
			must(t, json.Unmarshal([]byte(line), &s))
			for _, p := range e.Processes() {
				text, err := os.ReadFile(p.Log)
				must(t, err)
				if strings.Contains(string(text), s.Phone) || strings.Contains(string(text), s.Text) {
					t.Errorf("the log of %s holds a phone number or an SMS", p)
				}
			}
		}
	})
}

// testDevices: several devices of a user see the same; registering again revokes them all, on every edge, and the new
// one is shown nothing older.
func testDevices(t *testing.T, e *env) {
	ctx := e.context(t)
	phone := e.phone()
	ann, bob := e.userAt(t, phone, "ann", 0), e.user(t, "bob", 0)
	to := ann.to(bob)
	first := ann.say(to, "from the phone")
	bob.has(first)

	tablet := e.linked(t, ann, "ann's tablet", 1)
	tablet.waitSynced()
	second := tablet.say(tablet.to(bob), "from the tablet")
	bob.has(first, second)
	ann.has(second)
	tablet.has(first, second)
	answer := bob.say(bob.to(ann), "to both")
	ann.has(answer)
	tablet.has(answer)
	e.agree(t, ann, tablet, bob)

	// What is read on one device is read on the other.
	p, _ := tablet.place(answer)
	tablet.u.MarkRead(p)
	until(
		t, "the phone sees what was read on the tablet",
		func() bool { return ann.mark(to.Thread, ann.me.User).ReadPosition >= p.Position },
	)

	settled(t, "both devices are listed", func() string {
		list, err := ann.u.Devices(ctx)
		if err != nil || len(list) != 2 {
			return fmt.Sprint(list, err)
		}
		return ""
	})

	again := e.newDevice(t, "ann anew", 1)
	me, err := e.Register(ctx, e.registering(again), phone, again.name)
	must(t, err)
	acknowledged := time.Now()
	if best := min(ann.gone(acknowledged, prompt), tablet.gone(acknowledged, prompt)); best > promised {
		t.Errorf("the devices were cut %v after the number was registered again, or later; want %v", best, promised)
	}
	again.me = me
	again.come()
	again.waitSynced()
	if again.me.User != ann.me.User {
		t.Errorf("the number's user was %s and is %s", ann.me.User, again.me.User)
	}
	for _, d := range []*device{ann, tablet} {
		if got := codeOf(d.u.Err()); got != wirev1.Code_CODE_DEVICE_REVOKED {
			t.Errorf("%s ended with %v, want that it is revoked", d.name, d.u.Err())
		}
	}
	late := bob.say(bob.to(ann), "to the new one")
	again.has(late)
	for _, d := range []*device{ann, tablet} {
		if _, ok := d.place(late); ok {
			t.Errorf("%s got a message after it was revoked", d.name)
		}
	}
	tr := e.agree(t, again, bob)
	if got := len(tr.expected(again, to.Thread)); got != 1 {
		t.Errorf("the new device may see %d events, want 1", got)
	}
	page, _, err := again.u.History(ctx, to.Thread, 0, 50)
	must(t, err)
	for _, ev := range page {
		if m, ok := ev.(client.Message); ok && m.ID != late {
			t.Errorf("history shows the new device a message that is older than it: %q", m.Text)
		}
	}
	e.viewsAgree(t)
}

// testStrangers: P4, judged from outside the thread.
func testStrangers(t *testing.T, e *env) {
	ctx := e.context(t)
	ann, bob, eve := e.user(t, "ann", 0), e.user(t, "bob", 1), e.user(t, "eve", 0)
	to := ann.to(bob)
	ann.acked(ann.say(to, "between us"))
	group, err := ann.u.CreateGroup(ctx, "closed", bob.me.User)
	must(t, err)
	bob.has(ann.say(client.To{Thread: group}, "in here"))
	e.caughtUp(t)

	for _, th := range []id.ThreadID{to.Thread, group} {
		m := eve.say(client.To{Thread: th, Peer: bob.me.User}, "let me in")
		until(t, "eve is refused", func() bool { _, failed, _ := eve.outcome(m); return failed != nil })
		_, failed, _ := eve.outcome(m)
		if c := codeOf(failed); c != wirev1.Code_CODE_NOT_A_MEMBER && c != wirev1.Code_CODE_INVALID {
			t.Errorf("eve's message: %v", failed)
		}
		_, err := eve.u.Thread(ctx, th)
		wantCode(t, "eve asks for the thread", err, wirev1.Code_CODE_NOT_A_MEMBER)
		_, _, err = eve.u.History(ctx, th, 0, 10)
		wantCode(t, "eve asks for the history", err, wirev1.Code_CODE_NOT_A_MEMBER)
		wantCode(t, "eve adds herself", eve.u.AddMembers(ctx, th, eve.me.User), wirev1.Code_CODE_NOT_A_MEMBER)
		wantCode(t, "eve removes bob", eve.u.RemoveMember(ctx, th, bob.me.User), wirev1.Code_CODE_NOT_A_MEMBER)
		wantCode(t, "eve renames it", eve.u.Rename(ctx, th, "mine"), wirev1.Code_CODE_NOT_A_MEMBER)
	}
	wantCode(
		t, "bob, who is no admin, removes ann", bob.u.RemoveMember(ctx, group, ann.me.User),
		wirev1.Code_CODE_NOT_ALLOWED,
	)
	e.agree(t, ann, bob, eve)
	e.viewsAgree(t)
}
