package chdb

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"heliograph/infra/embedded/engine"
)

// dataVersion is the version of the data directory's layout.
const dataVersion = 1

// killEvery is how often a statement that must end is killed again, until it has ended: it may not have been entered in
// the engine's process list yet.
const killEvery = 50 * time.Millisecond

// core is the booted engine.
type core struct {
	// fixed after boot
	lib      *library
	args     []string
	keeper   *conn // keeps the engine up; runs nothing after boot
	memory   int64 // of the engine, in bytes
	version  string
	timezone string
	spoolDir string
}

// boot loads the library and starts the engine on dir.
func boot(cfg Config, dir string) (*core, error) {
	conf, err := writeConfig(cfg, dir)
	if err != nil {
		return nil, engine.DiskError(engine.ClickHouse, dir, err)
	}
	spool := filepath.Join(dir, "spool")
	if err := os.RemoveAll(spool); err != nil {
		return nil, engine.DiskError(engine.ClickHouse, spool, err)
	}
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, engine.DiskError(engine.ClickHouse, spool, err)
	}
	lib, err := load(cfg.LibraryPath)
	if err != nil {
		return nil, err
	}
	c := &core{
		lib:      lib,
		args:     []string{"--path=" + filepath.Join(dir, "store"), "--config-file=" + conf},
		spoolDir: spool,
		memory:   cfg.MaxMemory,
	}
	c.keeper, err = lib.open(c.args)
	if err != nil {
		return nil, &engine.Error{
			Engine: engine.ClickHouse, Fault: engine.Failed, Reason: "the engine did not start on " + dir, Err: err,
			Mend: "see its words above, or choose another place with --data DIR",
		}
	}
	row, err := c.keeper.exec("SELECT version(), timezone() FORMAT TSV", "TSV", nil)
	if err != nil {
		return nil, fmt.Errorf("ask the engine for its version: %w", err)
	}
	c.version, c.timezone, _ = strings.Cut(strings.TrimSpace(row.text()), "\t")
	row.free()
	if err := c.checkEngineVersion(dir); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// checkEngineVersion refuses data that a newer engine has written, and notes this engine's version.
func (c *core) checkEngineVersion(dir string) error {
	name := filepath.Join(dir, "engine-version")
	old, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return engine.DiskError(engine.ClickHouse, dir, err)
	}
	if had := strings.TrimSpace(string(old)); newer(had, c.version) {
		return &engine.Error{
			Engine: engine.ClickHouse, Fault: engine.WrongVersion,
			Reason: fmt.Sprintf("%s was written by engine %s, newer than %s", dir, had, c.version),
			Mend:   "run 'make engines', or choose another place with --data DIR",
		}
	}
	if strings.TrimSpace(string(old)) == c.version {
		return nil
	}
	if err := os.WriteFile(name, []byte(c.version+"\n"), 0o600); err != nil {
		return engine.DiskError(engine.ClickHouse, dir, err)
	}
	return nil
}

// newer reports whether version a is of a later release (year and month) than b.
func newer(a, b string) bool {
	var am, an, bm, bn int
	if n, _ := fmt.Sscanf(a, "%d.%d", &am, &an); n != 2 {
		return false
	}
	if n, _ := fmt.Sscanf(b, "%d.%d", &bm, &bn); n != 2 {
		return false
	}
	return am > bm || am == bm && an > bn
}

// close shuts the engine down. No statement may be running.
func (c *core) close() { c.keeper.close() }

// job is one statement with everything that it runs under.
type job struct {
	sql      string
	format   string // of the result, if the statement names none
	params   []param
	settings []param
	database string
	queryID  string
	comment  string // the client's own log_comment
	readonly bool
	reader   bool // of the account Reader
}

// answer is the result of a job, with the connection that it came from, which was the job's own.
type answer struct {
	*result
	conn *conn
}

func (a *answer) free() {
	a.result.free()
	a.conn.close()
}

// do runs a job. When ctx ends, the statement is killed and do returns soon after.
func (c *core) do(ctx context.Context, j job) (*answer, error) {
	if ctx.Err() != nil {
		return nil, exceptionf(codeCancelled, "Query was cancelled")
	}
	cn, err := c.lib.open(c.args)
	if err != nil {
		return nil, &exception{code: codeAborted, text: "no connection to the engine: " + err.Error()}
	}
	var prepare []string
	if j.database != "" {
		prepare = append(prepare, "USE "+quoteName(j.database))
	}
	if j.reader {
		prepare = append(prepare, readerStatements(c.memory)...)
	}
	prepare = append(prepare, setStatement(j))
	for _, sql := range prepare {
		r, err := cn.exec(sql, "Null", nil)
		if err != nil {
			cn.close()
			return nil, err
		}
		r.free()
	}
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-done:
		case <-ctx.Done():
			c.killUntil(done, j.queryID)
		}
	}()
	r, err := cn.exec(j.sql, j.format, j.params)
	close(done)
	<-watched
	if err != nil {
		cn.close()
		return nil, err
	}
	return &answer{result: r, conn: cn}, nil
}

