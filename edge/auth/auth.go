package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/edge/phone"
	"heliograph/edge/wording"
	"heliograph/infra/views"
	"heliograph/ingest"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Identity is who a connection has proved to be.
type Identity struct {
	User   id.UserID
	Device id.DeviceID
	// Key is the public key whose holder it is.
	Key [ed25519.PublicKeySize]byte
}

// Appender appends events to the log: ingest.
type Appender interface {
	AppendWait(ctx context.Context, t topic.Topic, s topic.Subject, ev *eventv1.Event) (ingest.Receipt, error)
	// Ends returns the next position of a topic in each slot, as of a moment after the call.
	Ends(ctx context.Context, t topic.Topic) ([]topic.Position, error)
}

// Devices finds a device of a user: the replica, from live state or from Postgres.
type Devices interface {
	// DeviceKey returns a device. An unknown user or device is a *wire.Error with CODE_AUTHENTICATION_FAILED; that
	// nobody can tell now is one with CODE_UNAVAILABLE.
	DeviceKey(ctx context.Context, u id.UserID, d id.DeviceID) (user.Device, error)
	// Current returns once the views have all that the log had of users when it was called; else it is a *wire.Error
	// with CODE_UNAVAILABLE.
	Current(ctx context.Context, users ...id.UserID) error
}

// Auth registers phone numbers and proves devices. Its methods may be called concurrently; their errors are
// *wire.Error.
type Auth struct {
	cfg     Config
	pool    *pgxpool.Pool // for registration
	views   *views.Views
	limiter *Limiter
	sender  Sender
	log     Appender
	devices Devices
	logger  *slog.Logger
	metrics *metrics
	until   func(ctx context.Context, moment time.Time) // waitUntil, for tests
}

// New returns an Auth over a pool whose search_path reaches the views; it does nothing yet.
func New(
	cfg Config, pool *pgxpool.Pool, sender Sender, appender Appender, devices Devices, logger *slog.Logger,
	reg prometheus.Registerer,
) (*Auth, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}
	cfg = cfg.withDefaults()
	m := newMetrics(reg)
	m.budget.Set(float64(cfg.PerDeployment.Burst) * (24 * time.Hour).Seconds() / cfg.PerDeployment.Per.Seconds())
	return &Auth{
		cfg: cfg, pool: pool, views: views.New(pool), limiter: NewLimiter(pool), sender: sender,
		log: appender, devices: devices, logger: logger, metrics: m, until: waitUntil,
	}, nil
}

// Lookups returns the rate at which a user may look up phone numbers.
func (a *Auth) Lookups() Rate { return a.cfg.Lookups }

// Run sweeps what has expired until ctx ends; it returns nil then.
func (a *Auth) Run(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := a.limiter.Sweep(ctx); err != nil && ctx.Err() == nil {
				a.logger.Warn("sweeping registration tables failed", "err", err)
			}
		}
	}
}

// ParsePhone reads a phone number (wire 11.1, 11.2, 11.3). What is none is CODE_INVALID_PHONE. region may be empty.
func ParsePhone(s, region string) (phone.Number, error) {
	n, err := phone.Parse(s, region)
	if err != nil {
		return n, wire.Errorf(wirev1.Code_CODE_INVALID_PHONE, "%v", err)
	}
	return n, nil
}

// CheckPhone answers how a phone number is read. It asks nobody and tells nothing of who is registered.
func CheckPhone(r *wirev1.CheckPhone) (*wirev1.PhoneNumber, error) {
	n, err := ParsePhone(r.GetPhone(), r.GetRegion())
	if err != nil {
		return nil, err
	}
	return shown(n), nil
}

func shown(n phone.Number) *wirev1.PhoneNumber {
	return wirev1.PhoneNumber_builder{Number: n.E164, Shown: n.Shown, Region: n.Region}.Build()
}

