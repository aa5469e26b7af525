package generation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/google/uuid"

	"heliograph/infra/clickhouse"
	"heliograph/infra/history"
	"heliograph/infra/kafka"
	"heliograph/infra/run"
	"heliograph/projector"
	projection "heliograph/projector/history"
	"heliograph/projector/verify"
	chschema "heliograph/schemas/clickhouse"
)

// ClickHouseConfig says where the history is.
type ClickHouseConfig struct {
	ClickHouse clickhouse.Config // its database is that of the live generation
	Logger     *slog.Logger
	// Look: only to list, and to reckon; others may replay meanwhile.
	Look bool

	// For tests.
	step   func(what string) // before each step of a switch
	expiry time.Duration     // of the lock
}

// ClickHouse holds the generations of the history. It has the right to replay them alone, until Close.
type ClickHouse struct {
	cfg      ClickHouseConfig
	live     string // database
	conn     driver.Conn
	history  *history.History
	name     *regexp.Regexp // of a database beside the live one
	unlock   func() error
	lock     uuid.UUID // what identifies the lock that we have
	finished Generation
}

// replayLock is the lock that one replay has.
const replayLock = "replay_lock"

// takeMost is how long the lock of a replay that was killed may still stand.
const takeMost = 25 * time.Second

// OpenClickHouse takes the right to replay the history, or returns a *BusyError. A switch that somebody was killed in
// the middle of is brought to its end, or called off where nothing was exchanged. The caller closes.
func OpenClickHouse(ctx context.Context, cfg ClickHouseConfig) (*ClickHouse, error) {
	run.Default(&cfg.ClickHouse.Database, chschema.Database)
	run.Default(&cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.step == nil {
		cfg.step = func(string) {}
	}
	conn, err := clickhouse.Open(cfg.ClickHouse)
	if err != nil {
		return nil, err
	}
	live := cfg.ClickHouse.Database
	c := &ClickHouse{
		cfg: cfg, live: live, conn: conn, history: history.New(conn),
		name: regexp.MustCompile("^" + regexp.QuoteMeta(live) + "_g[0-9]+$"),
	}
	if cfg.Look {
		return c, nil
	}
	if err := c.begin(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *ClickHouse) begin(ctx context.Context) error {
	tables, err := c.history.Identities(ctx, c.live)
	if err != nil {
		return err
	}
	if len(tables) == 0 {
		return &LiveError{"database " + c.live}
	}
	if err := c.migrate(ctx, c.live); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, takeMost)
	defer cancel()
	c.unlock, err = clickhouse.Lock(waiting, c.conn, c.cfg.ClickHouse, replayLock, c.cfg.expiry)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return &BusyError{c.View(), "it renews table " + replayLock + " of database " + c.live}
	}
	if err != nil {
		return err
	}
	if c.lock, err = c.holds(ctx); err != nil {
		return err
	}
	return c.recover(ctx)
}

// holds identifies the lock that stands.
func (c *ClickHouse) holds(ctx context.Context) (is uuid.UUID, err error) {
	const sql = `SELECT uuid FROM system.tables WHERE database = ? AND name = ?`
	err = c.conn.QueryRow(ctx, sql, c.live, replayLock).Scan(&is)
	if err != nil {
		err = fmt.Errorf("read the lock of the replay: %w", err)
	}
	return is, err
}

// Close gives the right back.
func (c *ClickHouse) Close() {
	if c.unlock != nil {
		if err := c.unlock(); err != nil {
			c.cfg.Logger.Warn("the lock of the replay is left to its age", "err", err)
		}
	}
	_ = c.conn.Close() // nothing is under way on it
}

func (c *ClickHouse) migrate(ctx context.Context, database string) error {
	files, err := fs.Sub(chschema.FS, "history")
	if err != nil {
		return fmt.Errorf("migrations of the history: %w", err)
	}
	_, err = clickhouse.Migrate(ctx, c.config(database), files)
	return err
}

func (c *ClickHouse) config(database string) clickhouse.Config {
	cfg := c.cfg.ClickHouse
	cfg.Database, cfg.Registerer = database, nil
	return cfg
}

// View implements Store.
func (c *ClickHouse) View() string { return "history" }

