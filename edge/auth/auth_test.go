package auth

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/postgres"
	"heliograph/ingest"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// world is an Auth over a real Postgres, with a log in memory and telephones that keep their SMS.
type world struct {
	*Auth
	pool *pgxpool.Pool

	mu      sync.Mutex // guards the rest
	pins    map[string]string
	log     []*eventv1.Event
	down    error // what the log answers
	mute    error // what the SMS gateway answers
	devices map[id.DeviceID]user.Device
	behind  func(*pgxpool.Pool) error // what happens while the views are waited for
}

func (w *world) Send(_ context.Context, number, _, pin string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pins[number] = pin
	return w.mute
}

func (w *world) AppendWait(
	_ context.Context, t topic.Topic, _ topic.Subject, ev *eventv1.Event,
) (ingest.Receipt, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.down != nil {
		return ingest.Receipt{}, w.down
	}
	w.log = append(w.log, ev)
	return ingest.Receipt{
		Topic:    t,
		Position: topic.Position(len(w.log)),
		LogTime:  time.UnixMilli(1_700_000_000_000),
	}, nil
}

func (w *world) DeviceKey(_ context.Context, _ id.UserID, d id.DeviceID) (user.Device, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dev, ok := w.devices[d]
	if !ok {
		return user.Device{}, failed()
	}
	return dev, nil
}

// Ends is of a log of one event in each of 4 slots.
func (w *world) Ends(context.Context, topic.Topic) ([]topic.Position, error) {
	return []topic.Position{7, 7, 7, 7}, nil
}

