// Package postgres opens pools, applies migrations and tells a transient database error from a permanent one.
//
// Promise: Migrate takes a schema from any earlier version to the one that is embedded, once, however many processes
// start together, and refuses a schema that is newer than the program. Transient is true only for errors after which
// the same statement may succeed.
//
// Order: migrations run by number, each in its own transaction unless it says otherwise.
//
// Durability: a pool's sessions run with the settings that its caller names (Config.Params); the views use
// synchronous_commit=off, since the log replays what a crash takes, rows and position alike.
//
// When slow: a pool has MaxConns connections and its callers wait for one until their context ends. When the database
// is down Open still succeeds: a process starts without its database, and its health says so.
//
// Non-obvious:
//   - Transient and Refused overlap: a certificate that is not trusted stalls what runs, since it may be replaced, and
//     ends what starts.
//   - The lock is an advisory lock of one session, so a migrating process that is killed leaves none behind.
//   - goose's table lies in the schema that it describes: each generation of a view has its own version.
//   - The URL carries the password, so Config prints without it.
package postgres
