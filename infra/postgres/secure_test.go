package postgres

import (
	"os"
	"strings"
	"testing"
	"time"

	"heliograph/infra/embedded/certtest"
	"heliograph/infra/embedded/enginetest"
)

// The TLS settings of a URL let in where the server is the right one and the password is too, and tell the others why
// not.
func TestSecure(t *testing.T) {
	const password = "heliotrope"
	ca, other := certtest.New(t, "the database's authority"), certtest.New(t, "another authority")
	base := enginetest.SecurePostgres(t, ca.Server(t, "127.0.0.1"), password)
	full, theirs := base+"?sslmode=verify-full&sslrootcert="+ca.File, "&sslrootcert="+other.File
	elsewhere := strings.Replace(
		enginetest.SecurePostgres(t, ca.Server(t, "127.0.0.1"), password), password, "wrong", 1,
	)
	hosts := strings.Replace(base, "127.0.0.1:", "127.0.0.1:1,127.0.0.1:", 1)
	for _, c := range []struct{ name, url, want string }{
		{"wrong authority", base + "?sslmode=verify-full" + theirs, "certificate signed by unknown authority"},
		{"wrong authority, any name", base + "?sslmode=verify-ca" + theirs, "certificate signed by unknown authority"},
		{"the system's authorities", base + "?sslmode=verify-full", "certificate signed by unknown authority"},
		{"wrong password", elsewhere + "?sslmode=verify-full&sslrootcert=" + ca.File, "28P01"},
		{"wrong password without TLS", elsewhere + "?sslmode=disable", "28P01"},
		{"several hosts", hosts + "?sslmode=verify-full" + theirs, "unknown authority"},
		{"another name", strings.Replace(full, "127.0.0.1", "localhost", 1), "wanted to match localhost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Migrate(t.Context(), c.url, migrations(1), "views")
			if !Refused(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Migrate = %v (refused %v), want a refusal that tells of %q", err, Refused(err), c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), password)) {
				t.Errorf("not one line, or with the password: %q", err)
			}
		})
	}

	// channel_binding=require wants SCRAM-SHA-256 bound to this very TLS connection: nothing in between could have
	// passed the password on.
	full += "&channel_binding=require"
	if v, err := Migrate(t.Context(), full, migrations(2), "views"); err != nil || v != 2 {
		t.Fatalf("Migrate = %d, %v", v, err)
	}
	pool, err := Open(t.Context(), Config{
		URL: full, Params: map[string]string{"search_path": "views"}, connectTimeout: 20 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), "INSERT INTO t2 VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	var encrypted bool
	var rows int
	if err := pool.QueryRow(t.Context(), `
		SELECT ssl, (SELECT count(*) FROM t2)
		FROM pg_stat_ssl WHERE pid = pg_backend_pid()`).Scan(&encrypted, &rows); err != nil {
		t.Fatal(err)
	}
	if !encrypted || rows != 1 {
		t.Errorf("encrypted %v, %d rows", encrypted, rows)
	}
}

// A TLS file that cannot be used is told by its name; the password is not.
func TestUnusableFiles(t *testing.T) {
	empty := t.TempDir() + "/empty.pem"
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, query, want string }{
		{"missing", "sslmode=verify-full&sslrootcert=/nonexistent/ca.pem", "/nonexistent/ca.pem"},
		{"empty", "sslmode=verify-full&sslrootcert=" + empty, "empty.pem"},
		{"missing key", "sslmode=require&sslcert=" + empty + "&sslkey=/nonexistent/key.pem", "/nonexistent/key.pem"},
		{"no mode", "sslmode=verify", "cannot be parsed"},
	} {
		url := "postgres://u:hunter2@127.0.0.1/d?" + c.query
		_, merr := Migrate(t.Context(), url, migrations(1), "views")
		for _, err := range []error{merr, Config{URL: url}.Validate()} {
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") ||
				Transient(err) {
				t.Errorf("%s: %v, want word of %s", c.name, err, c.want)
			}
		}
	}
}
