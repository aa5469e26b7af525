package operator_test

import (
	"io/fs"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/jackc/pgx/v5/pgxpool"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/history"
	"heliograph/infra/postgres"
	"heliograph/infra/run"
	"heliograph/infra/views"
	chschema "heliograph/schemas/clickhouse"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
	"heliograph/tools/operator"
)

// stores are both views, empty, as a test writes them.
type stores struct {
	url, addr, database string
	password            run.Secret
	pool                *pgxpool.Pool
	conn                driver.Conn
}

func newStores(t *testing.T) *stores {
	t.Helper()
	s := &stores{url: enginetest.NewDatabase(t)}
	files, err := fs.Sub(pgschema.FS, "views")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Migrate(t.Context(), s.url, files, pgschema.ViewsSchema); err != nil {
		t.Fatal(err)
	}
	if s.pool, err = postgres.Open(t.Context(), s.postgres(s.url)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.Close)
	s.addr, s.password, s.database = enginetest.NewClickHouseDatabase(t)
	if files, err = fs.Sub(chschema.FS, "history"); err != nil {
		t.Fatal(err)
	}
	if _, err := clickhouse.Migrate(t.Context(), s.clickhouse(s.addr), files); err != nil {
		t.Fatal(err)
	}
	if s.conn, err = clickhouse.Open(s.clickhouse(s.addr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() }) // read and written by this test alone
	return s
}

func (s *stores) postgres(url string) postgres.Config {
	return postgres.Config{URL: url, Params: map[string]string{"search_path": pgschema.ViewsSchema}}
}

func (s *stores) clickhouse(addr string) clickhouse.Config {
	return clickhouse.Config{Addr: []string{addr}, Database: s.database, Password: s.password}
}

// open opens the views, or stores that are not there.
func (s *stores) open(t *testing.T, url, addr string) *operator.Views {
	t.Helper()
	v, err := operator.OpenViews(t.Context(), s.postgres(url), s.clickhouse(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// TestBehind: a view is behind while it lacks anything of a topic that it is folded from; a store that does not answer
// is not behind, it is an error.
func TestBehind(t *testing.T) {
	s := newStores(t)
	v := operator.NewViews(views.New(s.pool), history.New(s.conn))
	ends := operator.Ends{
		topic.Threads: {0: 0, 1: 7}, topic.Receipts: {1: 5}, topic.Users: {0: 3}, topic.Quarantine: {0: 9},
	}
	said := func(want string) {
		t.Helper()
		if got, err := v.Behind(t.Context(), ends); err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	took := func(store string, tp topic.Topic, slot topic.Slot, next topic.Position) {
		t.Helper()
		var err error
		if store == "Postgres" {
			_, err = s.pool.Exec(t.Context(), `
				INSERT INTO positions (topic, slot, next) VALUES ($1, $2, $3)
				ON CONFLICT (topic, slot) DO UPDATE SET next = excluded.next`,
				int16(tp.Number()), int32(slot), int64(next))
		} else {
			err = s.conn.Exec(t.Context(), `
				INSERT INTO positions (topic, slot, from_position, next, state)
				VALUES (?, ?, 0, ?, 'done')`, tp.Number(), int32(slot), int64(next))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	said("Postgres has helio.threads of slot 1 up to 0 of 7")
	took("Postgres", topic.Threads, 1, 6)
	said("Postgres has helio.threads of slot 1 up to 6 of 7")
	took("Postgres", topic.Threads, 1, 7)
	said("Postgres has helio.receipts of slot 1 up to 0 of 5")
	took("Postgres", topic.Receipts, 1, 5)
	said("Postgres has helio.users of slot 0 up to 0 of 3")
	took("Postgres", topic.Users, 0, 4)
	said("ClickHouse has helio.threads of slot 1 up to 0 of 7")
	took("ClickHouse", topic.Threads, 1, 7)
	took("ClickHouse", topic.Receipts, 1, 4)
	said("ClickHouse has helio.receipts of slot 1 up to 4 of 5")
	took("ClickHouse", topic.Receipts, 1, 8)
	said("")
	if s, err := s.open(t, s.url, "127.0.0.1:1").Behind(t.Context(), ends); err == nil {
		t.Errorf("without ClickHouse: %q", s)
	}
}
