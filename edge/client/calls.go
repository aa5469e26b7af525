package client

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// once sends a request on the current connection and waits for its answer. authenticated says which state the
// connection must have.
func (c *Client) once(
	ctx context.Context, authenticated bool, build func(*conn) (*wirev1.ClientFrame, error),
) (*wirev1.ServerFrame, error) {
	// Counted before the wait: inside the loop over Events nobody takes what the synchronisation brings, and only its
	// end makes the device live.
	c.queue.call(1)
	defer c.queue.call(-1)
	var cn *conn
	err := c.await(ctx, func() bool {
		cn = c.conn
		return cn != nil && (c.live || !authenticated)
	})
	if err != nil {
		return nil, err
	}
	f, err := build(cn)
	if err != nil {
		return nil, err
	}
	return c.on(ctx, cn, f)
}

// on sends a request on a connection and waits for its answer.
func (c *Client) on(ctx context.Context, cn *conn, f *wirev1.ClientFrame) (*wirev1.ServerFrame, error) {
	c.queue.call(1)
	defer c.queue.call(-1)
	ch := make(chan *wirev1.ServerFrame, 1)
	rid := cn.request(ch)
	f.SetRequestId(rid)
	if f.WhichBody() == wirev1.ClientFrame_GetHistory_case {
		cn.paged.Do(func() { go cn.acceptPages() })
	}
	cn.write(f)
	select {
	case <-ctx.Done():
		cn.take(rid)
		return nil, ctx.Err()
	case a, ok := <-ch:
		if !ok {
			return nil, errLost
		}
		if a.WhichBody() == wirev1.ServerFrame_Error_case {
			return nil, errorOf(a.GetError())
		}
		return a, nil
	}
}

// acceptPages takes the unidirectional streams (wire 10.1) of a connection until it ends. It runs from the first page
// that is asked for; the page of a call that was given up may come at any time after.
func (cn *conn) acceptPages() {
	for {
		s, err := cn.quic.AcceptUniStream(cn.ctx)
		if err != nil {
			return // the calls that wait end with the connection
		}
		go cn.page(s)
	}
}

// page reads the frame of one stream and hands it to whoever asked for it. QUIC's limit on streams bounds how many
// there are.
func (cn *conn) page(s *quic.ReceiveStream) {
	r := bufio.NewReader(s)
	buf, err := frame.Read(r, nil, wire.MaxServerFrame)
	if err != nil {
		s.CancelRead(quic.StreamErrorCode(wirev1.Code_CODE_PROTOCOL))
		return
	}
	var f wirev1.ServerFrame
	if err := proto.Unmarshal(buf, &f); err == nil {
		if ch := cn.take(f.GetRequestId()); ch != nil {
			ch <- &f
		}
	}
	// Only a stream that was read to its end makes room for another.
	if _, err := r.ReadByte(); err == nil {
		s.CancelRead(quic.StreamErrorCode(wirev1.Code_CODE_PROTOCOL))
	}
}

// call repeats a request that may be repeated (wire 2.6) until it is answered, ctx ends, or the refusal is final.
func (c *Client) call(ctx context.Context, f *wirev1.ClientFrame) (*wirev1.ServerFrame, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	for attempt := 0; ; attempt++ {
		a, err := c.once(ctx, true, func(*conn) (*wirev1.ClientFrame, error) { return proto.CloneOf(f), nil })
		if err == nil {
			return a, nil
		}
		var we *wire.Error
		retriable := errors.As(err, &we) && we.Retriable()
		if !retriable && !errors.Is(err, errLost) {
			return nil, err
		}
		wait := c.backoff(attempt, we)
		if dl, ok := ctx.Deadline(); ok && time.Until(dl) < wait {
			return nil, err // there will be no further attempt: the reason is worth more than a timeout
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(wait):
		}
	}
}

