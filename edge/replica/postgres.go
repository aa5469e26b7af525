package replica

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/views"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// postgresStore asks the thread views in Postgres.
type postgresStore struct {
	views      *views.Views
	doors      *views.Views // what decides who comes in, and who is cut off
	partitions int
	recent     int // the most messages of a window that a snapshot loads
}

// NewPostgres returns the Store of a deployment with so many partitions. The pools' search_path has the schema of the
// thread views. doors is the pool for devices, for how far the views are and for what they have in quarantine, so that
// no number of catch-ups, which pool is for, keeps anybody from registering, from logging in or from being cut off.
func NewPostgres(pool, doors *pgxpool.Pool, partitions int) Store {
	return &postgresStore{views: views.New(pool), doors: views.New(doors), partitions: partitions, recent: maxRecent}
}

// maxRecent is the most messages of a thread that a snapshot loads for the rule on repeats: of a thread that has seen
// more within its window others are looked up when they may have come again. keptSent is how many it looks at in any
// case, to find who has sent something lately.
const (
	maxRecent = 1 << 16
	keptSent  = 64
)

// take notes how far a slot is. A topic that is not folded here is passed over.
func (p *postgresStore) take(at []topic.Cursor, f *views.Freshness) {
	if i, ok := f.Topic.Place(); ok && f.Slot >= 0 && int(f.Slot) < len(at) {
		at[f.Slot][i] = f.Next
	}
}

func (p *postgresStore) Positions(ctx context.Context) ([]topic.Cursor, error) {
	at := make([]topic.Cursor, p.partitions)
	all, err := p.doors.Freshness(ctx)
	for i := range all {
		p.take(at, &all[i])
	}
	return at, err
}

