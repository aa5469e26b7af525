package chdb

import (
	"strings"
	"sync"
	"time"
)

const (
	maxSessions       = 256
	sessionTimeout    = time.Minute // until a session that nobody uses ends, unless the client says otherwise
	maxSessionTimeout = time.Hour
)

// sessions are the named sessions (session_id): connections to the engine that outlive their request, with what SET,
// USE and CREATE TEMPORARY TABLE did on them.
type sessions struct {
	open func() (*conn, error)

	mu     sync.Mutex // guards what follows, and the sessions' own fields
	byID   map[string]*session
	closed bool
}

// session is one of them. conn belongs to the request that holds the session.
type session struct {
	all  *sessions
	id   string
	conn *conn

	held  bool        // guarded by sessions.mu
	timer *time.Timer // ends it when nobody holds it; guarded by sessions.mu
}

// take gives the session with that id to one request, and makes it if it does not exist, unless mustExist is set.
func (a *sessions) take(id string, mustExist bool) (*session, *exception) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.byID[id]
	switch {
	case s != nil && s.held:
		return nil, exceptionf(codeSessionLocked, "Session %s is locked by a concurrent client", id)
	case s != nil:
		s.timer.Stop()
		s.held = true
		return s, nil
	case mustExist:
		return nil, exceptionf(codeSessionNotFound, "Session %s not found", id)
	case a.closed:
		return nil, exceptionf(codeAborted, "The engine is stopping")
	case len(a.byID) >= maxSessions:
		return nil, exceptionf(
			codeTooManyQueries, "There are %d sessions already: close some with close_session=1", maxSessions,
		)
	}
	cn, err := a.open()
	if err != nil {
		return nil, &exception{code: codeAborted, text: "no connection to the engine: " + err.Error()}
	}
	s = &session{all: a, id: id, conn: cn, held: true}
	a.byID[id] = s
	return s, nil
}

// give ends the request's hold. The session ends now, or when nobody has taken it for timeout.
func (s *session) give(timeout time.Duration, end bool) {
	a := s.all
	a.mu.Lock()
	defer a.mu.Unlock()
	s.held = false
	if end || a.closed {
		a.drop(s)
		return
	}
	s.timer = time.AfterFunc(timeout, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !s.held && a.byID[s.id] == s {
			a.drop(s)
		}
	})
}

// drop is called with mu held.
func (a *sessions) drop(s *session) {
	delete(a.byID, s.id)
	s.conn.close()
}

// closeAll ends the sessions that nobody holds, and each other one when it is given back.
func (a *sessions) closeAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, s := range a.byID {
		if !s.held {
			s.timer.Stop()
			a.drop(s)
		}
	}
}

// undo is what puts a session's settings and database back after a request that changed them for itself alone.
func (s *session) undo(j job) ([]string, error) {
	names := make([]string, 0, len(j.settings))
	for _, set := range j.settings {
		names = append(names, quoteText(set.name))
	}
	var back []string
	if len(names) > 0 {
		r, err := s.conn.exec(
			"SELECT name, value, changed FROM system.settings WHERE name IN ("+strings.Join(names, ", ")+")", "TSVRaw",
			nil,
		)
		if err != nil {
			return nil, err
		}
		text := r.text()
		r.free()
		for line := range strings.Lines(text) {
			name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			cut := strings.LastIndexByte(rest, '\t')
			if cut < 0 {
				continue
			}
			if rest[cut+1:] == "0" {
				back = append(back, "SET "+name+" = DEFAULT")
			} else {
				back = append(back, "SET "+name+" = "+quoteText(rest[:cut]))
			}
		}
	}
	if j.database != "" {
		r, err := s.conn.exec("SELECT currentDatabase()", "TSVRaw", nil)
		if err != nil {
			return nil, err
		}
		back = append(back, "USE "+quoteName(strings.TrimSuffix(r.text(), "\n")))
		r.free()
	}
	return back, nil
}