// Finished implements Store.
func (c *ClickHouse) Finished() Generation { return c.finished }

// at asks the history of a database.
func (c *ClickHouse) at(database string, ask func(driver.Conn, *history.History) error) error {
	conn, err := clickhouse.Open(c.config(database))
	if err != nil {
		return err
	}
	return errors.Join(ask(conn, history.New(conn)), conn.Close())
}

// Generations implements Store.
func (c *ClickHouse) Generations(ctx context.Context) ([]Generation, error) {
	rows, err := c.conn.Query(ctx, `
		SELECT d.name, sum(t.total_bytes), countIf(t.name = 'generation')
		  FROM system.databases AS d LEFT JOIN system.tables AS t ON t.database = d.name
		 WHERE d.name = ? OR startsWith(d.name, concat(?, '_g')) GROUP BY d.name`, c.live, c.live)
	if err != nil {
		return nil, fmt.Errorf("list the generations of the history: %w", err)
	}
	defer func() { _ = rows.Close() }() // its error comes by rows.Err
	var out []Generation
	for rows.Next() {
		var g Generation
		var bytes, told *uint64
		var known uint64
		told = &known
		if err := rows.Scan(&g.Place, &bytes, told); err != nil {
			return nil, fmt.Errorf("list the generations of the history: %w", err)
		}
		if bytes != nil {
			g.Bytes = int64(*bytes)
		}
		if g.Place != c.live && !c.name.MatchString(g.Place) {
			continue
		}
		// without a word a replay was killed before it could say what it makes
		_, _ = fmt.Sscanf(strings.TrimPrefix(g.Place, c.live), "_g%d", &g.Number)
		g.State = Building
		if g.Place == c.live {
			g.Number, g.State = 1, Live
		}
		if known > 0 {
			err := c.at(g.Place, func(_ driver.Conn, h *history.History) error {
				b, err := h.Building(ctx)
				if g.Place == c.live || b.State != history.Live {
					g.Number, g.State, g.Until, g.Since = int(b.Number), b.State, b.Until, b.Since
				}
				return err
			})
			if err != nil {
				return nil, fmt.Errorf("list the generations of the history: %w", err)
			}
		}
		out = append(out, g)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list the generations of the history: %w", err)
	}
	slices.SortFunc(out, func(a, b Generation) int { return cmp.Compare(a.Number, b.Number) })
	return out, nil
}

// Prepare implements Store.
func (c *ClickHouse) Prepare(ctx context.Context, g Generation) (Generation, error) {
	if g.Place == "" {
		g.Place = fmt.Sprintf("%s_g%d", c.live, g.Number)
	}
	if err := c.migrate(ctx, g.Place); err != nil {
		return g, err
	}
	if g.State == Retired {
		return g, nil
	}
	return g, c.mark(ctx, g.Place, g.Number, g.State, g.Until)
}

// mark says which building a database holds.
func (c *ClickHouse) mark(ctx context.Context, database string, number int, state, until string) error {
	err := c.conn.Exec(ctx, `
		INSERT INTO `+table(database, "generation")+` (number, state, until, since, version)
		VALUES (?, ?, ?, now64(3), ?)`,
		uint32(number), state, until, uint64(time.Now().UnixNano()))
	if err != nil {
		return fmt.Errorf("say what database %s holds: %w", database, err)
	}
	return nil
}

// table is a name with its database; neither has anything in it that needs an escape.
func table(database, name string) string { return "`" + database + "`.`" + name + "`" }

// Tune implements Store: an insert costs the engine the same for few rows as for many.
func (c *ClickHouse) Tune(cfg *kafka.ConsumerConfig) {
	cfg.View = "history" // it is in the tokens, which are those of any projector
	cfg.Linger, cfg.LingerBusy = 200*time.Millisecond, 2*time.Second
	cfg.LingerRecords, cfg.MaxRecords, cfg.MaxBytes = 2*fillRecords, 4*fillRecords, 2*fillBytes
	cfg.QueueRecords, cfg.QueueBytes = 2*cfg.MaxRecords, 2*cfg.MaxBytes
}