// Phone is a phone number as the server knows it.
type Phone struct {
	Number string // + and digits (E.164)
	Shown  string // the same in groups, for people
	Region string // the country's two letters, or 001
}

// CheckPhone asks how the server reads a phone number, also before there is an identity. Show it to the user before
// RequestPin: an SMS to a number with a typing error reaches a stranger. CODE_INVALID_PHONE: it is none, and why.
func (c *Client) CheckPhone(ctx context.Context, phone string) (Phone, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	a, err := c.once(ctx, false, func(*conn) (*wirev1.ClientFrame, error) {
		return wirev1.ClientFrame_builder{
			CheckPhone: wirev1.CheckPhone_builder{Phone: phone, Region: c.cfg.Region}.Build(),
		}.Build(), nil
	})
	n := a.GetPhoneNumber()
	return Phone{Number: n.GetNumber(), Shown: n.GetShown(), Region: n.GetRegion()}, err
}

// RequestPin asks for an SMS. It returns how long the PIN is valid and after how long another may be asked for. The PIN
// is good for a Client over this Store alone.
func (c *Client) RequestPin(ctx context.Context, phone string) (expires, retry time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c.mu.Lock()
	pub, _ := c.id.Key.Public().(ed25519.PublicKey)
	c.mu.Unlock()
	a, err := c.once(ctx, false, func(*conn) (*wirev1.ClientFrame, error) {
		return wirev1.ClientFrame_builder{
			RequestPin: wirev1.RequestPin_builder{Phone: phone, Region: c.cfg.Region, PublicKey: pub}.Build(),
		}.Build(), nil
	})
	if err != nil {
		return 0, 0, err
	}
	p := a.GetPinRequested()
	ms := func(n uint32) time.Duration { return time.Duration(n) * time.Millisecond }
	return ms(p.GetExpiresInMs()), ms(p.GetRetryAfterMs()), nil
}

// Registration is what a device tells about itself and its user.
type Registration struct {
	Phone string
	Pin   string
	// Name is the user's display name; empty leaves it as it is.
	Name string
	// DeviceName is what the device calls itself.
	DeviceName string
}

// Register registers the phone number and makes this the user's primary device. The store then holds the identity, and
// the client synchronises. When it fails, it may be called again with the same PIN, also when the edge has taken the
// PIN already: it is then the same device that asks.
func (c *Client) Register(ctx context.Context, r Registration) (Identity, error) {
	if _, ok := c.Identity(); ok {
		return Identity{}, ErrRegistered
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	me := c.applicant(r)
	pub, _ := me.Key.Public().(ed25519.PublicKey)
	var cn *conn
	a, err := c.once(ctx, false, func(on *conn) (*wirev1.ClientFrame, error) {
		cn = on
		exporter, err := on.exporter()
		if err != nil {
			return nil, err
		}
		return wirev1.ClientFrame_builder{Register: wirev1.Register_builder{
			Phone: r.Phone, Region: c.cfg.Region, Pin: r.Pin, DeviceId: me.Device[:], PublicKey: pub,
			DeviceName: r.DeviceName, Name: r.Name,
			Signature: ed25519.Sign(me.Key, wire.Proof(on.nonce, exporter, id.UserID{}, me.Device)),
		}.Build()}.Build(), nil
	})
	if err != nil {
		return Identity{}, err
	}
	if me.User, err = id.From[id.UserID](a.GetAuthenticated().GetUserId()); err != nil {
		return Identity{}, fmt.Errorf("answer to registration: %w", err)
	}
	current, err := c.adopt(me)
	if err != nil {
		return Identity{}, err
	}
	c.queue.put(Connected{})
	if current == cn {
		c.mu.Lock()
		c.sync(cn)
		c.mu.Unlock()
	} else if current != nil {
		// The connection that answered has ended, and this one was opened before there was an identity to prove: the
		// next one proves it.
		_ = current.quic.CloseWithError(0, "")
	}
	return me, nil
}

// applicant returns the device that registers: a new one, or that of the last attempt with the same PIN. Its key is the
// one that the PIN was asked for with.
func (c *Client) applicant(r Registration) Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tried.Phone != r.Phone || c.tried.Pin != r.Pin || c.candidate.Key == nil {
		c.tried, c.candidate = r, Identity{Device: id.NewDevice(), Key: c.id.Key}
	}
	return c.candidate
}

