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
			out.put("quarantine", keyOf(q.Topic, q.Slot, q.Position),
				id.ThreadID(q.Subject).String(), q.Reason, q.TimeMS)
		}
		for t, st := range s.threads {
			if st.Kind == 0 {
				continue
			}
			out.put("threads", keyOf(t),
				st.Kind, st.Title, int64(st.LastPosition), st.LastOrdinal, st.LastTimeMS,
				st.LastSender.String(), st.Preview)
			for u, m := range st.Members {
				out.put("members", keyOf(t, u), m.Role, m.Active(), flatten(m.Spans), m.BaseOrdinal, m.EndOrdinal)
			}
			for u, in := range st.Invited {
				out.put("invitations", keyOf(t, u), in.By.String(), int64(in.At), in.TimeMS)
			}
		}
		for _, a := range s.accepted {
			if retention > 0 && a.timeMS < s.latest[topic.Threads]-retention.Milliseconds() {
				continue
			}
			out.put("messages", keyOf(a.thread, int64(a.at)),
				a.ordinal, a.kind, a.sender.String(), a.message, a.timeMS, int(n), a.event)
		}
		for _, x := range s.rejected {
			if retention > 0 && x.timeMS < s.latest[topic.Threads]-retention.Milliseconds() {
				continue
			}
			out.put("rejected", keyOf(x.sender, x.device, x.thread, int64(x.at)),
				x.message.String(), string(x.reason), x.timeMS, int(n))
		}
		for k, m := range s.marks {
			out.put("watermarks", keyOf(id.ThreadID(k[0]), id.UserID(k[1])), m)
		}
		for k, d := range s.devices {
			out.put("device_watermarks", keyOf(id.ThreadID(k[0]), id.DeviceID(k[1]), id.UserID(k[2])), d)
		}
		for u, st := range s.users {
			if st.Generation > 0 {
				out.put("users", keyOf(u),
					id.UserID(st.PhoneHash).String(), st.Generation, st.Name, st.RegisteredMS, int(st.MayAdd))
			}
			for d, dev := range st.Devices {
				out.put("devices", keyOf(u, d),
					digest(dev.Key[:]), dev.Name, dev.Primary, dev.Revoked, int64(dev.Since), dev.SinceMS, dev.Floor())
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
			for t, i := range st.Invitations {
				out.put("user_invitations", keyOf(u, t), i.By.String(), i.Title, int64(i.At), i.TimeMS)
			}
		}
	}
	return out
}

// threadColumns are the columns of the thread views that are compared.
var threadColumns = columns{
	"positions":         {"next"},
	"quarantine":        {"subject", "reason", "log_time"},
	"threads":           {"kind", "title", "last_position", "last_ordinal", "last_time", "last_sender", "preview"},
	"members":           {"role", "active", "spans", "base_ordinal", "end_ordinal"},
	"invitations":       {"inviter_id", "position", "log_time"},
	"messages":          {"ordinal", "kind", "sender_id", "message_id", "log_time", "slot", "event"},
	"rejected":          {"message_id", "reason", "log_time", "slot"},
	"watermarks":        {"mark"},
	"device_watermarks": {"mark"},
	"users":             {"phone_hash", "generation", "name", "registered", "may_add"},
	"devices":           {"public_key", "name", "is_primary", "revoked", "since_position", "since", "shown_from"},
	"contacts":          {"name"},
	"blocks":            {"blocked"},
	"user_threads":      {"joined_position", "left"},
	"user_invitations":  {"inviter_id", "title", "position", "log_time"},
}

// CompareThreads compares the thread views with the reference and returns the differences. The pool's search_path names
// the views' schema; retention is the projector's, and 0 expects every message.
func CompareThreads(
	ctx context.Context, pool *pgxpool.Pool, ref *Reference, retention time.Duration,
) ([]Difference, error) {
	got, _, err := readThreads(ctx, pool, selection{}, retention)
	if err != nil {
		return nil, err
	}
	return threadColumns.diff(ref.threadRows(retention), got), nil
}