// RequestPin makes a PIN and sends it by SMS, within the limits. The answer does not tell whether the number is
// registered.
func (a *Auth) RequestPin(
	ctx context.Context, r *wirev1.RequestPin, addr netip.Addr,
) (*wirev1.PinRequested, error) {
	number, err := ParsePhone(r.GetPhone(), r.GetRegion())
	if err != nil {
		return nil, err
	}
	key := r.GetPublicKey()
	if len(key) != 0 && len(key) != ed25519.PublicKeySize {
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "public_key has %d bytes, needs %d or none",
			len(key), ed25519.PublicKeySize)
	}
	at := a.place(number.E164, addr)
	row := pinRow{phone: at.phone, key: keyHash(key)}
	// Asked before anything is counted: who asks too soon uses up nobody's budget.
	if wait, err := a.tooSoon(ctx, row); err != nil {
		return nil, a.unavailable("read pin", err)
	} else if wait > 0 {
		a.metrics.refused.WithLabelValues("too_soon").Inc()
		return nil, limited(wait)
	}
	home, err := a.isHome(ctx, at)
	if err != nil {
		return nil, a.unavailable("read homes", err)
	}
	if err := a.takeAll(ctx, a.pinBudgets(number, at, home)); err != nil {
		return nil, err
	}
	digits, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return nil, fmt.Errorf("draw pin: %w", err)
	}
	pin := fmt.Sprintf("%06d", digits)
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails: crypto/rand ends the process instead
	stored, err := a.storePin(ctx, row, a.hashPin(pin, salt), salt)
	if err != nil {
		return nil, a.unavailable("store pin", err)
	}
	if !stored { // another request of this device was faster
		a.metrics.refused.WithLabelValues("too_soon").Inc()
		return nil, limited(a.cfg.PinInterval)
	}
	text := "Your Heliograph code is " + pin + ". Never pass it on."
	if err := a.sender.Send(ctx, number.E164, text, pin); err != nil {
		a.unsent(ctx, row, salt)
		return nil, a.unavailable("send sms", err)
	}
	a.metrics.pins.Inc()
	return wirev1.PinRequested_builder{
		ExpiresInMs: uint32(pinLifetime.Milliseconds()), RetryAfterMs: uint32(a.cfg.PinInterval.Milliseconds()),
		Number: shown(number),
	}.Build(), nil
}

// Register judges the PIN and the proof, appends the registration and returns once the log has it. nonce and exporter
// are those of the connection. It may be repeated with the same PIN, device and key as long as the PIN lives (wire
// 3.7): what came after it may have failed. The fold ignores the second event. Whether the registration counts is the
// fold's to say: a device id is used once, so the device is in only if its key turns out to be the one returned.
func (a *Auth) Register(
	ctx context.Context, r *wirev1.Register, nonce, exporter []byte, addr netip.Addr,
) (Identity, error) {
	number, err := ParsePhone(r.GetPhone(), r.GetRegion())
	if err != nil {
		return Identity{}, err
	}
	phone := number.E164
	pin, err := typedPin(r.GetPin())
	if err != nil {
		return Identity{}, err
	}
	name, err := wording.OptionalName(r.GetName())
	if err != nil {
		return Identity{}, badName("name", err)
	}
	deviceName, err := wording.OptionalName(r.GetDeviceName())
	if err != nil {
		return Identity{}, badName("device_name", err)
	}
	device, err := id.From[id.DeviceID](r.GetDeviceId())
	switch {
	case err != nil || !device.Valid():
		return Identity{}, wire.Errorf(wirev1.Code_CODE_INVALID, "device_id is not a UUIDv7")
	case len(r.GetPublicKey()) != ed25519.PublicKeySize:
		return Identity{}, wire.Errorf(wirev1.Code_CODE_INVALID, "public_key has %d bytes, needs %d",
			len(r.GetPublicKey()), ed25519.PublicKeySize)
	case !ed25519.Verify(r.GetPublicKey(), wire.Proof(nonce, exporter, id.UserID{}, device), r.GetSignature()):
		a.metrics.refused.WithLabelValues("proof").Inc()
		return Identity{}, failed()
	}
	at := a.place(phone, addr)
	hash := at.phone
	if err := a.tryPin(ctx, at, pin, device, r.GetPublicKey()); err != nil {
		return Identity{}, err
	}
	generation, err := a.generation(ctx, phone, hash)
	if err != nil {
		return Identity{}, a.unavailable("read generation", err)
	}
	u := id.User(a.cfg.UserKey, phone, generation)
	from, err := a.shownFrom(ctx, u)
	if err != nil {
		return Identity{}, a.unavailable("read where the threads end", err)
	}
	_, err = a.log.AppendWait(ctx, topic.Users, topic.Subject(u), eventv1.Event_builder{
		UserId: u[:], DeviceId: device[:],
		UserRegistered: eventv1.UserRegistered_builder{
			PhoneHash: hash[:], Generation: generation, DeviceId: device[:], PublicKey: r.GetPublicKey(),
			DeviceName: deviceName, ShownFrom: from,
		}.Build(),
	}.Build())
	if err != nil {
		return Identity{}, a.unavailable("append registration", err)
	}
	if name != "" {
		if _, err := a.log.AppendWait(ctx, topic.Users, topic.Subject(u), eventv1.Event_builder{
			UserId: u[:], DeviceId: device[:],
			ProfileChanged: eventv1.ProfileChanged_builder{Name: name}.Build(),
		}.Build()); err != nil {
			return Identity{}, a.unavailable("append profile", err)
		}
	}
	a.metrics.registered.Inc()
	return Identity{User: u, Device: device, Key: [ed25519.PublicKeySize]byte(r.GetPublicKey())}, nil
}