// adopt makes this the identity of the device and returns the connection of that moment, nil between two.
func (c *Client) adopt(me Identity) (*conn, error) {
	if err := c.cfg.Store.SetIdentity(me); err != nil {
		return nil, fmt.Errorf("store identity: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.id = me
	return c.conn, nil
}

// NewDevice makes an identity for a further device of a user. The public key and the id go to a device that is already
// in, which approves them with LinkDevice; then a Client over a Store with this identity can connect.
func NewDevice(u id.UserID) (Identity, ed25519.PublicKey, error) {
	pub, priv, err := newKey()
	if err != nil {
		return Identity{}, nil, err
	}
	return Identity{User: u, Device: id.NewDevice(), Key: priv}, pub, nil
}

// LinkDevice approves a further device of the own user.
func (c *Client) LinkDevice(ctx context.Context, d id.DeviceID, key ed25519.PublicKey, name string) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		LinkDevice: wirev1.LinkDevice_builder{DeviceId: d[:], PublicKey: key, DeviceName: name}.Build(),
	}.Build())
	return err
}

// RevokeDevice revokes a device of the own user; it is cut off at once.
func (c *Client) RevokeDevice(ctx context.Context, d id.DeviceID) error {
	_, err := c.call(
		ctx, wirev1.ClientFrame_builder{RevokeDevice: wirev1.RevokeDevice_builder{DeviceId: d[:]}.Build()}.Build(),
	)
	return err
}

// Devices lists the devices of the own user that may connect.
func (c *Client) Devices(ctx context.Context) ([]*wirev1.Device, error) {
	a, err := c.call(ctx, wirev1.ClientFrame_builder{ListDevices: &wirev1.ListDevices{}}.Build())
	return a.GetDevices().GetDevices(), err
}

// SetName changes the own display name.
func (c *Client) SetName(ctx context.Context, name string) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{SetProfile: wirev1.SetProfile_builder{Name: name}.Build()}.Build())
	return err
}

// CreateGroup creates a group and returns its id; a repetition after a lost answer does not make a second one.
func (c *Client) CreateGroup(ctx context.Context, title string, members ...id.UserID) (id.ThreadID, error) {
	t := id.NewGroup()
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		CreateGroup: wirev1.CreateGroup_builder{ThreadId: t[:], Title: title, MemberIds: raw(members)}.Build(),
	}.Build())
	return t, err
}

func raw(users []id.UserID) [][]byte {
	out := make([][]byte, len(users))
	for i, u := range users {
		out[i] = u[:]
	}
	return out
}

// AddMembers adds members to a group.
func (c *Client) AddMembers(ctx context.Context, t id.ThreadID, members ...id.UserID) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		AddMembers: wirev1.AddMembers_builder{ThreadId: t[:], MemberIds: raw(members)}.Build(),
	}.Build())
	return err
}

// RemoveMember removes a member from a group.
func (c *Client) RemoveMember(ctx context.Context, t id.ThreadID, u id.UserID) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		RemoveMember: wirev1.RemoveMember_builder{ThreadId: t[:], MemberId: u[:]}.Build(),
	}.Build())
	return err
}

// Leave leaves a group.
func (c *Client) Leave(ctx context.Context, t id.ThreadID) error {
	_, err := c.call(
		ctx, wirev1.ClientFrame_builder{LeaveThread: wirev1.LeaveThread_builder{ThreadId: t[:]}.Build()}.Build(),
	)
	return err
}