// Sink implements Store. It writes under the number that the live tables' rows have, since those take their place.
func (c *ClickHouse) Sink(
	ctx context.Context, g Generation, from kafka.ConsumerConfig, log projector.Log,
) (kafka.Sink, func(), error) {
	of, err := c.history.Generation(ctx)
	if err != nil {
		return nil, nil, err
	}
	conn, err := clickhouse.Open(c.config(g.Place))
	if err != nil {
		return nil, nil, err
	}
	have, err := history.New(conn).Generation(ctx)
	if err == nil && have != 0 && have != max(1, of) {
		err = fmt.Errorf("database %s is of --history-generation %d and the live one of %d: a projector of that would "+
			"not go on with it", g.Place, have, of)
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	cfg := projection.Config{Consumer: from, Generation: max(1, of), Beside: true, Log: log}
	sink := projection.NewSink(cfg, conn, c.cfg.Logger, nil)
	return sink, func() { _ = conn.Close() }, nil // nothing is under way on it
}

// Settle implements Store.
func (c *ClickHouse) Settle(context.Context, Generation, kafka.Sink) error { return nil }

// Verify implements Store.
func (c *ClickHouse) Verify(ctx context.Context, g Generation, cfg verify.Config) (r *verify.Report, err error) {
	err = c.at(g.Place, func(conn driver.Conn, _ *history.History) error {
		r, err = verify.History(ctx, cfg, conn)
		return err
	})
	return r, err
}

// Drop implements Store.
func (c *ClickHouse) Drop(ctx context.Context, g Generation) error {
	if g.State == Live || g.Place == c.live {
		return errors.New("the live generation is not dropped")
	}
	if err := c.conn.Exec(ctx, "DROP DATABASE `"+g.Place+"`"); err != nil {
		return fmt.Errorf("drop database %s: %w", g.Place, err)
	}
	return nil
}

const (
	// begunMost is how long the switch waits for the batches that writers were at.
	begunMost = 2 * time.Second
	// behindMost is how long the history's writers are held back while what is built catches up with them.
	behindMost = 5 * time.Second
)

// Switch implements Store: it holds the writers back, lets what is built catch up, exchanges the tables one after the
// other, and lets the writers on.
func (c *ClickHouse) Switch(ctx context.Context, to Generation, stop func()) error {
	live, err := c.history.Building(ctx)
	if err != nil {
		return err
	}
	was, err := c.history.Identities(ctx, c.live)
	if err != nil {
		return err
	}
	becomes, err := c.history.Identities(ctx, to.Place)
	if err != nil {
		return err
	}
	sw := history.Switching{Open: true, Beside: to.Place, Number: uint32(to.Number), Leaves: live.Number}
	for _, name := range inOrder(was) {
		if is, ok := becomes[name]; ok {
			sw.Tables = append(sw.Tables, name)
			sw.Was, sw.Becomes = append(sw.Was, was[name]), append(sw.Becomes, is)
		}
	}
	c.cfg.step("seal")
	if err := c.seal(ctx, sw); err != nil {
		return err
	}
	err = c.halt(ctx, to)
	if err != nil {
		sw.Open = false
		return errors.Join(err, c.seal(context.WithoutCancel(ctx), sw))
	}
	stop()
	// From here on it goes on to its end, here or by the next who opens the history.
	return c.exchange(context.WithoutCancel(ctx), sw)
}

// stays are the tables that are not exchanged.
var stays = []string{"schema_migrations", "switching"}

// inOrder are the tables that are exchanged: first those of which others say how far they are.
func inOrder(tables map[string]uuid.UUID) []string {
	last := []string{"positions", "owners", "generation"}
	names := slices.SortedFunc(maps.Keys(tables), func(a, b string) int {
		return cmp.Or(cmp.Compare(slices.Index(last, a), slices.Index(last, b)), cmp.Compare(a, b))
	})
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(stays, n) })
}

