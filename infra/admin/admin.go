// Package admin is the admin server of a process: liveness, readiness per dependency and metrics over HTTP, and
// profiles at an address of their own.
//
// Promise: /livez answers 200 while the process can answer at all. /readyz runs every check, at the same time, each
// under 2 s, and answers 200 only when all succeed; its JSON names each with its error and how long it took.
// The checks are run every 10 s also when nobody asks, so that helio_admin_dependency_up is of now.
// /readyz?of=a&of=b is judged by those checks alone, for a balancer that must not take a process out of service for a
// dependency which its users can do without for a while; a check that is not there fails. /metrics is the usual one.
// /debug/pprof is served only where Config.Profiles names an address, and only there: whoever scrapes metrics can
// neither read the memory of the process nor slow it down.
//
// Order, durability: none.
//
// When slow: a check that hangs counts as failed after 2 s. At most one readiness run is under way; others
// asked meanwhile get its result.
//
// When draining: SetDraining makes /readyz fail at once, so that a balancer looks elsewhere while the rest goes on.
//
// Non-obvious:
//   - The listener is bound by Listen, before Run, so that the bound address is known and a port in use is told early.
//   - It has no authentication: bind it to loopback or to a private network.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"heliograph/infra/run"
)

// Config says where the server listens. Zero means default.
type Config struct {
	Addr     string // default "127.0.0.1:0"
	Flag     string // the flag that sets Addr, for error messages; default "--admin-addr"
	Profiles string // address of /debug/pprof, which --pprof sets; default none: it is not served

	Logger     *slog.Logger
	Registerer prometheus.Registerer // for the server's own metrics; nil registers nothing
	Gatherer   prometheus.Gatherer   // what /metrics shows; nil is prometheus.DefaultGatherer

	checkTimeout time.Duration // of a readiness check, for tests; default 2 s
	checkEvery   time.Duration // how often the checks are run when nobody asks, for tests; default 10 s
}

// Validate reports every fault at once.
func (c Config) Validate() error {
	if c.Addr != "" {
		if _, _, err := net.SplitHostPort(c.Addr); err != nil {
			return fmt.Errorf("admin: address %q is not host:port", c.Addr)
		}
	}
	if c.Profiles != "" {
		if _, _, err := net.SplitHostPort(c.Profiles); err != nil {
			return fmt.Errorf("admin: address of profiles %q is not host:port", c.Profiles)
		}
	}
	return nil
}

func (c Config) withDefaults() Config {
	run.Default(&c.Addr, "127.0.0.1:0")
	run.Default(&c.Flag, "--admin-addr")
	run.Default(&c.checkTimeout, 2*time.Second)
	run.Default(&c.checkEvery, 10*time.Second)
	run.Default(&c.Gatherer, prometheus.DefaultGatherer)
	run.Default(&c.Logger, slog.New(slog.DiscardHandler))
	return c
}

// Check asks a dependency whether it works; it must honour ctx.
type Check func(ctx context.Context) error

// Server is the admin server. Its methods may be called from any goroutine.
type Server struct {
	// Fixed after New.
	cfg     Config
	log     *slog.Logger
	metrics metrics

	mu       sync.Mutex // guards what follows
	listener net.Listener
	profiles net.Listener // nil: none
	checks   map[string]Check
	draining bool
	running  *readiness // the run under way, or nil
}

// Status is the answer of /readyz.
type Status struct {
	Ready    bool                  `json:"ready"`
	Draining bool                  `json:"draining,omitempty"`
	Checks   map[string]Dependency `json:"checks"`
}