// Current is as a replica's whose views are at the log's end, or not.
func (w *world) Current(context.Context, ...id.UserID) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.behind != nil {
		return w.behind(w.pool)
	}
	return nil
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	url := enginetest.NewDatabase(t)
	for dir, schema := range map[string]string{
		"views":        pgschema.ViewsSchema,
		"registration": pgschema.RegistrationSchema,
	} {
		files, err := fs.Sub(pgschema.FS, dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := postgres.Migrate(t.Context(), url, files, schema); err != nil {
			t.Fatal(err)
		}
	}
	pool, err := postgres.Open(
		t.Context(), postgres.Config{URL: url, Params: map[string]string{"search_path": "views,registration"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	w := &world{pool: pool, pins: map[string]string{}, devices: map[id.DeviceID]user.Device{}}
	if cfg.UserKey == nil {
		cfg.UserKey = testKey
	}
	if cfg.refusedAfter == 0 {
		cfg.refusedAfter = time.Nanosecond
	}
	w.Auth, err = New(cfg, pool, w, w, w, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

var (
	here     = netip.MustParseAddr("192.0.2.1")
	number   = "+4915112345678"
	nonce    = make([]byte, wire.NonceSize)
	exporter = []byte("exporter-exporter-exporter-12345")
)

// registration makes a valid request with a fresh key.
func registration(t *testing.T, number, pin string) *wirev1.Register {
	t.Helper()
	return newApplicant(t).registers(number, pin)
}

// applicant is a device before it is registered.
type applicant struct {
	pub  ed25519.PublicKey
	priv ed25519.PrivateKey
}

func newApplicant(t *testing.T) applicant {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return applicant{pub, priv}
}

func (a applicant) asks(number string) *wirev1.RequestPin {
	return wirev1.RequestPin_builder{Phone: number, PublicKey: a.pub}.Build()
}

func (a applicant) registers(number, pin string) *wirev1.Register {
	d := id.NewDevice()
	return wirev1.Register_builder{
		Phone: number, Pin: pin, DeviceId: d[:], PublicKey: a.pub, DeviceName: "test", Name: "Ann",
		Signature: ed25519.Sign(a.priv, wire.Proof(nonce, exporter, id.UserID{}, d)),
	}.Build()
}

func wantCode(t *testing.T, err error, want wirev1.Code) {
	t.Helper()
	if !errors.Is(err, &wire.Error{Code: want}) {
		t.Fatalf("got error %v, want code %v", err, want)
	}
}

func asking(number string) *wirev1.RequestPin {
	return wirev1.RequestPin_builder{Phone: number}.Build()
}

// wrong is a PIN that differs from pin.
func wrong(pin string) string {
	if pin == "000000" {
		return "000001"
	}
	return "000000"
}

func TestRegister(t *testing.T) {
	w := newWorld(t, Config{})
	answer, err := w.RequestPin(t.Context(), asking("+49 151 1234 5678"), here)
	if err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(answer.GetExpiresInMs()) * time.Millisecond; got != 5*time.Minute {
		t.Errorf("the PIN expires in %v, want 5 minutes", got)
	}
	pin := w.pins[number]
	if len(pin) != 6 {
		t.Fatalf("PIN %q does not have six digits", pin)
	}
	r := registration(t, number, pin)
	me, err := w.Register(t.Context(), r, nonce, exporter, here)
	if err != nil {
		t.Fatal(err)
	}
	if want := id.User(testKey, number, 1); me.User != want {
		t.Errorf("user %v, want %v", me.User, want)
	}
	if string(me.Key[:]) != string(r.GetPublicKey()) {
		t.Errorf("key %x is not the one that was registered", me.Key)
	}
	if len(w.log) != 2 || !w.log[0].HasUserRegistered() || !w.log[1].HasProfileChanged() {
		t.Fatalf("the log has %v, want a registration and a profile", w.log)
	}
	var stored []byte
	err = w.pool.QueryRow(t.Context(), `SELECT used_by FROM device_pins`).Scan(&stored)
	if err != nil || len(stored) == 0 {
		t.Errorf("the PIN is not marked as used: %x %v", stored, err)
	}
	for range 7 { // more than a PIN has tries
		_, err = w.Register(t.Context(), registration(t, number, pin), nonce, exporter, here)
		wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
	}
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Errorf("no new PIN after one was used: %v", err)
	}
	_, err = w.Register(t.Context(), r, nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED) // the new one took its place
}

// TestUnsentPin: whose SMS failed may ask again at once, but not without end: the gateway may have sent each.
func TestUnsentPin(t *testing.T) {
	w := newWorld(t, Config{PerPhone: Rate{Burst: 3, Per: time.Hour}})
	w.mute = errors.New("the gateway did not answer")
	for range 2 {
		_, err := w.RequestPin(t.Context(), asking(number), here)
		wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	}
	late := w.pins[number]
	w.mute = nil
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatalf("right after the SMS failed: %v", err)
	}
	_, err := w.RequestPin(t.Context(), asking(number), here)
	wantCode(t, err, wirev1.Code_CODE_RATE_LIMITED)
	if w.pins[number] == late {
		t.Error("the PIN is the one before")
	}
	w.mute = errors.New("the gateway did not answer")
	other := "+4915112345679"
	_, err = w.RequestPin(t.Context(), asking(other), here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	if _, err := w.Register(t.Context(), registration(t, other, w.pins[other]), nonce, exporter, here); err != nil {
		t.Errorf("with a PIN whose SMS came all the same: %v", err)
	}
}

// TestRegisterAgain: a device whose registration was not finished may repeat it with the same PIN, whatever it failed
// of, until the PIN expires.
func TestRegisterAgain(t *testing.T) {
	w := newWorld(t, Config{})
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatal(err)
	}
	r := registration(t, number, w.pins[number])
	w.down = ingest.ErrUnavailable
	_, err := w.Register(t.Context(), r, nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	w.down = nil
	var last Identity
	for k := range 7 { // more often than a PIN has tries
		me, err := w.Register(t.Context(), r, nonce, exporter, here)
		if err != nil {
			t.Fatal(err)
		}
		if k > 0 && me != last {
			t.Errorf("got %v, before %v", me, last)
		}
		last = me
	}
	r.SetPin(wrong(r.GetPin()))
	_, err = w.Register(t.Context(), r, nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
	if _, err := w.pool.Exec(t.Context(), `UPDATE device_pins SET expires = now()`); err != nil {
		t.Fatal(err)
	}
	r.SetPin(w.pins[number])
	_, err = w.Register(t.Context(), r, nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
}

func TestPinDies(t *testing.T) {
	w := newWorld(t, Config{})
	me := newApplicant(t)
	for name, ask := range map[string]*wirev1.RequestPin{"of a key": me.asks(number), "of anybody": asking(number)} {
		if _, err := w.RequestPin(t.Context(), ask, here); err != nil {
			t.Fatal(err)
		}
		pin := w.pins[number]
		for range 5 {
			_, err := w.Register(t.Context(), me.registers(number, wrong(pin)), nonce, exporter, here)
			wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
		}
		if _, err := w.Register(t.Context(), me.registers(number, pin), nonce, exporter, here); err == nil {
			t.Errorf("a PIN %s is good after five wrong tries", name)
		}
		if _, err := w.pool.Exec(t.Context(), `DELETE FROM device_pins`); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.log) != 0 {
		t.Errorf("the log has %d events", len(w.log))
	}
}

func TestPinExpires(t *testing.T) {
	w := newWorld(t, Config{})
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), `UPDATE device_pins SET expires = now()`); err != nil {
		t.Fatal(err)
	}
	_, err := w.Register(t.Context(), registration(t, number, w.pins[number]), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
}

// TestPinIsUsedOnce lets many devices use the right PIN at the same moment.
func TestPinIsUsedOnce(t *testing.T) {
	w := newWorld(t, Config{pinTries: 20})
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	won := make(chan Identity, 16)
	for range cap(won) {
		r := registration(t, number, w.pins[number])
		wg.Go(func() {
			if me, err := w.Register(t.Context(), r, nonce, exporter, here); err == nil {
				won <- me
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d devices registered with one PIN", len(won))
	}
}

func TestRegisterRefusals(t *testing.T) {
	w := newWorld(t, Config{})
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	long := string(make([]byte, 65))
	for name, c := range map[string]struct {
		change func(*wirev1.Register)
		want   wirev1.Code
	}{
		"not a phone":       {func(r *wirev1.Register) { r.SetPhone("12") }, wirev1.Code_CODE_INVALID_PHONE},
		"short device id":   {func(r *wirev1.Register) { r.SetDeviceId([]byte{1}) }, wirev1.Code_CODE_INVALID},
		"short key":         {func(r *wirev1.Register) { r.SetPublicKey([]byte{1}) }, wirev1.Code_CODE_INVALID},
		"reordering name":   {func(r *wirev1.Register) { r.SetName("\u202eabc") }, wirev1.Code_CODE_INVALID},
		"reordering device": {func(r *wirev1.Register) { r.SetDeviceName("a\u2066b") }, wirev1.Code_CODE_INVALID},
		"long name":         {func(r *wirev1.Register) { r.SetName(long) }, wirev1.Code_CODE_INVALID},
		"another's key":     {func(r *wirev1.Register) { r.SetPublicKey(pub) }, wirev1.Code_CODE_AUTHENTICATION_FAILED},
		"no signature":      {func(r *wirev1.Register) { r.SetSignature(nil) }, wirev1.Code_CODE_AUTHENTICATION_FAILED},
		"nobody asked once": {func(*wirev1.Register) {}, wirev1.Code_CODE_AUTHENTICATION_FAILED},
	} {
		t.Run(name, func(t *testing.T) {
			r := registration(t, "+4915100000000", "123456")
			c.change(r)
			_, err := w.Register(t.Context(), r, nonce, exporter, here)
			wantCode(t, err, c.want)
		})
	}
	// A proof made on another connection has another exporter.
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatal(err)
	}
	_, err = w.Register(
		t.Context(), registration(t, number, w.pins[number]), nonce, []byte("another connection's exporter 32"), here,
	)
	wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
}

func TestLimits(t *testing.T) {
	other, hourly := "+4915112340000", Rate{1, time.Hour}
	for name, c := range map[string]struct {
		cfg     Config
		second  string
		address string
		limited bool
	}{
		"one number":     {Config{PerPhone: hourly, PinInterval: time.Nanosecond}, number, "192.0.2.9", true},
		"one address":    {Config{PerAddress: hourly}, "+33612345678", "192.0.2.1", true},
		"one range":      {Config{PerRange: hourly}, other, "192.0.2.9", true},
		"too soon":       {Config{}, number, "192.0.2.9", true},
		"one country":    {Config{PerCountry: hourly}, "+4930901820", "198.51.100.9", true},
		"one deployment": {Config{PerDeployment: hourly}, "+33612345678", "198.51.100.9", true},
		"one number, networks": {
			Config{PerNumber: hourly, PinInterval: time.Nanosecond}, number, "198.51.100.9", true,
		},
		"one number, another network": {
			Config{PerPhone: hourly, PinInterval: time.Nanosecond}, number, "198.51.100.9", false,
		},
		"somebody else's": {
			Config{
				PerPhone: hourly, PerNumber: hourly, PerAddress: hourly, PerRange: hourly, PerCountry: hourly,
			}, "+33612345678", "192.0.2.9", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.cfg)
			if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
				t.Fatal(err)
			}
			_, err := w.RequestPin(t.Context(), asking(c.second), netip.MustParseAddr(c.address))
			if c.limited {
				wantCode(t, err, wirev1.Code_CODE_RATE_LIMITED)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFailClosed takes the database away: nobody gets a PIN, nobody registers.
func TestFailClosed(t *testing.T) {
	w := newWorld(t, Config{})
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatal(err)
	}
	pin := w.pins[number]
	w.pool.Close()
	_, err := w.RequestPin(t.Context(), asking("+33612345678"), here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	_, err = w.Register(t.Context(), registration(t, number, pin), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	if len(w.pins) != 1 || len(w.log) != 0 {
		t.Errorf("%d SMS and %d events without a database", len(w.pins), len(w.log))
	}
}

// TestFailClosedWithoutLimits takes the limits alone away: that nothing is known of them is no leave.
func TestFailClosedWithoutLimits(t *testing.T) {
	w := newWorld(t, Config{})
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), "ALTER TABLE registration.limits RENAME TO gone"); err != nil {
		t.Fatal(err)
	}
	_, err := w.RequestPin(t.Context(), asking("+33612345678"), here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	_, err = w.Register(t.Context(), registration(t, number, w.pins[number]), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	wrong := "000000"
	if w.pins[number] == wrong {
		wrong = "000001"
	}
	// a guess that nobody counts
	_, err = w.Register(t.Context(), registration(t, number, wrong), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	if len(w.pins) != 1 || len(w.log) != 0 {
		t.Errorf("%d SMS and %d events without limits", len(w.pins), len(w.log))
	}
}

func TestLogDown(t *testing.T) {
	w := newWorld(t, Config{})
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatal(err)
	}
	w.down = ingest.ErrUnavailable
	_, err := w.Register(t.Context(), registration(t, number, w.pins[number]), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
}

func TestAuthenticate(t *testing.T) {
	w := newWorld(t, Config{})
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	u, d := id.User(testKey, number, 1), id.NewDevice()
	request := func(exporter []byte) *wirev1.Authenticate {
		return wirev1.Authenticate_builder{
			UserId:    u[:],
			DeviceId:  d[:],
			Signature: ed25519.Sign(priv, wire.Proof(nonce, exporter, u, d)),
		}.Build()
	}
	_, err = w.Authenticate(t.Context(), request(exporter), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED) // unknown
	dev := user.Device{Key: [32]byte(pub)}
	w.devices[d] = dev
	me, err := w.Authenticate(t.Context(), request(exporter), nonce, exporter, here)
	if err != nil || me != (Identity{User: u, Device: d, Key: [32]byte(pub)}) {
		t.Fatalf("got %v, %v", me, err)
	}
	_, err = w.Authenticate(t.Context(), request([]byte("another connection's exporter 32")), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
	dev.Revoked = true
	w.devices[d] = dev
	_, err = w.Authenticate(t.Context(), request(exporter), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_DEVICE_REVOKED)
	// Who does not hold the key does not learn that the device was revoked.
	_, err = w.Authenticate(t.Context(), request([]byte("another connection's exporter 32")), nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
}

// TestTypedPin: a PIN is taken as people type and paste it, and what cannot be one uses up no try.
func TestTypedPin(t *testing.T) {
	w := newWorld(t, Config{})
	if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
		t.Fatal(err)
	}
	pin := w.pins[number]
	for range 2 * w.cfg.pinTries {
		for _, typed := range []string{
			"", pin[:5], pin + "0", "Your code is " + pin, "O" + pin[1:], "+" + pin, "12.456",
		} {
			_, err := w.Register(t.Context(), registration(t, number, typed), nonce, exporter, here)
			wantCode(t, err, wirev1.Code_CODE_INVALID)
		}
	}
	foreign := strings.Map(func(r rune) rune { return r - '0' + '٠' }, pin)
	r := registration(t, number, pin)
	for _, typed := range []string{
		pin[:3] + " " + pin[3:], pin[:3] + "-" + pin[3:] + "\r\n", "\u200e" + pin + "\u00a0", foreign,
	} {
		r.SetPin(typed)
		if _, err := w.Register(t.Context(), r, nonce, exporter, here); err != nil {
			t.Errorf("%q for %q: %v", typed, pin, err)
		}
	}
}

// TestPhonesAsWritten: a number is asked for and registered in two writings, and the answer shows where the SMS went.
func TestPhonesAsWritten(t *testing.T) {
	w := newWorld(t, Config{})
	national := wirev1.RequestPin_builder{Phone: "0151 12345678", Region: "DE"}.Build()
	answer, err := w.RequestPin(t.Context(), national, here)
	if err != nil {
		t.Fatal(err)
	}
	if n := answer.GetNumber(); n.GetNumber() != number || n.GetShown() != "+49 1511 2345678" || n.GetRegion() != "DE" {
		t.Errorf("the SMS went to %v", n)
	}
	me, err := w.Register(
		t.Context(), registration(t, "0049 1511 2345678", w.pins[number]), nonce, exporter, here,
	)
	if err != nil || me.User != id.User(testKey, number, 1) {
		t.Errorf("registered %v, %v", me.User, err)
	}
	for _, bad := range []string{"0151 12345678", "+49 151 12345O78", "+49 110", "+1 800 356 9377"} {
		_, err := w.RequestPin(t.Context(), asking(bad), here)
		wantCode(t, err, wirev1.Code_CODE_INVALID_PHONE)
		_, err = CheckPhone(wirev1.CheckPhone_builder{Phone: bad}.Build())
		wantCode(t, err, wirev1.Code_CODE_INVALID_PHONE)
	}
	if len(w.pins) != 1 {
		t.Errorf("an SMS was sent to %d numbers", len(w.pins))
	}
}

// With views that are behind, nobody registers; and the generation is what they say once they are not.
func TestRegisterWaitsForTheViews(t *testing.T) {
	w := newWorld(t, Config{})
	pin := func() string {
		if _, err := w.RequestPin(t.Context(), asking(number), here); err != nil {
			t.Fatal(err)
		}
		return w.pins[number]
	}
	r := registration(t, number, pin())
	w.behind = func(*pgxpool.Pool) error { return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "behind") }
	_, err := w.Register(t.Context(), r, nonce, exporter, here)
	wantCode(t, err, wirev1.Code_CODE_UNAVAILABLE)
	if len(w.log) != 0 {
		t.Fatalf("%d events were written meanwhile", len(w.log))
	}
	hash := id.PhoneHash(testKey, number)
	listed := id.NewGroup()
	w.behind = func(pool *pgxpool.Pool) error {
		u := id.User(testKey, number, 3)
		_, err := pool.Exec(t.Context(), `INSERT INTO users (user_id, phone_hash, generation, name, registered)
			VALUES ($1, $2, 3, '', now()) ON CONFLICT DO NOTHING`, u, hash)
		if err == nil {
			_, err = pool.Exec(t.Context(), `INSERT INTO user_threads (user_id, thread_id, joined_position, has_left)
				VALUES ($1, $2, 0, false) ON CONFLICT DO NOTHING`, u, listed)
		}
		return err
	}
	who, err := w.Register(t.Context(), r, nonce, exporter, here)
	if err != nil {
		t.Fatal(err)
	}
	got, want := w.log[0].GetUserRegistered().GetGeneration(), uint32(3)
	if got != want || who.User != id.User(testKey, number, want) {
		t.Errorf("got generation %d, want %d", got, want)
	}
	from := user.ShownFrom(map[topic.Slot]topic.Position{topic.SlotOf(topic.Subject(listed), 4): 7})
	if got := w.log[0].GetUserRegistered().GetShownFrom(); !proto.Equal(got, from) {
		t.Errorf("the device is shown what comes after %v, want %v", got, from)
	}
}