// Rename changes a group's title.
func (c *Client) Rename(ctx context.Context, t id.ThreadID, title string) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		RenameThread: wirev1.RenameThread_builder{ThreadId: t[:], Title: title}.Build(),
	}.Build())
	return err
}

// SetRole changes a member's role.
func (c *Client) SetRole(ctx context.Context, t id.ThreadID, u id.UserID, r thread.Role) error {
	_, err := c.call(ctx, wirev1.ClientFrame_builder{
		SetRole: wirev1.SetRole_builder{ThreadId: t[:], MemberId: u[:], Role: eventv1.Role(r)}.Build(),
	}.Build())
	return err
}

// Threads returns a page of the thread list, the one with the newest message first, and the token of the next page
// (nil: none).
func (c *Client) Threads(ctx context.Context, limit int, token []byte) ([]*wirev1.ThreadSummary, []byte, error) {
	a, err := c.call(ctx, wirev1.ClientFrame_builder{
		ListThreads: wirev1.ListThreads_builder{Limit: uint32(max(0, limit)), PageToken: token}.Build(),
	}.Build())
	if err != nil {
		return nil, nil, err
	}
	next := a.GetThreads().GetPageToken()
	if len(next) == 0 {
		next = nil
	}
	return a.GetThreads().GetThreads(), next, nil
}

// Thread returns a thread with its members.
func (c *Client) Thread(ctx context.Context, t id.ThreadID) (*wirev1.Thread, error) {
	a, err := c.call(
		ctx, wirev1.ClientFrame_builder{GetThread: wirev1.GetThread_builder{ThreadId: t[:]}.Build()}.Build(),
	)
	return a.GetThread(), err
}

// History returns a page of the events before a position (0: from the end), newest first, and where the next page
// begins (0: this was the last).
func (c *Client) History(
	ctx context.Context, t id.ThreadID, before topic.Position, limit int,
) ([]Event, topic.Position, error) {
	a, err := c.call(ctx, wirev1.ClientFrame_builder{GetHistory: wirev1.GetHistory_builder{
		ThreadId: t[:], BeforePosition: int64(before), Limit: uint32(max(0, limit)),
	}.Build()}.Build())
	if err != nil {
		return nil, 0, err
	}
	page := a.GetHistoryPage()
	out := make([]Event, 0, len(page.GetEvents()))
	for _, raw := range page.GetEvents() {
		e, err := decodeEvent(raw)
		if err != nil {
			b, _ := proto.Marshal(raw) // it was decoded
			e = Unreadable{Frame: b, Err: fmt.Errorf("event at %d of a page: %w", raw.GetPosition(), err)}
		}
		out = append(out, e)
	}
	return out, topic.Position(page.GetNextBefore()), nil
}

// Lookup returns which of the phone numbers are users; User.Phone is the number as it was asked for.
func (c *Client) Lookup(ctx context.Context, phones ...string) ([]*wirev1.User, error) {
	a, err := c.call(
		ctx, wirev1.ClientFrame_builder{
			LookupUsers: wirev1.LookupUsers_builder{Phones: phones, Region: c.cfg.Region}.Build(),
		}.Build(),
	)
	return a.GetUsers().GetUsers(), err
}

// Users returns profiles by id; those that do not exist are left out.
func (c *Client) Users(ctx context.Context, ids ...id.UserID) ([]*wirev1.User, error) {
	a, err := c.call(
		ctx, wirev1.ClientFrame_builder{GetUsers: wirev1.GetUsers_builder{UserIds: raw(ids)}.Build()}.Build(),
	)
	return a.GetUsers().GetUsers(), err
}

// Views tells how far each view has got in the slot of a thread.
func (c *Client) Views(ctx context.Context, t id.ThreadID) (*wirev1.Views, error) {
	a, err := c.call(ctx, wirev1.ClientFrame_builder{GetViews: wirev1.GetViews_builder{ThreadId: t[:]}.Build()}.Build())
	return a.GetViews(), err
}
