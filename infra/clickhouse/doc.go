// Package clickhouse opens connections, applies migrations and tells a transient engine error from a permanent one.
//
// Promise: Migrate takes a database from any earlier version to the one that is embedded, refuses a database that is
// newer than the program, and refuses a migration that was edited after it was applied. Transient is true only for
// errors after which the same query may succeed.
//
// Order: migrations run by number, statement after statement. ClickHouse has no transactional DDL: a migration that is
// interrupted is run again from its first statement, so every statement must be repeatable (IF NOT EXISTS).
//
// Durability: async_insert is 0 on every connection: an insert that was answered is in a part on disk.
//
// When slow: at most MaxOpenConns queries are under way, the others wait for DialTimeout.
//
// Non-obvious:
//   - Transient and Refused overlap: a certificate that is not trusted stalls what runs, since it may be replaced, and
//     ends what starts.
//   - The embedded engine speaks HTTP only; every feature used here works over HTTP and over the native protocol alike.
//   - Migrations are not goose's, as Postgres's are: for ClickHouse goose has no lock between processes, no check that
//     a migration was not edited, and none that waits for a newer server (min-version), and it knows the versions of
//     existing databases not at all.
//   - The lock is a table whose creation is atomic; its holder renews it, and one that
//     was not renewed for 15 s (LockExpiry, of programs that did not renew) was left by a killed process
//     and is taken over.
//   - Nothing is compressed over HTTP, because the embedded engine is on loopback and a front need not know how.
package clickhouse
