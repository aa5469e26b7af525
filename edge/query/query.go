package query

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/singleflight"

	"heliograph/edge/auth"
	"heliograph/edge/wording"
	"heliograph/infra/history"
	"heliograph/infra/views"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// Limits of one request.
const (
	maxThreads = 200
	maxHistory = 500
	maxUsers   = 200
	// maxBlocked is how many users one may have blocked: all are in one answer (wire 16.9).
	maxBlocked = 5000
	// maxPage bounds the bytes of events in a page of history, so that it fits a frame.
	maxPage = wire.MaxServerFrame - 64<<10
	// perEvent is what an event takes in a page beside its bytes.
	perEvent = 64
	// behindRetry is after how long to ask views again that have not got as far as what a request asks about.
	behindRetry = 200 * time.Millisecond
)

// Config of New.
type Config struct {
	// UserKey is the secret from which user ids are derived; the same as that of auth.
	UserKey []byte
	// Partitions is P.
	Partitions int
	// Lookups bounds the phone numbers that one user may look up.
	Lookups auth.Rate
}

// Queries answers requests. Its methods may be called concurrently; their errors are *wire.Error.
type Queries struct {
	cfg     Config
	views   *views.Views
	history *history.History
	limiter *auth.Limiter
	log     *slog.Logger
	asked   singleflight.Group // by slot
}

// New returns Queries over the thread views and the history.
func New(cfg Config, v *views.Views, h *history.History, limiter *auth.Limiter, log *slog.Logger) *Queries {
	return &Queries{cfg: cfg, views: v, history: h, limiter: limiter, log: log}
}

func (q *Queries) unavailable(what string, err error) error {
	if !errors.Is(err, context.Canceled) {
		q.log.Warn("query failed", "query", what, "err", err)
	}
	return wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "%s: the view is not available now", what)
}

func notMember() error {
	return wire.Errorf(wirev1.Code_CODE_NOT_A_MEMBER, "no such thread, or not a member of it")
}

// summaryOf is what a user is shown of a thread in his list. What a former member sees ends where his membership did:
// once the thread has gone on, it has no title, time or preview for him (the views keep only the latest), and how many
// are in it he is never told. What a new one sees begins with his: the preview is of a message of his time.
func summaryOf(u id.UserID, l *views.Listed, c views.Counted) *wirev1.ThreadSummary {
	t := &l.Thread
	if n := len(l.Member.Spans); !l.Active && n > 0 {
		l.Members = 0
		if last := l.Member.Spans[n-1]; t.LastPosition > last.To {
			t.LastPosition, t.LastOrdinal, t.Title, t.Preview = last.To, l.Member.EndOrdinal, "", ""
			t.LastSender = id.UserID{}
		}
	}
	if t.LastOrdinal <= l.Member.BaseOrdinal { // the last message is from before his time
		t.Preview, t.LastSender = "", id.UserID{}
	}
	b := wirev1.ThreadSummary_builder{
		ThreadId: t.ID[:], Kind: wirev1.ThreadKind(t.Kind), Title: t.Title,
		LastPosition: int64(t.LastPosition), LastOrdinal: t.LastOrdinal, LastSender: t.LastSender[:],
		Preview: wording.Preview(t.Preview), Own: watermarkOf(u, l.Mark), Unread: c.Messages, PastElsewhere: c.Past,
		MemberCount: uint32(l.Members), Member: l.Active, Role: eventv1.Role(l.Member.Role),
	}
	if ms := t.LastTime.UnixMilli(); ms > 0 {
		b.LastTimeMs = ms
	}
	if t.Kind == thread.Direct {
		b.DirectPeer = u[:]
		if l.Peer != (id.UserID{}) {
			b.DirectPeer = l.Peer[:]
		}
	}
	return b.Build()
}

func watermarkOf(u id.UserID, w thread.Watermark) *wirev1.MemberWatermark {
	return wirev1.MemberWatermark_builder{
		UserId: u[:], DeliveredPosition: int64(w.DeliveredPosition), DeliveredOrdinal: w.DeliveredOrdinal,
		ReadPosition: int64(w.ReadPosition), ReadOrdinal: w.ReadOrdinal,
	}.Build()
}

