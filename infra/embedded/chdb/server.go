package chdb

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	headBytes   = 1 << 20  // how much of a body is looked at for an INSERT's FORMAT clause
	textBytes   = 64 << 20 // the largest statement
	killSlots   = 2        // KILL QUERY has places of its own: it must not wait for what it is to end
	maxQueryID  = 200
	defaultText = "TabSeparated"
)

// server is the HTTP front.
type server struct {
	// fixed after newServer
	cfg  Config
	core *core
	m    *metrics
	log  *slog.Logger
	http *http.Server
	name string
	who  Accounts
	stop <-chan struct{} // closed when running statements must end

	reading, ordinary, preferred, kills *gate

	mu      sync.Mutex
	running map[string]bool // query ids; guarded by mu
}

// newServer makes a server whose running statements end with ctx.
func newServer(ctx context.Context, cfg Config, c *core, m *metrics, who Accounts) *server {
	s := &server{
		cfg: cfg, core: c, m: m, log: cfg.Logger, name: displayName(), who: who, stop: ctx.Done(),
		reading:  newGate(0, cfg.MaxConcurrent+cfg.MaxPreferred+killSlots+2*cfg.MaxQueued),
		ordinary: newGate(cfg.MaxConcurrent, cfg.MaxQueued), preferred: newGate(cfg.MaxPreferred, cfg.MaxQueued),
		kills:   newGate(killSlots, cfg.MaxQueued),
		running: map[string]bool{},
	}
	s.http = newHTTPServer(s, cfg.Logger)
	s.http.BaseContext = func(net.Listener) context.Context { return ctx }
	return s
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctl := http.NewResponseController(w)
	_ = ctl.SetWriteDeadline(time.Time{}) // the connection's last reply has left one
	switch r.URL.Path {
	case "/ping", "/replicas_status":
		ok(w)
		return
	case "/", "":
	default:
		http.Error(w, "There is no handle "+r.URL.Path+". Use / or /ping", http.StatusNotFound)
		return
	}
	values := r.URL.Query()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if values.Get("query") == "" {
			ok(w)
			return
		}
	case http.MethodPost:
	default:
		http.Error(w, "use GET or POST", http.StatusMethodNotAllowed)
		return
	}
	q := &query{s: s, w: w, r: r, values: values, ctl: ctl, begin: time.Now()}
	q.serve()
}

func ok(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	_, _ = io.WriteString(w, "Ok.\n")
}

// authorise checks a user's name and password, wherever the client put them, and returns the name.
func (s *server) authorise(r *http.Request, values url.Values) (user string, e *exception) {
	user, password := Writer, ""
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); scheme != "" &&
		!strings.EqualFold(scheme, "Basic") {
		return "", exceptionf(codeAuthenticationError, "The embedded engine knows no authorization by %s: use Basic",
			scheme)
	}
	if strings.EqualFold(r.Header.Get("X-ClickHouse-SSL-Certificate-Auth"), "on") {
		return "", exceptionf(codeAuthenticationError, "The embedded engine knows no users by certificate")
	}
	if u, p, found := r.BasicAuth(); found {
		user, password = u, p
	} else if u := r.Header.Get("X-ClickHouse-User"); u != "" || r.Header.Get("X-ClickHouse-Key") != "" {
		user, password = u, r.Header.Get("X-ClickHouse-Key")
	} else if values.Has("user") || values.Has("password") {
		user, password = values.Get("user"), values.Get("password")
	}
	if user == "" {
		user = Writer
	}
	if s.who.knows(user, password) {
		return user, nil
	}
	return "", exceptionf(codeAuthenticationError,
		"%s: Authentication failed: password is incorrect, or there is no user with such name", user)
}

// gate bounds how many statements run and how many wait. Those that wait must not be held up by the ones of another
// gate.
type gate struct {
	slots chan struct{} // running
	seats chan struct{} // running and waiting; of the gate in which statements are read: being read
}

func newGate(running, waiting int) *gate {
	return &gate{slots: make(chan struct{}, running), seats: make(chan struct{}, running+waiting)}
}

// sit takes a seat, if one is free.
func (g *gate) sit() *exception {
	select {
	case g.seats <- struct{}{}:
		return nil
	default:
		return exceptionf(codeTooManyQueries, "Too many simultaneous queries. Maximum: %d running and %d waiting",
			cap(g.slots), cap(g.seats)-cap(g.slots))
	}
}

func (g *gate) rise() { <-g.seats }

// query is one request for a statement. It belongs to the request's goroutine.
type query struct {
	s      *server
	w      http.ResponseWriter
	r      *http.Request
	ctl    *http.ResponseController
	values url.Values
	begin  time.Time

	id   string
	job  job
	body io.Reader
}

func (q *query) serve() {
	if e := q.run(); e != nil {
		q.s.m.refused.WithLabelValues(refusal(e)).Inc()
		newReply(q).fail(e)
	}
}

