package verify

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/views"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
)

// threadRows returns what the thread views should hold. Messages older than retention before the latest log time of
// their slot are left out; 0 leaves out none.
func (r *Reference) threadRows(retention time.Duration) tables {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	out := tables{}
	for n, s := range r.memory.slots {
		for t, next := range s.next {
			if next > 0 {
				out.put("positions", keyOf(t, n), int64(next))
			}
		}
		for _, q := range s.quarantined {
			out.put(
				"quarantine", keyOf(q.Topic, q.Slot, q.Position), id.ThreadID(q.Subject).String(), q.Reason, q.TimeMS,
			)
		}
		for t, st := range s.threads {
			if st.Kind == 0 {
				continue
			}
			out.put(
				"threads", keyOf(t), st.Kind, st.Title, int64(st.LastPosition), st.LastOrdinal, st.LastTimeMS,
				st.LastSender.String(), st.Preview,
			)
			for u, m := range st.Members {
				out.put("members", keyOf(t, u), m.Role, m.Active(), flatten(m.Spans), m.BaseOrdinal, m.EndOrdinal)
			}
		}
		for _, a := range s.accepted {
			if retention > 0 && a.timeMS < s.latest[topic.Threads]-retention.Milliseconds() {
				continue
			}
			out.put(
				"messages", keyOf(a.thread, int64(a.at)), a.ordinal, a.kind, a.sender.String(), a.message, a.timeMS,
				int(n), a.event,
			)
		}
		for k, m := range s.marks {
			out.put("watermarks", keyOf(id.ThreadID(k[0]), id.UserID(k[1])), m)
		}
		for k, d := range s.devices {
			out.put("device_watermarks", keyOf(id.ThreadID(k[0]), id.DeviceID(k[1]), id.UserID(k[2])), d)
		}
		for u, st := range s.users {
			if st.Generation > 0 {
				out.put("users", keyOf(u), id.UserID(st.PhoneHash).String(), st.Generation, st.Name, st.RegisteredMS)
			}
			for d, dev := range st.Devices {
				out.put(
					"devices", keyOf(u, d), digest(dev.Key[:]), dev.Name, dev.Primary, dev.Revoked, int64(dev.Since),
					dev.SinceMS,
				)
			}
			for h, name := range st.Contacts {
				out.put("contacts", keyOf(u, id.UserID(h)), name)
			}
			for b := range st.Blocked {
				out.put("blocks", keyOf(u, b), true)
			}
			for t, j := range st.Threads {
				out.put("user_threads", keyOf(u, t), int64(j.At), j.Left)
			}
		}
	}
	return out
}

// CompareThreads compares the thread views with the reference and returns the differences. The pool's search_path names
// the views' schema; retention is the projector's, and 0 expects every message.
func CompareThreads(
	ctx context.Context, pool *pgxpool.Pool, ref *Reference, retention time.Duration,
) ([]Difference, error) {
	got, err := readThreads(ctx, pool, ref, retention)
	if err != nil {
		return nil, fmt.Errorf("verify: read the thread views: %w", err)
	}
	return diff(ref.threadRows(retention), got), nil
}

func readThreads(ctx context.Context, pool *pgxpool.Pool, ref *Reference, retention time.Duration) (tables, error) {
	out := tables{}
	cutoffs := map[topic.Slot]int64{}
	if retention > 0 {
		ref.memory.mu.Lock()
		for n, s := range ref.memory.slots {
			cutoffs[n] = s.latest[topic.Threads] - retention.Milliseconds()
		}
		ref.memory.mu.Unlock()
	}
	err := views.New(pool).Tables(ctx, views.Tables{
		Freshness: func(r *views.Freshness) error {
			out.put("positions", keyOf(r.Topic, r.Slot), int64(r.Next))
			return nil
		},
		Quarantined: func(r *views.Quarantined) error {
			out.put(
				"quarantine", keyOf(r.Topic, r.Slot, r.Position), id.ThreadID(r.Subject).String(), r.Reason,
				r.Time.UnixMilli(),
			)
			return nil
		},
		Threads: func(r *views.Thread) error {
			out.put(
				"threads", keyOf(r.ID), r.Kind, r.Title, int64(r.LastPosition), r.LastOrdinal, r.LastTime.UnixMilli(),
				r.LastSender.String(), r.Preview,
			)
			return nil
		},
		Members: func(r *views.Member) error {
			m := &r.Member
			out.put(
				"members", keyOf(r.Thread, r.User), m.Role, r.Active, flatten(m.Spans), m.BaseOrdinal, m.EndOrdinal,
			)
			return nil
		},
		Messages: func(r *views.Message) error {
			if cut, ok := cutoffs[r.Slot]; ok && r.Time.UnixMilli() < cut {
				return nil
			}
			message := ""
			if r.Message != (id.MessageID{}) {
				message = r.Message.String()
			}
			out.put(
				"messages", keyOf(r.Thread, int64(r.Position)), r.Ordinal, r.Kind, r.Sender.String(), message,
				r.Time.UnixMilli(), int(r.Slot), digest(r.Event),
			)
			return nil
		},
		Watermarks: func(r *views.Watermark) error {
			out.put("watermarks", keyOf(r.Thread, r.User), r.Mark)
			return nil
		},
		DeviceWatermarks: func(r *views.DeviceWatermark) error {
			out.put("device_watermarks", keyOf(r.Thread, r.Device, r.User), r.Mark)
			return nil
		},
		Users: func(r *views.User) error {
			out.put(
				"users", keyOf(r.ID), id.UserID(r.PhoneHash).String(), r.Generation, r.Name, r.Registered.UnixMilli(),
			)
			return nil
		},
		Devices: func(r *views.Device) error {
			out.put(
				"devices", keyOf(r.User, r.ID), digest(r.Key[:]), r.Name, r.Primary, r.Revoked, int64(r.Since),
				r.Time.UnixMilli(),
			)
			return nil
		},
		Contacts: func(r *views.Contact) error {
			out.put("contacts", keyOf(r.User, id.UserID(r.PhoneHash)), r.Name)
			return nil
		},
		Blocks: func(r *views.Block) error {
			out.put("blocks", keyOf(r.User, r.Blocked), true)
			return nil
		},
		UserThreads: func(r *views.UserThread) error {
			out.put("user_threads", keyOf(r.User, r.Thread), int64(r.Joined.At), r.Joined.Left)
			return nil
		},
	})
	return out, err
}
