package chdb

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// The engine's tables wait for the disk when they are told to, and only then.
func TestSyncWrites(t *testing.T) {
	for _, sync := range []bool{false, true} {
		c := start(t, childConfig{SyncWrites: sync}).open(t, func(*clickhouse.Options) {})
		if err := c.Exec(t.Context(), `CREATE TABLE synced (n UInt64) ENGINE = MergeTree ORDER BY n`); err != nil {
			t.Fatal(err)
		}
		if err := c.Exec(t.Context(), `INSERT INTO synced VALUES (1)`); err != nil {
			t.Fatal(err)
		}
		var set, rows uint64
		if err := c.QueryRow(t.Context(), `
			SELECT
				(SELECT count() FROM system.merge_tree_settings WHERE value = '1' AND name IN (
					'fsync_after_insert', 'fsync_part_directory', 'min_compressed_bytes_to_fsync_after_merge'
				)),
				(SELECT count() FROM synced)`).Scan(&set, &rows); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]uint64{true: 3}[sync]; set != want || rows != 1 {
			t.Errorf("sync %v: %d of the settings are set and there are %d rows, want %d and 1", sync, set, rows, want)
		}
	}
}

func TestClickHouseGoRoundTrip(t *testing.T) {
	p := start(t, childConfig{})
	compressions := map[string]*clickhouse.Compression{
		"none": nil,
		"gzip": {Method: clickhouse.CompressionGZIP, Level: 1},
		"lz4":  {Method: clickhouse.CompressionLZ4},
		"zstd": {Method: clickhouse.CompressionZSTD},
	}
	for name, compression := range compressions {
		t.Run(name, func(t *testing.T) {
			c := p.open(t, func(o *clickhouse.Options) { o.Compression = compression })
			ctx := context.Background()
			if err := c.Ping(ctx); err != nil {
				t.Fatal(err)
			}
			table := "types_" + name
			if err := c.Exec(ctx, `CREATE TABLE `+table+` (
				id UUID, at3 DateTime64(3, 'UTC'), at6 DateTime64(6, 'UTC'), day Date, kind LowCardinality(String),
				ids Array(UUID), body String, note Nullable(String), n UInt64, i Int32, f Float64, ok Bool,
				tags Array(LowCardinality(String)), m Map(String, UInt64), fixed FixedString(16), e Enum8('a'=1,'b'=2)
			) ENGINE = MergeTree ORDER BY n`); err != nil {
				t.Fatal(err)
			}
			type row struct {
				ID    uuid.UUID         `ch:"id"`
				At3   time.Time         `ch:"at3"`
				At6   time.Time         `ch:"at6"`
				Day   time.Time         `ch:"day"`
				Kind  string            `ch:"kind"`
				IDs   []uuid.UUID       `ch:"ids"`
				Body  string            `ch:"body"`
				Note  *string           `ch:"note"`
				N     uint64            `ch:"n"`
				I     int32             `ch:"i"`
				F     float64           `ch:"f"`
				OK    bool              `ch:"ok"`
				Tags  []string          `ch:"tags"`
				M     map[string]uint64 `ch:"m"`
				Fixed string            `ch:"fixed"`
				E     string            `ch:"e"`
			}
			note := "a \x00 note\n\t\\'"
			want := make([]row, 1000)
			for i := range want {
				want[i] = row{
					ID: uuid.New(), At3: time.UnixMilli(1_700_000_000_123 + int64(i)).UTC(),
					At6: time.UnixMicro(1_700_000_000_123_456 + int64(i)).UTC(),
					Day: time.Date(2026, 1, 1+i%28, 0, 0, 0, 0, time.UTC), Kind: fmt.Sprint("kind", i%5),
					IDs:  []uuid.UUID{uuid.New(), uuid.New()},
					Body: string([]byte{0, 255, byte(i), '\n', '\'', '\\', 0x1a}),
					N:    uint64(i), I: -int32(i), F: float64(i) / 3, OK: i%2 == 0,
					Tags: []string{"x", fmt.Sprint(i % 3)},
					M:    map[string]uint64{"k": uint64(i)}, Fixed: "0123456789abcdef", E: "b",
				}
				if i%3 == 0 {
					want[i].Note = &note
				}
			}
			b, err := c.PrepareBatch(ctx, "INSERT INTO "+table)
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if err := b.AppendStruct(&want[i]); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Send(); err != nil {
				t.Fatal(err)
			}
			var got []row
			if err := c.Select(ctx, &got, "SELECT * FROM "+table+" ORDER BY n"); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, want); d != "" {
				t.Fatalf("rows differ (-got +want):\n%s", d)
			}
			var count uint64
			err = c.QueryRow(ctx, "SELECT count() FROM numbers(300000) WHERE number >= ?", 10).Scan(&count)
			if err != nil {
				t.Fatal(err)
			}
			if count != 299_990 {
				t.Errorf("count = %d, want 299990", count)
			}
			rows, err := c.Query(ctx, "SELECT number, toString(number) FROM numbers(300000)")
			if err != nil {
				t.Fatal(err)
			}
			var n, sum uint64
			for rows.Next() {
				var v uint64
				var s string
				if err := rows.Scan(&v, &s); err != nil {
					t.Fatal(err)
				}
				n, sum = n+1, sum+v
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			_ = rows.Close()
			if n != 300_000 || sum != 300_000*299_999/2 {
				t.Errorf("got %d rows with sum %d", n, sum)
			}
		})
	}
}

