package chdb

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"
)

// BenchmarkInsert inserts batches of messages as the history projector does, column by column.
func BenchmarkInsert(b *testing.B) {
	for _, rows := range []int{1000, 5000, 50_000} {
		for _, compression := range []string{"none", "lz4"} {
			b.Run(fmt.Sprintf("rows=%d/%s", rows, compression), func(b *testing.B) {
				p := start(b, childConfig{})
				p.sql(b, `CREATE TABLE messages (
						thread UUID, position UInt64, at DateTime64(3), sender UUID, kind LowCardinality(String),
						body String CODEC(ZSTD(1))
					) ENGINE = ReplacingMergeTree ORDER BY (thread, position)
					SETTINGS non_replicated_deduplication_window = 1000`)
				c := p.open(b, func(o *clickhouse.Options) {
					if compression == "lz4" {
						o.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
					}
				})
				columns := []clickhouse.ColumnNameAndType{
					{Name: "thread", Type: "UUID"},
					{Name: "position", Type: "UInt64"},
					{Name: "at", Type: "DateTime64(3)"},
					{Name: "sender", Type: "UUID"},
					{Name: "kind", Type: "LowCardinality(String)"},
					{Name: "body", Type: "String"},
				}
				ctx := clickhouse.Context(context.Background(), clickhouse.WithColumnNamesAndTypes(columns))
				threads, positions, times := make([]uuid.UUID, rows), make([]uint64, rows), make([]time.Time, rows)
				senders, kinds, bodies := make([]uuid.UUID, rows), make([]string, rows), make([]string, rows)
				for i := range rows {
					threads[i], senders[i] = uuid.New(), uuid.New()
					times[i], kinds[i] = time.Now(), "text"
					bodies[i] = strings.Repeat(threads[i].String(), 3)[:100]
				}
				n := uint64(0)
				b.ResetTimer()
				for b.Loop() {
					batch, err := c.PrepareBatch(ctx, "INSERT INTO messages (thread, position, at, sender, kind, body)")
					if err != nil {
						b.Fatal(err)
					}
					for i := range rows {
						n++
						positions[i] = n
					}
					for i, col := range []any{threads, positions, times, senders, kinds, bodies} {
						if err := batch.Column(i).Append(col); err != nil {
							b.Fatal(err)
						}
					}
					if err := batch.Send(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rows/s")
			})
		}
	}
}

// BenchmarkSelect measures the smallest query there and back.
func BenchmarkSelect(b *testing.B) {
	p := start(b, childConfig{})
	c := p.open(b, nil)
	for b.Loop() {
		var n uint8
		if err := c.QueryRow(context.Background(), "SELECT 1").Scan(&n); err != nil {
			b.Fatal(err)
		}
	}
}
