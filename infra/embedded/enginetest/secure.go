package enginetest

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kfake"

	"heliograph/infra/embedded"
	"heliograph/infra/embedded/certtest"
)

// SecureKafka starts a log of the test's own, in this process and without data on disk, that wants TLS and a SASL user,
// under any of the mechanisms. It returns the address of its broker and ends with the test.
func SecureKafka(tb testing.TB, server certtest.Pair, user, password string) string {
	tb.Helper()
	fake, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.GroupMinSessionTimeout(time.Second),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{server.Certificate}}),
		kfake.EnableSASL(),
		kfake.Superuser("PLAIN", user, password),
		kfake.Superuser("SCRAM-SHA-256", user, password),
		kfake.Superuser("SCRAM-SHA-512", user, password),
	)
	if err != nil {
		tb.Fatalf("start secure log: %v", err)
	}
	tb.Cleanup(fake.Close)
	return fake.ListenAddrs()[0]
}

// SecurePostgres turns TLS on in the shared PostgreSQL and makes an empty database with an owner who has this password.
// It returns the connection URL without TLS settings. The server shows the certificate of the latest call; other tests
// go on without TLS.
func SecurePostgres(tb testing.TB, server certtest.Pair, password string) string {
	tb.Helper()
	admin := get(tb, embedded.Postgres).PostgresURL
	name := "u_" + unique()
	run := func(sql string) {
		tb.Helper()
		if err := execute(admin, sql); err != nil {
			tb.Fatalf("secure Postgres: %s: %v", sql, err)
		}
	}
	if err := execute(admin, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", name, password)); err != nil {
		tb.Fatalf("secure Postgres: make role: %v", err)
	}
	tb.Cleanup(func() {
		if err := execute(admin, "DROP ROLE "+name); err != nil {
			tb.Logf("drop role %s: %v", name, err)
		}
	})
	u, err := url.Parse(NewDatabase(tb))
	if err != nil {
		tb.Fatalf("secure Postgres: %v", err)
	}
	run("ALTER DATABASE " + filepath.Base(u.Path) + " OWNER TO " + name)
	cert, key, err := intoData(admin, server)
	if err != nil {
		tb.Fatalf("secure Postgres: %v", err)
	}
	for setting, value := range map[string]string{"ssl_cert_file": cert, "ssl_key_file": key, "ssl": "on"} {
		run(fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", setting, value))
	}
	run("SELECT pg_reload_conf()")
	u.User, u.RawQuery = url.UserPassword(name, password), ""
	if err := shows(u.String(), server); err != nil {
		tb.Fatalf("secure Postgres: %v", err)
	}
	return u.String()
}

// intoData copies a certificate and its key to where the server's user, and nobody else, can read them.
func intoData(admin string, pair certtest.Pair) (cert, key string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), dropWait)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", "", err
	}
	defer func() { _ = conn.Close(ctx) }() // it has only read
	var data string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&data); err != nil {
		return "", "", err
	}
	info, err := os.Stat(data)
	if err != nil {
		return "", "", err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", "", fmt.Errorf("%s has no owner", data)
	}
	stem := "tls-" + unique()
	for from, to := range map[string]string{pair.CertFile: stem + ".crt", pair.KeyFile: stem + ".key"} {
		b, err := os.ReadFile(from)
		if err != nil {
			return "", "", err
		}
		to = filepath.Join(data, to)
		if err := os.WriteFile(to, b, 0o600); err != nil {
			return "", "", err
		}
		if err := os.Chown(to, int(owner.Uid), int(owner.Gid)); err != nil {
			return "", "", err
		}
	}
	return stem + ".crt", stem + ".key", nil
}

// shows waits until the server, which reads its settings again in its own time, shows this certificate.
func shows(dsn string, want certtest.Pair) error {
	ctx, cancel := context.WithTimeout(context.Background(), dropWait)
	defer cancel()
	cfg, err := pgx.ParseConfig(dsn + "?sslmode=require")
	if err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		var got []byte
		cfg.TLSConfig.VerifyConnection = func(s tls.ConnectionState) error {
			got = s.PeerCertificates[0].Raw
			return nil
		}
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			err = conn.Close(ctx)
		}
		if err == nil && string(got) == string(want.Certificate.Certificate[0]) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the server does not speak TLS with the certificate that it was given: %w", err)
		}
	}
}

// SecureClickHouse puts a front with TLS before the shared ClickHouse, which lets one user in, and makes an empty
// database. It returns the front's address and the database's name.
func SecureClickHouse(tb testing.TB, server certtest.Pair, user, password string) (addr, database string) {
	tb.Helper()
	behind, own, database := NewClickHouseDatabase(tb)
	transport := &http.Transport{}
	silent := log.New(io.Discard, "", 0) // clients that go, or that refuse the certificate, are what tests want
	proxy := &httputil.ReverseProxy{
		Transport: transport, ErrorLog: silent,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: behind})
			for _, h := range []string{"X-ClickHouse-User", "X-ClickHouse-Key", "X-ClickHouse-SSL-Certificate-Auth"} {
				r.Out.Header.Del(h)
			}
			r.Out.Header.Set("X-ClickHouse-Key", own.Reveal())
		},
	}
	same := func(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
	front := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !same(r.Header.Get("X-ClickHouse-User"), user) || !same(r.Header.Get("X-ClickHouse-Key"), password) {
			// As a server answers: it says the same for an unknown user and for a wrong password.
			w.Header().Set("X-ClickHouse-Exception-Code", "516")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "Code: 516. DB::Exception: Authentication failed: password is incorrect, "+
				"or there is no user with such name. (AUTHENTICATION_FAILED)")
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	front.TLS = &tls.Config{Certificates: []tls.Certificate{server.Certificate}}
	front.Config.ErrorLog = silent
	front.StartTLS()
	tb.Cleanup(func() {
		front.Close()
		transport.CloseIdleConnections()
	})
	return front.Listener.Addr().String(), database
}