func TestColumnWiseBatch(t *testing.T) {
	p := start(t, childConfig{})
	c := p.open(t, nil)
	p.sql(t, "CREATE TABLE cols (k UInt64, at DateTime64(3, 'UTC'), body String) ENGINE = MergeTree ORDER BY k")
	ctx := clickhouse.Context(context.Background(), clickhouse.WithColumnNamesAndTypes([]clickhouse.ColumnNameAndType{
		{Name: "k", Type: "UInt64"}, {Name: "at", Type: "DateTime64(3, 'UTC')"}, {Name: "body", Type: "String"},
	}))
	b, err := c.PrepareBatch(ctx, "INSERT INTO cols (k, at, body)")
	if err != nil {
		t.Fatal(err)
	}
	keys, times, bodies := []uint64{1, 2}, []time.Time{time.UnixMilli(1), time.UnixMilli(2)}, []string{"a", "b"}
	for i, col := range []any{keys, times, bodies} {
		if err := b.Column(i).Append(col); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Send(); err != nil {
		t.Fatal(err)
	}
	if got, want := p.sql(t, "SELECT k, at, body FROM cols ORDER BY k"),
		"1\t1970-01-01 00:00:00.001\ta\n2\t1970-01-01 00:00:00.002\tb"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParametersAndErrors(t *testing.T) {
	p := start(t, childConfig{})
	c := p.open(t, nil)
	ctx := clickhouse.Context(context.Background(), clickhouse.WithParameters(clickhouse.Parameters{
		"n": "42", "s": `it's \\ "x"`,
	}))
	var n uint64
	var s string
	if err := c.QueryRow(ctx, "SELECT {n:UInt64}, {s:String}").Scan(&n, &s); err != nil {
		t.Fatal(err)
	}
	if n != 42 || s != `it's \ "x"` {
		t.Errorf("got %d %q", n, s)
	}
	for _, tc := range []struct {
		name, sql string
		code      int32
	}{
		{"unknown table", "SELECT * FROM no_such_table", 60},
		{"syntax", "SELEKT 1", 62},
		{"unknown database", "SELECT * FROM nowhere.x", 81},
		{"in execution", "SELECT throwIf(number = 3) FROM numbers(10)", 395},
		{"several statements", "SELECT 1; SELECT 2", 62},
		{"outfile", "SELECT 1 INTO OUTFILE '/tmp/x'", 358},
		{"infile", "INSERT INTO x FROM INFILE '/tmp/x' FORMAT CSV", 78},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := c.Exec(context.Background(), tc.sql)
			var e *clickhouse.Exception
			if !errors.As(err, &e) || e.Code != tc.code {
				t.Errorf("got %v, want code %d", err, tc.code)
			}
		})
	}
	t.Run("after the first bytes", func(t *testing.T) {
		for name, compression := range map[string]*clickhouse.Compression{
			"plain": nil, "lz4": {Method: clickhouse.CompressionLZ4},
			"gzip": {Method: clickhouse.CompressionGZIP, Level: 1},
		} {
			c := p.open(t, func(o *clickhouse.Options) { o.Compression = compression })
			rows, err := c.Query(context.Background(),
				"SELECT number, throwIf(number = 2000000) FROM numbers(3000000) SETTINGS max_threads=1")
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
			}
			err = rows.Err()
			_ = rows.Close()
			var e *clickhouse.Exception
			if !errors.As(err, &e) || e.Code != 395 {
				t.Errorf("%s: got %v, want code 395", name, err)
			}
		}
	})
	t.Run("settings", func(t *testing.T) {
		ctx := clickhouse.Context(
			context.Background(), clickhouse.WithSettings(clickhouse.Settings{"max_block_size": 17}),
		)
		var v uint64
		if err := c.QueryRow(ctx, "SELECT toUInt64(getSetting('max_block_size'))").Scan(&v); err != nil || v != 17 {
			t.Errorf("got %d %v", v, err)
		}
		err := c.QueryRow(context.Background(), "SELECT toUInt64(getSetting('max_block_size'))").Scan(&v)
		if err != nil || v == 17 {
			t.Errorf("the setting leaked into another query: %d %v", v, err)
		}
		ctx = clickhouse.Context(
			context.Background(), clickhouse.WithSettings(clickhouse.Settings{"no_such_setting": 17}),
		)
		var e *clickhouse.Exception
		if err := c.Exec(ctx, "SELECT 1"); !errors.As(err, &e) || e.Code != 115 {
			t.Errorf("got %v, want code 115", err)
		}
	})
}