// generation returns the generation of a phone number: that of its last user, else 1. It asks views that have all that
// the log had of that generation's user, and of the next one's, when this was called: with views that are behind a
// number would get a generation that has ended, and its new owner what the former one wrote.
func (a *Auth) generation(ctx context.Context, phone string, hash [id.Size]byte) (uint32, error) {
	for last := uint32(0); ; {
		known, err := a.views.UsersByPhone(ctx, [][id.Size]byte{hash})
		if err != nil {
			return 0, err
		}
		g := uint32(1)
		if len(known) > 0 {
			g = known[0].Generation
		}
		if g == last {
			return g, nil
		}
		last = g
		next := id.User(a.cfg.UserKey, phone, g+1)
		if err := a.devices.Current(ctx, id.User(a.cfg.UserKey, phone, g), next); err != nil {
			return 0, err
		}
	}
}

// shownFrom returns where the threads end that a user has, of whom the views have all that the log had: what is written
// from now on is shown to the device that registers, and nothing that is there already. Positions say so whatever the
// clocks of edges do.
func (a *Auth) shownFrom(ctx context.Context, u id.UserID) (*eventv1.ShownFrom, error) {
	threads, err := a.views.ThreadsOf(ctx, u)
	if err != nil || len(threads) == 0 {
		return user.ShownFrom(nil), err
	}
	ends, err := a.log.Ends(ctx, topic.Threads)
	if err != nil {
		return nil, err
	}
	from := map[topic.Slot]topic.Position{}
	for _, t := range threads {
		s := topic.SlotOf(topic.Subject(t.Thread), len(ends))
		from[s] = ends[s]
	}
	return user.ShownFrom(from), nil
}

func badName(field string, err error) error {
	return wire.Errorf(wirev1.Code_CODE_INVALID, "%s is %v; at most %d characters", field, err, wording.NameChars)
}

// Authenticate proves a device (wire 4.1, 4.3). nonce and exporter are those of the connection.
func (a *Auth) Authenticate(
	ctx context.Context, r *wirev1.Authenticate, nonce, exporter []byte, _ netip.Addr,
) (Identity, error) {
	u, err := id.From[id.UserID](r.GetUserId())
	if err != nil {
		return Identity{}, wire.Errorf(wirev1.Code_CODE_INVALID, "user_id: %v", err)
	}
	d, err := id.From[id.DeviceID](r.GetDeviceId())
	if err != nil {
		return Identity{}, wire.Errorf(wirev1.Code_CODE_INVALID, "device_id: %v", err)
	}
	device, err := a.devices.DeviceKey(ctx, u, d)
	if err != nil {
		return Identity{}, err
	}
	// The proof comes before the word on revocation: only who holds the key learns of it.
	if !ed25519.Verify(device.Key[:], wire.Proof(nonce, exporter, u, d), r.GetSignature()) {
		a.metrics.refused.WithLabelValues("proof").Inc()
		return Identity{}, failed()
	}
	if device.Revoked {
		a.metrics.refused.WithLabelValues("revoked").Inc()
		return Identity{}, wire.Errorf(
			wirev1.Code_CODE_DEVICE_REVOKED, "this device was revoked or replaced by another registration",
		)
	}
	return Identity{User: u, Device: d, Key: device.Key}, nil
}

// failed is what a wrong proof, a wrong PIN and an unknown device are alike (wire 4.4).
func failed() error {
	return wire.Errorf(wirev1.Code_CODE_AUTHENTICATION_FAILED, "the proof or the PIN is wrong, has expired or was used")
}

func limited(after time.Duration) error {
	return &wire.Error{
		Code:       wirev1.Code_CODE_RATE_LIMITED,
		Message:    "too many attempts",
		RetryAfter: max(after, time.Second),
	}
}

// unavailable logs what failed and answers without its details.
func (a *Auth) unavailable(what string, err error) error {
	var we *wire.Error
	if errors.As(err, &we) {
		return err
	}
	if !errors.Is(err, context.Canceled) {
		a.logger.Warn("registration: "+what+" failed", "err", err)
	}
	a.metrics.refused.WithLabelValues("unavailable").Inc()
	return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "registration is not available now")
}
