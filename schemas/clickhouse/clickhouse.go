// Package clickhouse embeds the migrations of the history in ClickHouse. The statements name no database: the
// connection's default database says which one.
//
// Every row is a pure function of the log and is keyed by (thread, position), so that inserting a range again converges
// (ReplacingMergeTree); the insert's dedup token keeps it from being seen twice even before a merge.
//
// Non-obvious:
//   - A file that has landed is never edited; a change is a further file. Statements end with a semicolon and can be
//     repeated (IF NOT EXISTS, OR REPLACE).
//   - A file that begins with "-- min-version: X.Y" is passed over by older servers, and applied once the server has
//     that version.
//   - quarantine is the exception: the row that was written last at a position counts, and one that is released is
//     none. Ask it with FINAL and WHERE NOT released.
//   - Partitions are months of log time, so an insert keeps to one month.
package clickhouse

import "embed"

//go:embed history/*.sql
var files embed.FS

// FS holds the directory "history".
var FS = files

// Database is the default database of the history.
const Database = "heliograph"