// counted counts the unread messages of listed threads, for a device that is shown nothing from before its floor. The
// user's watermarks are raised to what own says.
func (q *Queries) counted(
	ctx context.Context, u id.UserID, floor user.Floor, own func(id.ThreadID) thread.Watermark, list []views.Listed,
) ([]views.Counted, error) {
	keys := make([]views.Unread, len(list))
	for i := range list {
		l := &list[i]
		if own != nil {
			l.Mark = l.Mark.Merge(own(l.Thread.ID))
		}
		from, ms := q.shown(floor, l.Thread.ID)
		keys[i] = views.UnreadOf(l.Thread.ID, u, &l.Member, l.Thread.LastOrdinal, l.Mark, time.UnixMilli(ms), from)
	}
	return q.views.Unread(ctx, keys)
}

// shown is what a device with a floor is shown of a thread.
func (q *Queries) shown(floor user.Floor, t id.ThreadID) (from topic.Position, ms int64) {
	return floor.In(topic.SlotOf(topic.Subject(t), q.cfg.Partitions))
}

// hide takes out of rows the last message where that is before the position at which the device is begun to be shown
// anything.
func (q *Queries) hide(ctx context.Context, floor user.Floor, list []views.Listed) error {
	var threads []id.ThreadID
	var at []int
	for i := range list {
		if from, _ := q.shown(floor, list[i].Thread.ID); from > 0 {
			threads, at = append(threads, list[i].Thread.ID), append(at, i)
		}
	}
	if len(threads) == 0 {
		return nil
	}
	last, err := q.views.LastMessages(ctx, threads)
	if err != nil {
		return err
	}
	for k, i := range at {
		if from, _ := q.shown(floor, threads[k]); last[k] < from {
			list[i].Thread.Preview, list[i].Thread.LastSender = "", id.UserID{}
		}
	}
	return nil
}

// ListThreads returns a page of the user's thread list, the one with the newest message first and those that went on
// without him last, for a device that is shown nothing from before its floor. own is his
// watermark in a thread as far as it is known otherwise, which may be ahead of the view; nil: nothing is.
func (q *Queries) ListThreads(
	ctx context.Context, u id.UserID, floor user.Floor, own func(id.ThreadID) thread.Watermark, r *wirev1.ListThreads,
) (*wirev1.Threads, error) {
	limit := int(r.GetLimit())
	switch {
	case limit == 0:
		limit = 50
	case limit > maxThreads:
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "limit %d is above %d", limit, maxThreads)
	}
	// The token is the sort key of the last row: 8 bytes of microseconds, 16 of the thread.
	behind := views.ListKey{Time: time.Now().Add(1000 * time.Hour)}
	for i := range behind.Thread {
		behind.Thread[i] = 0xff
	}
	if tok := r.GetPageToken(); len(tok) != 0 {
		if len(tok) != 24 {
			return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "page_token is not one of this server's")
		}
		behind.Time = time.UnixMicro(int64(binary.BigEndian.Uint64(tok))).UTC()
		if behind.Time.Year() < 1970 || behind.Time.Year() > 9999 {
			return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "page_token is not one of this server's")
		}
		copy(behind.Thread[:], tok[8:])
	}
	list, err := q.views.List(ctx, u, behind, limit+1)
	if err != nil {
		return nil, q.unavailable("thread list", err)
	}
	out := wirev1.Threads_builder{}
	if len(list) > limit {
		list = list[:limit]
		last := &list[limit-1].Thread
		out.PageToken = append(binary.BigEndian.AppendUint64(nil, uint64(last.LastTime.UnixMicro())), last.ID[:]...)
	}
	unread, err := q.counted(ctx, u, floor, own, list)
	if err == nil {
		err = q.hide(ctx, floor, list)
	}
	if err != nil {
		return nil, q.unavailable("thread list", err)
	}
	for i := range list {
		out.Threads = append(out.Threads, summaryOf(u, &list[i], unread[i]))
	}
	return out.Build(), nil
}