func (p *postgresStore) Snapshot(ctx context.Context, threads []id.ThreadID, users []id.UserID) (*Snapshot, error) {
	out := &Snapshot{
		At:      make([]topic.Cursor, p.partitions),
		Threads: make(map[id.ThreadID]*ThreadState, len(threads)), Users: make(map[id.UserID]*user.State, len(users)),
		Quarantined: map[Quarantined]bool{},
	}
	err := p.views.Moment(ctx, func(q *views.Questions) {
		q.Freshness(func(f *views.Freshness) error { p.take(out.At, f); return nil })
		if len(threads) > 0 {
			p.askThreads(q, threads, out.Threads)
		}
		if len(users) > 0 {
			askUsers(q, users, out.Users)
		}
		q.Held(threads, users, func(h *views.Held) error {
			out.Quarantined[Quarantined{h.Topic.Number(), h.Subject}] = true
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot of %d threads and %d users: %w", len(threads), len(users), err)
	}
	return out, nil
}

func (p *postgresStore) Quarantine(
	ctx context.Context, threads []id.ThreadID, users []id.UserID,
) (map[Quarantined]bool, map[topic.Slot]topic.Cursor, error) {
	held, at := map[Quarantined]bool{}, map[topic.Slot]topic.Cursor{}
	for _, t := range threads {
		at[topic.SlotOf(topic.Subject(t), p.partitions)] = topic.Cursor{}
	}
	for _, u := range users {
		at[topic.SlotOf(topic.Subject(u), p.partitions)] = topic.Cursor{}
	}
	slots := slices.Collect(maps.Keys(at))
	err := p.doors.Moment(ctx, func(q *views.Questions) {
		for _, t := range topic.Folded {
			q.FreshnessOf(t, slots, func(f *views.Freshness) error {
				c := at[f.Slot]
				c.Set(t, f.Next)
				at[f.Slot] = c
				return nil
			})
		}
		q.Held(threads, users, func(h *views.Held) error {
			held[Quarantined{h.Topic.Number(), h.Subject}] = true
			return nil
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("quarantine of %d threads and %d users: %w", len(threads), len(users), err)
	}
	return held, at, nil
}

func (p *postgresStore) askThreads(q *views.Questions, keys []id.ThreadID, out map[id.ThreadID]*ThreadState) {
	q.Threads(keys, func(r *views.Thread) error {
		s := NewThreadState(r.ID)
		r.Fill(s.State)
		out[r.ID] = s
		return nil
	})
	q.Members(keys, func(r *views.Member) error {
		if s := out[r.Thread]; s != nil {
			m := r.Member
			s.Members[r.User] = &m
		}
		return nil
	})
	q.Invitations(keys, func(r *views.Invitation) error {
		if s := out[r.Thread]; s != nil {
			s.Invited[r.User] = r.Invitation()
		}
		return nil
	})
	q.Watermarks(keys, func(r *views.Watermark) error {
		s := out[r.Thread]
		if s == nil { // receipts may be ahead of their thread
			s = NewThreadState(r.Thread)
			out[r.Thread] = s
		}
		s.Marks[r.User] = r.Mark
		return nil
	})
	counts, earliest := map[id.ThreadID]int{}, map[id.ThreadID]int64{}
	q.Recent(keys, p.recent, func(r *views.Sent) error {
		s := out[r.Thread]
		if s == nil {
			return nil
		}
		key, found, n := r.Key(), r.Seen(), counts[r.Thread]
		if was, twice := s.Recent[key]; !twice || was.Position < found.Position {
			s.Recent[key] = found
		}
		if n == 0 || found.TimeMS < earliest[r.Thread] {
			earliest[r.Thread] = found.TimeMS
		}
		if counts[r.Thread] = n + 1; n+1 == p.recent {
			s.LacksMS = max(1, earliest[r.Thread])
		}
		return nil
	})
	q.Newest(keys, keptSent, func(r *views.Sent) error {
		if s := out[r.Thread]; s != nil && s.Sent[r.Sender].Ordinal < r.Ordinal {
			s.Sent[r.Sender] = Sent{r.Position, r.Ordinal}
		}
		return nil
	})
}

func (p *postgresStore) Sent(ctx context.Context, keys []MessageKey) ([]Sought, error) {
	out := make([]Sought, len(keys))
	asked, slots := make([]views.MessageKey, len(keys)), make([]topic.Slot, len(keys))
	places := make(map[views.MessageKey][]int, len(keys))
	for i, k := range keys {
		asked[i] = views.MessageKey{Thread: k.Thread, Key: k.Key}
		slots[i] = topic.SlotOf(topic.Subject(k.Thread), p.partitions)
		places[asked[i]] = append(places[asked[i]], i)
	}
	next := map[topic.Slot]topic.Position{}
	err := p.views.Moment(ctx, func(q *views.Questions) {
		q.FreshnessOf(topic.Threads, slots, func(f *views.Freshness) error { next[f.Slot] = f.Next; return nil })
		q.Sent(asked, math.MaxInt64, func(r *views.Sent) error {
			for _, i := range places[views.MessageKey{Thread: r.Thread, Key: r.Key()}] {
				if r.Position < keys[i].Before {
					out[i].Found, out[i].Seen = true, r.Seen()
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("look up %d messages: %w", len(keys), err)
	}
	for i := range out {
		out[i].Next = next[slots[i]]
	}
	return out, nil
}

func askUsers(q *views.Questions, keys []id.UserID, out map[id.UserID]*user.State) {
	of := func(u id.UserID) *user.State {
		s := out[u]
		if s == nil {
			s = slimUser(u)
			out[u] = s
		}
		return s
	}
	q.Users(keys, func(r *views.User) error { r.Fill(of(r.ID)); return nil })
	q.Devices(keys, func(r *views.Device) error { of(r.User).Devices[r.ID] = r.Device(); return nil })
	q.UserThreads(keys, func(r *views.UserThread) error { of(r.User).Threads[r.Thread] = r.Joined; return nil })
	q.UserInvitations(keys, func(r *views.UserInvitation) error {
		of(r.User).Invitations[r.Thread] = r.Invitation()
		return nil
	})
}

func (p *postgresStore) Delivered(ctx context.Context, keys []DeviceThread) ([]topic.Position, error) {
	asked := make([]views.DeviceThread, len(keys))
	for i, k := range keys {
		asked[i] = views.DeviceThread{DeviceKey: views.DeviceKey{User: k.User, Device: k.Device}, Thread: k.Thread}
	}
	return p.views.Cursors(ctx, asked)
}

func (p *postgresStore) Unread(ctx context.Context, keys []Unread) ([]Counted, error) {
	asked := make([]views.Unread, len(keys))
	for i, k := range keys {
		asked[i] = views.Unread{
			Thread: k.Thread, User: k.User, Unread: k.Unread, First: k.First,
			Since: time.UnixMilli(k.FloorMS), From: k.From,
		}
	}
	found, err := p.views.Unread(ctx, asked)
	out := make([]Counted, len(found))
	for i, c := range found {
		out[i] = Counted(c)
	}
	return out, err
}

func (p *postgresStore) Tails(ctx context.Context, ranges []Range) ([]Tail, error) {
	out := make([]Tail, len(ranges))
	asked := make([]views.Range, len(ranges))
	threads, slots := make([]id.ThreadID, len(ranges)), make([]topic.Slot, len(ranges))
	for i, r := range ranges {
		asked[i] = views.Range{
			Thread: r.Thread, After: r.After, UpTo: r.UpTo, Since: time.UnixMilli(r.FloorMS), Limit: r.Limit,
			Bytes: r.Bytes,
		}
		threads[i], slots[i] = r.Thread, topic.SlotOf(topic.Subject(r.Thread), p.partitions)
		out[i].Trimmed = -1
	}
	err := p.views.Moment(ctx, func(q *views.Questions) {
		q.FreshnessOf(topic.Threads, slots, func(f *views.Freshness) error {
			for i := range out {
				if slots[i] == f.Slot {
					out[i].Next = f.Next
				}
			}
			return nil
		})
		q.Trimmed(threads, func(t *views.Trimmed) error {
			for i := range out {
				if threads[i] == t.Thread {
					out[i].Trimmed, out[i].TrimmedMS = t.Position, t.Time.UnixMilli()
				}
			}
			return nil
		})
		q.Tails(asked, func(nth int, e *views.Event) error {
			t := &out[nth]
			t.Rows = append(t.Rows, Row{e.Position, e.Ordinal, e.Time.UnixMilli(), e.Event})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("tails of %d threads: %w", len(ranges), err)
	}
	return out, nil
}

func (p *postgresStore) Rejected(ctx context.Context, keys []DeviceKey) ([][]Rejected, error) {
	asked := make([]views.DeviceKey, len(keys))
	for i, k := range keys {
		asked[i] = views.DeviceKey{User: k.User, Device: k.Device}
	}
	out := make([][]Rejected, len(keys))
	err := p.views.RejectedOf(ctx, asked, func(nth int, r *views.Rejected) error {
		out[nth] = append(out[nth], Rejected{
			Thread: r.Thread, Position: r.Position, User: r.User, Device: r.Device,
			Message: slices.Clone(r.Message[:]),
			Reason:  r.Reason,
		})
		return nil
	})
	return out, err
}

func (p *postgresStore) Devices(ctx context.Context, keys []DeviceKey) ([]*user.Device, error) {
	asked := make([]views.DeviceKey, len(keys))
	for i, k := range keys {
		asked[i] = views.DeviceKey{User: k.User, Device: k.Device}
	}
	found, err := p.doors.Devices(ctx, asked)
	if err != nil {
		return nil, err
	}
	out := make([]*user.Device, len(keys))
	for i, d := range found {
		if d != nil {
			out[i] = d.Device()
		}
	}
	return out, nil
}