// readThreads reads the views as of one moment, and up to where they have taken in the log by then. Messages older
// than retention before the latest log time that their slot has taken in are left out; 0 leaves out none.
func readThreads(
	ctx context.Context, pool *pgxpool.Pool, sel selection, retention time.Duration,
) (tables, ends, error) {
	out, at := tables{}, ends{}
	cutoffs := map[topic.Slot]int64{}
	err := views.New(pool).Tables(ctx, views.Tables{
		Freshness: func(r *views.Freshness) error {
			if !sel.has(r.Slot) {
				return nil
			}
			at.put(r.Topic, r.Slot, r.Next)
			if r.Topic == topic.Threads && retention > 0 {
				cutoffs[r.Slot] = r.Time.UnixMilli() - retention.Milliseconds()
			}
			out.put("positions", keyOf(r.Topic, r.Slot), int64(r.Next))
			return nil
		},
		Quarantined: func(r *views.Quarantined) error {
			if !sel.has(r.Slot) {
				return nil
			}
			out.put("quarantine", keyOf(r.Topic, r.Slot, r.Position),
				id.ThreadID(r.Subject).String(), r.Reason, r.Time.UnixMilli())
			return nil
		},
		Threads: func(r *views.Thread) error {
			if !sel.holds(topic.Subject(r.ID)) {
				return nil
			}
			out.put("threads", keyOf(r.ID),
				r.Kind, r.Title, int64(r.LastPosition), r.LastOrdinal, r.LastTime.UnixMilli(),
				r.LastSender.String(), r.Preview)
			return nil
		},
		Members: func(r *views.Member) error {
			if !sel.holds(topic.Subject(r.Thread)) {
				return nil
			}
			m := &r.Member
			out.put("members", keyOf(r.Thread, r.User),
				m.Role, r.Active, flatten(m.Spans), m.BaseOrdinal, m.EndOrdinal)
			return nil
		},
		Invitations: func(r *views.Invitation) error {
			if !sel.holds(topic.Subject(r.Thread)) {
				return nil
			}
			out.put("invitations", keyOf(r.Thread, r.User), r.By.String(), int64(r.Position), r.Time.UnixMilli())
			return nil
		},
		Messages: func(r *views.Message) error {
			if cut, ok := cutoffs[r.Slot]; !sel.has(r.Slot) || ok && r.Time.UnixMilli() < cut {
				return nil
			}
			message := ""
			if r.Message != (id.MessageID{}) {
				message = r.Message.String()
			}
			out.put("messages", keyOf(r.Thread, int64(r.Position)),
				r.Ordinal, r.Kind, r.Sender.String(), message, r.Time.UnixMilli(), int(r.Slot), digest(r.Event))
			return nil
		},
		Rejected: func(r *views.Rejected) error {
			if cut, ok := cutoffs[r.Slot]; !sel.has(r.Slot) || ok && r.Time.UnixMilli() < cut {
				return nil
			}
			out.put("rejected", keyOf(r.User, r.Device, r.Thread, int64(r.Position)),
				r.Message.String(), string(r.Reason), r.Time.UnixMilli(), int(r.Slot))
			return nil
		},
		Watermarks: func(r *views.Watermark) error {
			if !sel.holds(topic.Subject(r.Thread)) {
				return nil
			}
			out.put("watermarks", keyOf(r.Thread, r.User), r.Mark)
			return nil
		},
		DeviceWatermarks: func(r *views.DeviceWatermark) error {
			if !sel.holds(topic.Subject(r.Thread)) {
				return nil
			}
			out.put("device_watermarks", keyOf(r.Thread, r.Device, r.User), r.Mark)
			return nil
		},
		Users: func(r *views.User) error {
			if !sel.holds(topic.Subject(r.ID)) {
				return nil
			}
			out.put("users", keyOf(r.ID),
				id.UserID(r.PhoneHash).String(), r.Generation, r.Name, r.Registered.UnixMilli(), int(r.MayAdd))
			return nil
		},
		Devices: func(r *views.Device) error {
			if !sel.holds(topic.Subject(r.User)) {
				return nil
			}
			out.put("devices", keyOf(r.User, r.ID),
				digest(r.Key[:]), r.Name, r.Primary, r.Revoked, int64(r.Since), r.Time.UnixMilli(), r.Device().Floor())
			return nil
		},
		Contacts: func(r *views.Contact) error {
			if !sel.holds(topic.Subject(r.User)) {
				return nil
			}
			out.put("contacts", keyOf(r.User, id.UserID(r.PhoneHash)), r.Name)
			return nil
		},
		Blocks: func(r *views.Block) error {
			if !sel.holds(topic.Subject(r.User)) {
				return nil
			}
			out.put("blocks", keyOf(r.User, r.Blocked), true)
			return nil
		},
		UserThreads: func(r *views.UserThread) error {
			if !sel.holds(topic.Subject(r.User)) {
				return nil
			}
			out.put("user_threads", keyOf(r.User, r.Thread), int64(r.Joined.At), r.Joined.Left)
			return nil
		},
		UserInvitations: func(r *views.UserInvitation) error {
			if !sel.holds(topic.Subject(r.User)) {
				return nil
			}
			out.put("user_invitations", keyOf(r.User, r.Thread),
				r.By.String(), r.Title, int64(r.At), r.Time.UnixMilli())
			return nil
		},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("verify: read the thread views: %w", err)
	}
	return out, at, nil
}
