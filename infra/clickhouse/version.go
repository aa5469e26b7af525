package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// minVersion reads the header of a migration that not every server takes.
func minVersion(src string) string {
	line, _, _ := strings.Cut(src, "\n")
	v, ok := strings.CutPrefix(line, "-- min-version:")
	if !ok {
		return ""
	}
	return strings.TrimSpace(v)
}

// fitting returns the migrations that this server takes.
func fitting(ctx context.Context, conn driver.Conn, c Config, ms []migration) ([]migration, error) {
	if !slices.ContainsFunc(ms, func(m migration) bool { return m.min != "" }) {
		return ms, nil
	}
	var have string
	if err := conn.QueryRow(ctx, "SELECT version()").Scan(&have); err != nil {
		return nil, fmt.Errorf("read the server's version: %w", err)
	}
	var out []migration
	for _, m := range ms {
		if m.min != "" && olderVersion(have, m.min) {
			if c.Logger != nil {
				c.Logger.Warn("migration passed over: the server is too old for it",
					"migration", m.name, "server", have, "needs", m.min)
			}
			continue
		}
		out = append(out, m)
	}
	return out, nil
}

// olderVersion compares dotted versions number by number, as far as b goes; what is not a number counts as 0.
func olderVersion(a, b string) bool {
	have, want := strings.Split(a, "."), strings.Split(b, ".")
	for i := range want {
		var x, y int
		if i < len(have) {
			x, _ = strconv.Atoi(have[i])
		}
		y, _ = strconv.Atoi(want[i])
		if x != y {
			return x < y
		}
	}
	return false
}