func refusal(e *exception) string {
	switch e.code {
	case codeTooManyQueries:
		return "too_many"
	case codeAuthenticationError:
		return "authentication"
	case codeAccessDenied, codeReadonly:
		return "denied"
	case codeNoSpace:
		return "no_space"
	case codeTooLarge:
		return "too_large"
	case codeCancelled, codeNetwork:
		return "client_gone"
	default:
		return "bad_request"
	}
}

// run reads, admits and executes the statement. It returns an exception only if nothing was answered and the engine was
// not asked.
func (q *query) run() *exception {
	user, e := q.s.authorise(q.r, q.values)
	if e != nil {
		return e
	}
	if e := q.readParameters(user); e != nil {
		return e
	}
	g := q.s.reading
	if e := g.sit(); e != nil {
		return e
	}
	defer func() { g.rise() }()
	if !q.s.enter(q.id) {
		return exceptionf(codeSameQueryID, "Query with id = %s is already running", q.id)
	}
	defer q.s.leave(q.id)
	if e := q.openBody(); e != nil {
		return e
	}
	st, text, e := q.readStatement()
	if e != nil {
		return e
	}
	if q.values.Has("client_protocol_version") && isHello(string(text)) {
		r := newReply(q)
		r.format = "Native"
		_, _ = r.Write(helloBlock(q.s.name, q.s.core.version, q.s.core.timezone))
		r.finish(stats{resultRows: 1})
		return nil
	}
	if q.values.Get("session_id") != "" && forLater(text) {
		return exceptionf(codeNotImplemented, "The embedded engine keeps no sessions: "+
			"what SET, USE and CREATE TEMPORARY TABLE do ends with their request")
	}
	if q.job.reader && !asks(text) {
		return exceptionf(codeReadonly, "%s: Cannot execute query in readonly mode", Reader)
	}
	if st.kind != stmtInsertData {
		q.bodyRead()
	}
	if e := q.guard(text[:st.end]); e != nil {
		return e
	}
	if st.kind == stmtInsertValues && !suspicious(text) {
		for _, name := range expressions {
			q.job.settings = append(q.job.settings, param{name, "1"})
		}
	}
	right := q.gate(st)
	if e := right.sit(); e != nil {
		return e
	}
	g.rise()
	g = right
	ctx, cancel := q.untilStop()
	defer cancel()
	switch st.kind {
	case stmtSelect:
		ctx := q.r.Context()
		return q.admit(g.slots, func() { q.runSelect(ctx, st, text) })
	case stmtInsertData:
		spool, e := q.spool(text[dataStart(text, st.end):])
		if e != nil {
			return e
		}
		defer func() { _ = spool.Close() }()
		return q.admit(g.slots, func() { q.runInsert(ctx, st, text, spool) })
	case stmtKill:
		q.job.sql = rewriteKill(text[:st.end])
		return q.admit(g.slots, func() { q.runWhole(ctx, st) })
	default:
		q.job.sql = string(text[:st.end])
		return q.admit(g.slots, func() { q.runWhole(ctx, st) })
	}
}

// gate is where a statement belongs.
func (q *query) gate(st statement) *gate {
	switch {
	case st.kind == stmtKill:
		return q.s.kills
	case st.kind == stmtInsertData, st.kind == stmtInsertValues, q.values.Get("priority") == "1":
		return q.s.preferred
	default:
		return q.s.ordinary
	}
}

// untilStop is the context of a statement that goes on without its client: it ends when the server stops.
func (q *query) untilStop() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(q.r.Context()))
	go func() {
		select {
		case <-q.s.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// admit waits for a place, runs f in it and frees it.
func (q *query) admit(slots chan struct{}, f func()) *exception {
	q.s.m.waiting.Inc()
	select {
	case slots <- struct{}{}:
		q.s.m.waiting.Dec()
	case <-q.r.Context().Done():
		q.s.m.waiting.Dec()
		return exceptionf(codeCancelled, "Query was cancelled while it waited")
	}
	defer func() { <-slots }()
	q.s.m.running.Inc()
	defer q.s.m.running.Dec()
	f()
	return nil
}

func (s *server) enter(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[id] {
		return false
	}
	s.running[id] = true
	return true
}

func (s *server) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, id)
}

// ended counts a statement and logs what an operator may want to know.
func (q *query) ended(st statement, begin time.Time, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
		var e *exception
		if errors.As(err, &e) && e.code == codeCancelled {
			outcome = "cancelled"
		}
		q.s.log.Debug("statement failed", "query", q.id, "kind", kindNames[st.kind], "err", err)
	}
	q.s.m.statements.WithLabelValues(kindNames[st.kind], outcome).Inc()
	q.s.m.seconds.WithLabelValues(kindNames[st.kind]).Observe(time.Since(begin).Seconds())
}
