package session

import (
	"context"
	"errors"
	"time"

	"heliograph/edge/auth"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// maxPages is how many pages of history are written at one time (section 10).
const maxPages = 4

// streamWait is how long a page waits for a client that lets fewer streams be open at one time.
const streamWait = 3 * time.Second

type request = func(context.Context) (wirev1.ServerFrame_builder, error)

// reading returns what answers a request that only reads, or nil for another.
func (s *Session) reading(f *wirev1.ClientFrame) request {
	type answer = wirev1.ServerFrame_builder
	q := s.srv.queries
	switch f.WhichBody() {
	case wirev1.ClientFrame_ListThreads_case:
		return func(ctx context.Context) (answer, error) {
			got, err := q.ListThreads(ctx, s.user, s.floor, f.GetListThreads())
			for _, t := range got.GetThreads() {
				s.hide(t)
			}
			return answer{Threads: got}, err
		}
	case wirev1.ClientFrame_GetThread_case:
		return func(ctx context.Context) (answer, error) {
			t, err := threadID(f.GetGetThread().GetThreadId())
			if err != nil {
				return answer{}, err
			}
			got, err := visible(
				ctx, s, t,
				func(ctx context.Context) (*wirev1.Thread, error) { return q.GetThread(ctx, s.user, s.floor, t) },
			)
			s.hide(got.GetSummary())
			return answer{Thread: got}, err
		}
	case wirev1.ClientFrame_CheckPhone_case:
		return func(context.Context) (answer, error) {
			got, err := auth.CheckPhone(f.GetCheckPhone())
			return answer{PhoneNumber: got}, err
		}
	case wirev1.ClientFrame_LookupUsers_case:
		return func(ctx context.Context) (answer, error) {
			got, err := q.LookupUsers(ctx, s.user, f.GetLookupUsers())
			return answer{Users: got}, err
		}
	case wirev1.ClientFrame_GetUsers_case:
		return func(ctx context.Context) (answer, error) {
			got, err := q.GetUsers(ctx, f.GetGetUsers().GetUserIds())
			return answer{Users: got}, err
		}
	case wirev1.ClientFrame_ListDevices_case:
		return func(ctx context.Context) (answer, error) {
			got, err := q.ListDevices(ctx, s.user)
			return answer{Devices: got}, err
		}
	case wirev1.ClientFrame_GetViews_case:
		return func(ctx context.Context) (answer, error) {
			t, err := threadID(f.GetGetViews().GetThreadId())
			if err != nil {
				return answer{}, err
			}
			if _, err := s.own(ctx, t); err != nil {
				return answer{}, err
			}
			got, err := q.Views(ctx, t)
			return answer{Views: got}, err
		}
	}
	return nil
}

// hide takes out of a summary what this device is not shown: the last message, when that is from before its time.
func (s *Session) hide(t *wirev1.ThreadSummary) {
	if t.GetPreview() != "" && t.GetLastTimeMs() < s.floor {
		t.SetPreview("")
		t.SetLastSender(nil)
	}
}

// farBeyond is how many positions beyond those that this edge has read cannot be any other edge's either.
const farBeyond = 1 << 20

// viewWait is how long a read waits for a view that does not know yet what this edge does.
const viewWait = 2 * time.Second

// visible reads from a view that may be a moment behind this edge: a user who, by the thread's own fold, is or was a
// member is not told that he never was, but waits until the view has got there, or is told to try again.
func visible[T any](ctx context.Context, s *Session, t id.ThreadID, read func(context.Context) (T, error)) (T, error) {
	got, err := read(ctx)
	if !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_NOT_A_MEMBER}) {
		return got, err
	}
	v, ok := s.srv.replica.View(t)
	switch {
	case ok && v.Quarantined && v.Kind == thread.None && s.srv.replica.Listed(s.user, t):
		return got, parked()
	case !ok || !v.Roster.WasMember(s.user):
		return got, err
	}
	wait, cancel := context.WithTimeout(ctx, viewWait)
	defer cancel()
	slot := topic.SlotOf(topic.Subject(t), s.srv.cfg.Partitions)
	if err := s.srv.replica.Reach(wait, map[topic.Slot]topic.Position{slot: v.LastPosition}); err == nil {
		if got, err = read(ctx); !errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_NOT_A_MEMBER}) {
			return got, err
		}
	}
	return got, wire.Errorf(wirev1.Code_CODE_UNAVAILABLE, "the view has not got as far as this thread yet")
}

// history answers GetHistory on a stream of its own (section 10), at most maxPages at one time; refusals go on the
// control stream.
func (s *Session) history(ctx context.Context, f *wirev1.ClientFrame) {
	req := f.GetRequestId()
	if req == 0 || !s.begin(req) { // a page without an id would belong to nobody
		return
	}
	if s.pages == nil {
		s.pages = make(chan struct{}, maxPages)
	}
	pages := s.pages
	if !s.spawn(func() {
		defer s.finish()
		begun := time.Now()
		ctx, cancel := context.WithTimeout(ctx, s.srv.cfg.RequestTimeout)
		defer cancel()
		select {
		case pages <- struct{}{}:
			defer func() { <-pages }()
		case <-ctx.Done():
			s.fail(req, ctx.Err())
			return
		}
		select { // after the session's own, so that one device cannot hold the places of all
		case s.srv.pages <- struct{}{}:
			defer func() { <-s.srv.pages }()
		case <-ctx.Done():
			s.fail(req, ctx.Err())
			return
		}
		if err := s.page(ctx, req, f.GetGetHistory()); err != nil {
			s.fail(req, err)
		}
		s.srv.metrics.requests.WithLabelValues("get_history").Observe(time.Since(begun).Seconds())
	}) {
		s.finish()
	}
}

// page reads and writes one page. Once the stream carries something there is no way back: it is cancelled, which the
// client takes as a failure.
func (s *Session) page(ctx context.Context, req uint64, r *wirev1.GetHistory) error {
	t, err := threadID(r.GetThreadId())
	if err != nil {
		return err
	}
	if at := s.cursor(t); at != notNew && r.GetBeforePosition() > int64(at)+farBeyond {
		return invalid("before_position %d is far beyond the log's end", r.GetBeforePosition())
	}
	got, err := visible(ctx, s, t, func(ctx context.Context) (*wirev1.HistoryPage, error) {
		return s.srv.queries.History(ctx, s.user, s.floor, r)
	})
	if err != nil {
		return err
	}
	data, err := frame.Append(nil, wirev1.ServerFrame_builder{RequestId: req, HistoryPage: got}.Build())
	if err != nil {
		return err
	}
	if len(data) > wire.MaxServerFrame {
		return wire.Errorf(wirev1.Code_CODE_TOO_LARGE, "the page is too long: ask for less")
	}
	opening, cancel := context.WithTimeout(ctx, streamWait)
	p, err := s.conn.OpenPage(opening)
	cancel()
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	err = p.SetWriteDeadline(deadline)
	if err == nil {
		_, err = p.Write(data)
	}
	if err != nil {
		p.Cancel()
		return err
	}
	return p.Close()
}

func threadID(b []byte) (id.ThreadID, error) {
	t, err := id.From[id.ThreadID](b)
	if err != nil || !t.IsDirect() && !t.IsGroup() {
		return t, invalid("thread_id is not a thread's id")
	}
	return t, nil
}

func userID(field string, b []byte) (id.UserID, error) {
	u, err := id.From[id.UserID](b)
	if err != nil || u.IsZero() {
		return u, invalid("%s is not a user's id", field)
	}
	return u, nil
}