// Dependency is one check's result.
type Dependency struct {
	OK      bool    `json:"ok"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
}

type readiness struct {
	done   chan struct{}
	status Status // to be read after done
}

// New returns a server that is neither bound nor served.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Server{
		cfg: cfg, log: cfg.Logger, metrics: newMetrics(cfg.Registerer), checks: make(map[string]Check),
	}, nil
}

// Check adds a dependency to /readyz, or replaces the one of that name.
func (s *Server) Check(name string, c Check) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks[name] = c
}

// SetDraining makes /readyz fail from now on.
func (s *Server) SetDraining() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
}

// Listen binds the addresses and returns that of health and metrics, with the port that the system chose. It is called
// once, before Run.
func (s *Server) Listen() (string, error) {
	l, err := bind(s.cfg.Addr, s.cfg.Flag)
	if err != nil {
		return "", err
	}
	var profiles net.Listener
	if s.cfg.Profiles != "" {
		if profiles, err = bind(s.cfg.Profiles, "--pprof"); err != nil {
			return "", errors.Join(err, l.Close())
		}
	}
	s.mu.Lock()
	s.listener, s.profiles = l, profiles
	s.mu.Unlock()
	return l.Addr().String(), nil
}

func bind(addr, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("admin: %s is in use: choose another address with %s, or port 0 for any", addr, flag)
	case err != nil:
		return nil, fmt.Errorf("admin: listen on %s (%s): %w", addr, flag, err)
	}
	return l, nil
}

// Profiles is the bound address of /debug/pprof; empty where it is not served.
func (s *Server) Profiles() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.profiles == nil {
		return ""
	}
	return s.profiles.Addr().String()
}

// Close gives up addresses that were bound but will not be served.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, l := range []net.Listener{s.listener, s.profiles} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// Handler returns the routes, for a process that serves them elsewhere.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{}))
	return mux
}

func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// Run serves until ctx is cancelled; it binds the addresses first when Listen was not called.
func (s *Server) Run(ctx context.Context) error {
	s.mu.Lock()
	bound := s.listener != nil
	s.mu.Unlock()
	if !bound {
		if _, err := s.Listen(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	routes := map[net.Listener]http.Handler{s.listener: s.Handler()}
	if s.profiles != nil {
		routes[s.profiles] = profiles()
	}
	s.mu.Unlock()
	var servers []*http.Server
	served := make(chan error, len(routes))
	for l, h := range routes {
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)}
		servers = append(servers, srv)
		go func() { served <- srv.Serve(l) }()
	}
	looking, stopLooking := context.WithCancel(ctx)
	looked := make(chan struct{})
	go func() { defer close(looked); s.look(looking) }()
	defer func() { stopLooking(); <-looked }()
	left := len(servers)
	var failed error
	select {
	case err := <-served:
		left--
		failed = fmt.Errorf("admin: serve: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for _, srv := range servers {
		if err := srv.Shutdown(stop); err != nil {
			_ = srv.Close() // a profile that is still being taken is cut off
		}
	}
	for range left {
		<-served //nolint:errcheck // http.ErrServerClosed, as asked
	}
	return failed
}

// look runs the checks again and again, for the metrics.
func (s *Server) look(ctx context.Context) {
	t := time.NewTicker(s.cfg.checkEvery)
	defer t.Stop()
	for {
		if _, err := s.Ready(ctx); err != nil {
			return // ctx has ended
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	st, err := s.Ready(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if of := r.URL.Query()["of"]; len(of) > 0 {
		st = st.of(of)
	}
	w.Header().Set("Content-Type", "application/json")
	if !st.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(st) // the asker has gone: nobody to tell
}

// of is the status as far as some checks tell it.
func (st Status) of(names []string) Status {
	out := Status{Ready: !st.Draining, Draining: st.Draining, Checks: make(map[string]Dependency, len(names))}
	for _, n := range names {
		d, found := st.Checks[n]
		if !found {
			d = Dependency{Error: "there is no such check yet"}
		}
		out.Checks[n] = d
		out.Ready = out.Ready && d.OK
	}
	return out
}

// Ready runs the checks, or joins the run that is under way, and returns their results.
func (s *Server) Ready(ctx context.Context) (Status, error) {
	s.mu.Lock()
	r := s.running
	if r == nil {
		r = &readiness{done: make(chan struct{})}
		s.running = r
		checks := make(map[string]Check, len(s.checks))
		for n, c := range s.checks {
			checks[n] = c
		}
		draining := s.draining
		go s.check(context.WithoutCancel(ctx), r, checks, draining)
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.status, nil
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
}

func (s *Server) check(ctx context.Context, r *readiness, checks map[string]Check, draining bool) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.checkTimeout)
	defer cancel()
	names := make([]string, 0, len(checks))
	for n := range checks {
		names = append(names, n)
	}
	sort.Strings(names)
	type result struct {
		name string
		dep  Dependency
	}
	results := make(chan result, len(names))
	for _, n := range names {
		go func() {
			begin := time.Now()
			err := checks[n](ctx)
			d := Dependency{OK: err == nil, Seconds: time.Since(begin).Seconds()}
			if err != nil {
				d.Error = err.Error()
			}
			results <- result{n, d}
		}()
	}
	r.status = Status{Ready: !draining, Draining: draining, Checks: make(map[string]Dependency, len(names))}
	for _, n := range names {
		r.status.Checks[n] = Dependency{
			Error:   "no answer within " + s.cfg.checkTimeout.String(),
			Seconds: s.cfg.checkTimeout.Seconds(),
		}
	}
collect:
	for range names {
		select {
		case got := <-results:
			r.status.Checks[got.name] = got.dep
		case <-ctx.Done():
			// A check that honours ctx returns now; one that does not is reported as it stands.
			grace := time.NewTimer(50 * time.Millisecond)
			select {
			case got := <-results:
				r.status.Checks[got.name] = got.dep
				grace.Stop()
			case <-grace.C:
				break collect
			}
		}
	}
	for n, d := range r.status.Checks {
		up := 0.0
		if d.OK {
			up = 1
		} else {
			r.status.Ready = false
		}
		s.metrics.up.WithLabelValues(n).Set(up)
	}
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	close(r.done)
}