// GetThread returns a thread with its members and who is invited (wire 16.8), for one who is or was a member; a former
// member gets neither, and the summary that ends with his time. floor and own are those of ListThreads.
func (q *Queries) GetThread(
	ctx context.Context, u id.UserID, floor user.Floor, own func(id.ThreadID) thread.Watermark, t id.ThreadID,
) (*wirev1.Thread, error) {
	l, ok, err := q.views.Listed(ctx, u, t)
	switch {
	case err != nil:
		return nil, q.unavailable("thread", err)
	case !ok:
		return nil, notMember()
	}
	listed := []views.Listed{l}
	unread, err := q.counted(ctx, u, floor, own, listed)
	if err == nil {
		err = q.hide(ctx, floor, listed)
	}
	if err != nil {
		return nil, q.unavailable("thread", err)
	}
	out := wirev1.Thread_builder{Summary: summaryOf(u, &listed[0], unread[0])}
	if !l.Member.Active() {
		return out.Build(), nil
	}
	members, err := q.views.Participants(ctx, t)
	if err != nil {
		return nil, q.unavailable("members", err)
	}
	for i := range members {
		m := &members[i]
		out.Members = append(out.Members, wirev1.Member_builder{
			Watermark: watermarkOf(m.User, m.Mark), Role: eventv1.Role(m.Role), Name: m.Name,
		}.Build())
	}
	invited, err := q.views.Invitees(ctx, t)
	if err != nil {
		return nil, q.unavailable("invitations", err)
	}
	for i := range invited {
		v := &invited[i]
		out.Invited = append(out.Invited, wirev1.Invitee_builder{
			UserId: v.User[:], Name: v.Name, InviterId: v.By[:],
		}.Build())
	}
	return out.Build(), nil
}

// LookupUsers returns which of the phone numbers are users; each number counts against the user's limit.
func (q *Queries) LookupUsers(ctx context.Context, u id.UserID, r *wirev1.LookupUsers) (*wirev1.Users, error) {
	phones := r.GetPhones()
	if len(phones) > maxUsers {
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "%d phone numbers, at most %d", len(phones), maxUsers)
	}
	ok, retry, err := q.limiter.Take(ctx, "lookup:"+u.String(), q.cfg.Lookups, len(phones))
	if err != nil {
		return nil, q.unavailable("lookup limit", err)
	}
	if !ok {
		return nil, &wire.Error{
			Code:       wirev1.Code_CODE_RATE_LIMITED,
			Message:    "too many phone numbers looked up",
			RetryAfter: retry,
		}
	}
	asked := map[[16]byte][]string{} // several writings may be of one number
	hashes := make([][16]byte, 0, len(phones))
	for _, p := range phones {
		n, err := auth.ParsePhone(p, r.GetRegion())
		if err != nil {
			continue // what is no number is no user
		}
		h := id.PhoneHash(q.cfg.UserKey, n.E164)
		if len(asked[h]) == 0 {
			hashes = append(hashes, h)
		}
		if !slices.Contains(asked[h], p) {
			asked[h] = append(asked[h], p)
		}
	}
	found, err := q.views.UsersByPhone(ctx, hashes)
	if err != nil {
		return nil, q.unavailable("lookup", err)
	}
	out := wirev1.Users_builder{}
	for i := range found {
		f := &found[i]
		for _, p := range asked[f.PhoneHash] {
			out.Users = append(out.Users, wirev1.User_builder{UserId: f.ID[:], Name: f.Name, Phone: p}.Build())
		}
	}
	return out.Build(), nil
}

