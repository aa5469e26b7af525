package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/edge/auth"
	"heliograph/schemas/frame"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// maxPages is how many pages of history are written at one time (wire 10.2).
const maxPages = 4

const (
	// streamWait is how long a page waits for a client that lets fewer streams be open at one time.
	streamWait = 3 * time.Second
	// pageStall is how long a client may take nothing more of a page; then it is cancelled (wire 10.2).
	pageStall = 5 * time.Second
)

type request = func(context.Context) (wirev1.ServerFrame_builder, error)

// reading returns what answers a request that only reads, or nil for another.
func (s *Session) reading(f *wirev1.ClientFrame) request {
	type answer = wirev1.ServerFrame_builder
	q := s.asking
	switch f.WhichBody() {
	case wirev1.ClientFrame_ListThreads_case:
		return func(ctx context.Context) (answer, error) {
			if err := s.freshList(ctx); err != nil {
				return answer{}, err
			}
			got, err := q.ListThreads(ctx, s.user, s.floor, s.mark, f.GetListThreads())
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
			if err := s.freshThread(ctx, t, 0); err != nil {
				return answer{}, err
			}
			got, err := q.GetThread(ctx, s.user, s.floor, s.mark, t)
			if err != nil {
				return answer{}, s.unseen(t, err)
			}
			s.hide(got.GetSummary())
			s.raise(t, got.GetMembers())
			return answer{Thread: got}, err
		}
	case wirev1.ClientFrame_CheckPhone_case:
		return func(context.Context) (answer, error) {
			got, err := auth.CheckPhone(f.GetCheckPhone())
			return answer{PhoneNumber: got}, err
		}
	case wirev1.ClientFrame_LookupUsers_case:
		return func(ctx context.Context) (answer, error) {
			if err := s.freshUser(ctx); err != nil {
				return answer{}, err
			}
			got, err := q.LookupUsers(ctx, s.user, f.GetLookupUsers())
			return answer{Users: got}, err
		}
	case wirev1.ClientFrame_GetUsers_case:
		return func(ctx context.Context) (answer, error) {
			got, err := s.profiles(ctx, f.GetGetUsers().GetUserIds())
			return answer{Users: got}, err
		}
	case wirev1.ClientFrame_ListInvitations_case: // wire 16.9
		return func(ctx context.Context) (answer, error) {
			if err := s.freshUser(ctx); err != nil {
				return answer{}, err
			}
			got, err := q.Invitations(ctx, s.user)
			return answer{Invitations: got}, err
		}
	case wirev1.ClientFrame_GetSettings_case: // wire 16.9
		return func(ctx context.Context) (answer, error) {
			if err := s.freshUser(ctx); err != nil {
				return answer{}, err
			}
			got, err := q.Settings(ctx, s.user)
			return answer{Settings: got}, err
		}
	case wirev1.ClientFrame_ListDevices_case:
		return func(ctx context.Context) (answer, error) {
			got, err := s.devices(ctx)
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

// hide takes out of a summary what this device is not shown: the last message, when that is from before its time. What
// begins at a position the query has hidden.
func (s *Session) hide(t *wirev1.ThreadSummary) {
	if t.GetPreview() != "" && t.GetLastTimeMs() < s.floor.MS {
		t.SetPreview("")
		t.SetLastSender(nil)
	}
}

// farBeyond is how many positions beyond those that this edge has read cannot be any other edge's either.
const farBeyond = 1 << 20

// unseen is the error of a read that knows nothing of a thread, although the view is as far as this edge: one that is
// in quarantine from its first event on is so to those in whose lists it is.
func (s *Session) unseen(t id.ThreadID, err error) error {
	v, ok := s.srv.replica.View(t)
	if ok && v.Quarantined && v.Kind == thread.None && s.srv.replica.Listed(s.user, t) &&
		errors.Is(err, notMember()) {
		return parked()
	}
	return err
}

// mark is how far the user has got in a thread, as this edge knows it.
func (s *Session) mark(t id.ThreadID) thread.Watermark { return s.srv.replica.Watermark(t, s.user) }

// history answers GetHistory on a stream of its own (wire 10.1), at most maxPages at one time; refusals go on the
// control stream.
func (s *Session) history(ctx context.Context, f *wirev1.ClientFrame) {
	req := f.GetRequestId()
	if req == 0 { // a page without an id would belong to nobody
		return
	}
	done, ok := s.begin(req, proto.Size(f))
	if !ok {
		return
	}
	if s.pages == nil {
		s.pages = make(chan struct{}, maxPages)
	}
	pages := s.pages
	if !s.spawn(func() {
		defer done()
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
		t, err := s.pageOf(ctx, f.GetGetHistory())
		if err != nil {
			s.fail(req, err)
			return
		}
		if err := s.page(ctx, req, t, f.GetGetHistory()); err != nil {
			s.fail(req, err)
		}
		s.srv.metrics.requests.WithLabelValues("get_history").Observe(time.Since(begun).Seconds())
	}) {
		done()
	}
}

// pageOf checks what a page is asked of, and waits until the views have what the connection was told of that.
func (s *Session) pageOf(ctx context.Context, r *wirev1.GetHistory) (id.ThreadID, error) {
	t, err := threadID(r.GetThreadId())
	if err != nil {
		return t, err
	}
	if at := s.cursor(t); at != notNew && r.GetBeforePosition() > int64(at)+farBeyond {
		return t, invalid("before_position %d is far beyond the log's end", r.GetBeforePosition())
	}
	return t, s.freshThread(ctx, t, topic.Position(r.GetBeforePosition()))
}

// page reads and writes one page. It lets go of its place on the edge as soon as it is read, where the memory allows
// that it waits for the client: so those who take nothing do not hold the places of all. Once the stream carries
// something there is no way back: it is cancelled, which the client takes as a failure.
func (s *Session) page(ctx context.Context, req uint64, t id.ThreadID, r *wirev1.GetHistory) error {
	select { // after the session's own, so that one device cannot hold the places of all
	case s.srv.pages <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	leave := sync.OnceFunc(func() { <-s.srv.pages })
	defer leave()
	data, err := s.readPage(ctx, req, t, r)
	if err != nil {
		return err
	}
	if s.Room(len(data)) >= len(data) {
		leave()
	}
	s.Hold(len(data))
	defer s.Hold(-len(data))
	opening, cancel := context.WithTimeout(ctx, streamWait)
	p, err := s.conn.OpenPage(opening)
	cancel()
	if err != nil {
		return err
	}
	if err := writePage(ctx, p, data); err != nil {
		p.Cancel()
		return err
	}
	return p.Close()
}

// readPage returns a page as the frame that answers a request.
func (s *Session) readPage(ctx context.Context, req uint64, t id.ThreadID, r *wirev1.GetHistory) ([]byte, error) {
	got, err := s.asking.History(ctx, s.user, s.floor, r)
	if err != nil {
		return nil, s.unseen(t, err)
	}
	data, err := frame.Append(nil, wirev1.ServerFrame_builder{RequestId: req, HistoryPage: got}.Build())
	if err == nil && len(data) > wire.MaxServerFrame {
		err = wire.Errorf(wirev1.Code_CODE_TOO_LARGE, "the page is too long: ask for less")
	}
	return data, err
}

// writePage writes a page until ctx ends, or the client takes nothing for a while.
func writePage(ctx context.Context, p Page, data []byte) error {
	ends, _ := ctx.Deadline()
	for part := range slices.Chunk(data, writeChunk) {
		deadline := time.Now().Add(pageStall)
		if ends.Before(deadline) {
			deadline = ends
		}
		if err := p.SetWriteDeadline(deadline); err != nil {
			return err
		}
		if _, err := p.Write(part); err != nil {
			return err
		}
	}
	return nil
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