// killUntil kills the statement with that id, again and again until done.
func (c *core) killUntil(done <-chan struct{}, queryID string) {
	tick := time.NewTicker(killEvery)
	defer tick.Stop()
	for {
		c.kill(queryID)
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

func (c *core) kill(queryID string) {
	cn, err := c.lib.open(c.args)
	if err != nil {
		return // the next tick tries again
	}
	defer cn.close()
	// An error means that there was nothing to kill.
	if r, err := cn.exec("KILL QUERY WHERE "+clientQueryID+" = "+quoteText(queryID)+" ASYNC", "Null", nil); err == nil {
		r.free()
	}
}

// setStatement is the statement that gives a fresh connection the job's settings. readonly comes last, since nothing
// can be set after it.
func setStatement(j job) string {
	comment := j.queryID
	if j.comment != "" {
		comment += " " + j.comment
	}
	var b strings.Builder
	b.WriteString("SET implicit_select = 0, allow_introspection_functions = 0, log_comment = " + quoteText(comment))
	readonly := ""
	for _, s := range j.settings {
		if s.name == "readonly" {
			readonly = s.value
			continue
		}
		b.WriteString(", " + s.name + " = " + quoteText(s.value))
	}
	if readonly == "" && j.readonly {
		readonly = "2"
	}
	if readonly != "" {
		b.WriteString(", readonly = " + quoteText(readonly))
	}
	return b.String()
}

var textEscapes = strings.NewReplacer(`\`, `\\`, `'`, `\'`, "\x00", `\0`)

func quoteText(s string) string { return "'" + textEscapes.Replace(s) + "'" }

var nameEscapes = strings.NewReplacer(`\`, `\\`, "`", "\\`")

func quoteName(s string) string { return "`" + nameEscapes.Replace(s) + "`" }

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// writeConfig writes the engine's configuration, sized for a small machine, and returns its path.
func writeConfig(cfg Config, dir string) (string, error) {
	users := filepath.Join(dir, "users.xml")
	// To the engine all that the front sends is of one user; who may come, and as whom, is the front's to know.
	var granted strings.Builder
	for _, g := range grants {
		granted.WriteString("<query>" + g + "</query>\n      ")
	}
	if err := os.WriteFile(users, []byte(`<clickhouse>
`+profiles(cfg)+`  <users><default>
    <password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <grants>
      `+granted.String()+`
    </grants>
  </default></users>
  <quotas><default></default></quotas>
</clickhouse>
`), 0o600); err != nil {
		return "", err
	}
	var path bytes.Buffer
	if err := xml.EscapeText(&path, []byte(users)); err != nil {
		return "", err
	}
	memory := cfg.MaxMemory
	sync := ""
	if cfg.SyncWrites {
		sync = `
  <merge_tree>
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <min_compressed_bytes_to_fsync_after_merge>1</min_compressed_bytes_to_fsync_after_merge>
  </merge_tree>`
	}
	conf := filepath.Join(dir, "config.xml")
	return conf, os.WriteFile(conf, []byte(fmt.Sprintf(`<clickhouse>
  <users_config>%s</users_config>
  <max_server_memory_usage>%d</max_server_memory_usage>
  <background_pool_size>2</background_pool_size>
  <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
  <background_schedule_pool_size>4</background_schedule_pool_size>
  <max_thread_pool_size>1000</max_thread_pool_size>
  <mark_cache_size>%d</mark_cache_size>
  <index_mark_cache_size>%d</index_mark_cache_size>
  <primary_index_cache_size>%d</primary_index_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <mmap_cache_size>1000</mmap_cache_size>
  <compiled_expression_cache_size>33554432</compiled_expression_cache_size>%s
</clickhouse>
`, path.String(), memory, memory/16, memory/32, memory/16, sync)), 0o600)
}

// displayName is what the engine calls itself to clients.
func displayName() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Path != "" {
		return info.Main.Path + "-embedded"
	}
	return "embedded"
}