// GetUsers returns profiles by id.
func (q *Queries) GetUsers(ctx context.Context, ids [][]byte) (*wirev1.Users, error) {
	if len(ids) > maxUsers {
		return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "%d users, at most %d", len(ids), maxUsers)
	}
	if len(ids) == 0 {
		return &wirev1.Users{}, nil
	}
	want := make([]id.UserID, 0, len(ids))
	for _, b := range ids {
		u, err := id.From[id.UserID](b)
		if err != nil {
			return nil, wire.Errorf(wirev1.Code_CODE_INVALID, "user_ids: %v", err)
		}
		want = append(want, u)
	}
	found, err := q.views.Users(ctx, want)
	if err != nil {
		return nil, q.unavailable("users", err)
	}
	out := wirev1.Users_builder{}
	for i := range found {
		out.Users = append(out.Users, wirev1.User_builder{UserId: found[i].ID[:], Name: found[i].Name}.Build())
	}
	return out.Build(), nil
}

// UserExists tells whether a user is registered.
func (q *Queries) UserExists(ctx context.Context, u id.UserID) (bool, error) {
	found, err := q.views.Users(ctx, []id.UserID{u})
	if err != nil {
		return false, q.unavailable("user", err)
	}
	return len(found) > 0, nil
}

// WasMember tells whether a user is a member of a thread or was one.
func (q *Queries) WasMember(ctx context.Context, u id.UserID, t id.ThreadID) (bool, error) {
	m, known, err := q.views.Membership(ctx, u, t, topic.SlotOf(topic.Subject(t), q.cfg.Partitions))
	if err != nil {
		return false, q.unavailable("membership", err)
	}
	return known && len(m.Spans) > 0, nil
}

// Unaddable returns those of some users whom a user may not put into a thread: they have blocked him, let nobody add
// them, or are in as many threads as one may be in. Of himself the last alone counts.
func (q *Queries) Unaddable(ctx context.Context, by id.UserID, users []id.UserID) ([]id.UserID, error) {
	found, err := q.views.Unaddable(ctx, by, users, user.MaxThreads)
	if err != nil {
		return nil, q.unavailable("users", err)
	}
	return found, nil
}

// ListDevices returns the devices of a user that may connect.
func (q *Queries) ListDevices(ctx context.Context, u id.UserID) (*wirev1.Devices, error) {
	found, err := q.views.LiveDevices(ctx, u)
	if err != nil {
		return nil, q.unavailable("devices", err)
	}
	out := wirev1.Devices_builder{}
	for i := range found {
		d := &found[i]
		out.Devices = append(out.Devices, wirev1.Device_builder{
			DeviceId: d.ID[:], DeviceName: d.Name, Primary: d.Primary, SinceMs: d.Time.UnixMilli(),
		}.Build())
	}
	return out.Build(), nil
}

// Views returns how far each view has got in the slot of a thread (wire 14.2). A view that cannot be asked counts as
// -1. Those who ask for one slot at the same time share one answer, so no number of them keeps others from the stores.
func (q *Queries) Views(ctx context.Context, t id.ThreadID) (*wirev1.Views, error) {
	slot := topic.SlotOf(topic.Subject(t), q.cfg.Partitions)
	asked := q.asked.DoChan(strconv.Itoa(int(slot)), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return q.viewsOf(ctx, slot), nil
	})
	select {
	case got := <-asked:
		v, _ := got.Val.(*wirev1.Views)
		return v, nil
	case <-ctx.Done():
		return nil, q.unavailable("views", context.Cause(ctx))
	}
}

func (q *Queries) viewsOf(ctx context.Context, slot topic.Slot) *wirev1.Views {
	out := wirev1.Views_builder{Slot: int32(slot), PostgresNext: -1, ClickhouseNext: -1}
	if f, err := q.views.FreshnessOf(ctx, topic.Threads, slot); err != nil {
		q.log.Warn("postgres position unknown", "slot", slot, "err", err)
	} else {
		out.PostgresNext = int64(f.Next)
	}
	if f, err := q.history.FreshnessOf(ctx, topic.Threads, slot); err != nil {
		q.log.Warn("clickhouse position unknown", "slot", slot, "err", err)
	} else {
		out.ClickhouseNext = int64(f.Next)
	}
	return out.Build()
}
