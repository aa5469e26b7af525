package clickhouse

import (
	"errors"
	"strings"
	"testing"

	"heliograph/infra/embedded/certtest"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/run"
)

const (
	secureUser     = "helio"
	securePassword = run.Secret("heliotrope")
)

// Over either protocol with TLS, the settings let in where the server is the right one and the password is too, and
// tell the others why not.
func TestSecure(t *testing.T) {
	ca := certtest.New(t, "the history's authority")
	server := ca.Server(t, "127.0.0.1")
	t.Run("http", func(t *testing.T) {
		addr, database := enginetest.SecureClickHouse(t, server, secureUser, securePassword.Reveal())
		testSecure(t, ca, Config{Addr: []string{addr}, Database: database, Protocol: HTTP})
	})
	t.Run("native", func(t *testing.T) {
		addr, database := enginetest.NativeClickHouse(t, &server, secureUser, securePassword.Reveal())
		testSecure(t, ca, Config{Addr: []string{addr}, Database: database, Protocol: Native})
	})
}

func testSecure(t *testing.T, ca *certtest.Authority, base Config) {
	other := certtest.New(t, "another authority")
	config := func(change func(*Config)) Config {
		c := base
		c.User, c.Password, c.TLS = secureUser, securePassword, run.ClientTLS{Enable: true, CAFile: ca.File}
		change(&c)
		return c
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"wrong authority", func(c *Config) { c.TLS.CAFile = other.File }, "certificate signed by unknown authority"},
		{"the system's authorities", func(c *Config) { c.TLS.CAFile = "" }, "certificate signed by unknown authority"},
		{"another name", func(c *Config) { c.TLS.ServerName = "history.example" }, "history.example"},
		{"wrong password", func(c *Config) { c.Password = "wrong" }, "Authentication failed"},
		{"another user", func(c *Config) { c.User = "default" }, "Authentication failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Migrate(t.Context(), config(c.change), migrations(1, ""))
			if !Refused(err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Migrate = %v (refused %v), want a refusal that tells of %q", err, Refused(err), c.want)
			}
			if err != nil &&
				(strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), securePassword.Reveal())) {
				t.Errorf("not one line, or with the password: %q", err)
			}
		})
	}

	unreadable := config(func(c *Config) { c.TLS.CAFile = "/nonexistent/ca.pem" })
	if _, err := Migrate(t.Context(), unreadable, migrations(1, "")); err == nil ||
		Transient(err) {
		t.Errorf("a missing file of an authority: %v (transient %v)", err, Transient(err))
	}

	c := config(func(*Config) {})
	if v, err := Migrate(t.Context(), c, migrations(2, "")); err != nil || v != 2 {
		t.Fatalf("Migrate = %d, %v", v, err)
	}
	if _, err := Migrate(t.Context(), c, migrations(2, "edited")); !errors.Is(err, ErrEdited) || Refused(err) {
		t.Errorf("an edited migration: %v (refused %v)", err, Refused(err))
	}
	conn, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	batch, err := conn.PrepareBatch(t.Context(), "INSERT INTO a1 (x)")
	if err != nil {
		t.Fatal(err)
	}
	const rows = 1000
	for i := range int64(rows) {
		if err := batch.Append(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
	var n uint64
	var sum int64
	err = conn.QueryRow(t.Context(), "SELECT count(), sum(x) FROM a1 WHERE x < ?", rows).Scan(&n, &sum)
	if err != nil {
		t.Fatal(err)
	}
	if n != rows+1 || sum != rows*(rows-1)/2+1 { // with the migration's own row
		t.Errorf("%d rows, sum %d", n, sum)
	}
	if err := conn.Exec(t.Context(), "SELECT * FROM nothing_of_that_name"); err == nil || Transient(err) ||
		Refused(err) {
		t.Errorf("a missing table: %v (transient %v, refused %v)", err, Transient(err), Refused(err))
	}
}