// seal says that a switch is under way, or not any more.
func (c *ClickHouse) seal(ctx context.Context, sw history.Switching) error {
	err := c.conn.Exec(ctx, `
		INSERT INTO switching (open, beside, number, leaves, tables, was, becomes, version)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		sw.Open, sw.Beside, sw.Number, sw.Leaves, sw.Tables, sw.Was, sw.Becomes, uint64(time.Now().UnixNano()))
	if err != nil {
		return fmt.Errorf("say that the history is switched: %w", err)
	}
	return nil
}

// halt takes the slots from their writers, and waits until what they were at is done and the other database has it.
func (c *ClickHouse) halt(ctx context.Context, to Generation) error {
	c.cfg.step("halt")
	want, err := c.takeAll(ctx)
	if err != nil {
		return err
	}
	return c.at(to.Place, func(_ driver.Conn, h *history.History) error {
		for deadline := time.Now().Add(behindMost); ; {
			have, err := h.Ends(ctx)
			if err != nil {
				return err
			}
			behind := 0
			for _, w := range want {
				if !slices.ContainsFunc(have, func(e history.End) bool {
					return e.Topic == w.Topic && e.Slot == w.Slot && e.Done >= w.Begun
				}) {
					behind++
				}
			}
			if behind == 0 {
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%w: in %d partitions of topics", ErrBehind, behind)
			}
			if !run.Sleep(ctx, 20*time.Millisecond) {
				return ctx.Err()
			}
		}
	})
}

// takeAll takes the slots from their writers, waits until what they were at is done, and returns how far they got.
func (c *ClickHouse) takeAll(ctx context.Context) ([]history.End, error) {
	if err := projection.TakeAll(ctx, c.conn); err != nil {
		return nil, fmt.Errorf("take the slots from the history's projectors: %w", err)
	}
	for deadline := time.Now().Add(begunMost); ; {
		ends, err := c.history.Ends(ctx)
		if err != nil {
			return nil, err
		}
		under := slices.ContainsFunc(ends, func(e history.End) bool { return e.Begun > e.Done })
		if !under || time.Now().After(deadline) { // one that was cut off is never done: the log has it
			return ends, nil
		}
		if !run.Sleep(ctx, 20*time.Millisecond) {
			return nil, ctx.Err()
		}
	}
}

// exchange brings a switch to its end, from wherever it is.
func (c *ClickHouse) exchange(ctx context.Context, sw history.Switching) error {
	for i, name := range sw.Tables {
		c.cfg.step("exchange " + name)
		now, err := c.history.Identities(ctx, c.live)
		if err != nil {
			return err
		}
		switch now[name] {
		case sw.Becomes[i]:
			continue
		case sw.Was[i]:
		default:
			return fmt.Errorf("switch the history: table %s of database %s is neither the one that was nor the one "+
				"that comes", name, c.live)
		}
		// An exchange that is made twice is none: whoever was held up for so long that another has gone on stops here.
		if is, err := c.holds(ctx); err != nil || is != c.lock {
			return errors.Join(errors.New("switch the history: another replay has taken over"), err)
		}
		err = c.conn.Exec(ctx, "EXCHANGE TABLES "+table(c.live, name)+" AND "+table(sw.Beside, name))
		if err != nil {
			return fmt.Errorf("switch the history: exchange table %s: %w", name, err)
		}
	}
	c.cfg.step("mark")
	if err := c.mark(ctx, sw.Beside, int(sw.Leaves), Retired, ""); err != nil {
		return err
	}
	if err := c.mark(ctx, c.live, int(sw.Number), Live, ""); err != nil {
		return err
	}
	c.cfg.step("unseal")
	sw.Open = false
	return c.seal(ctx, sw)
}

// recover deals with a switch that somebody was killed in the middle of.
func (c *ClickHouse) recover(ctx context.Context) error {
	sw, err := c.history.Switching(ctx)
	if err != nil || !sw.Open {
		return err
	}
	now, err := c.history.Identities(ctx, c.live)
	if err != nil {
		return err
	}
	begun := false
	for i, name := range sw.Tables {
		begun = begun || now[name] == sw.Becomes[i]
	}
	if !begun {
		c.cfg.Logger.Info("a switch of the history was cut off before it exchanged anything: it is called off",
			"generation", sw.Number)
		sw.Open = false
		return c.seal(ctx, sw)
	}
	c.cfg.Logger.Info("a switch of the history was cut off: it goes on", "generation", sw.Number)
	if err := c.exchange(ctx, sw); err != nil {
		return err
	}
	all, err := c.Generations(ctx)
	for _, g := range all {
		if g.State == Live {
			c.finished = g
		}
	}
	return err
}
