// Package embedded runs the three engines of the default deployment, each in a process of its own: the log (package
// broker), PostgreSQL (package pg) and ClickHouse (package chdb).
//
// Promise: Start returns when all engines take connections, or with the one-line error (an *Error) of the engine that
// did not, which names the flag or the command that mends it. The engines end with this process, however that ends: on
// Stop, on a normal exit, on a panic and on SIGKILL.
//
// Order: the engines start and stop side by side. Whoever uses them stops using them first.
//
// Durability: each engine's own; see the packages. Killing an engine loses nothing that it acknowledged, but for
// commits of PostgreSQL's last second when they did not wait for the disk.
//
// Slow or restarted: an engine that ends by itself is not started again here; Wait reports it. Restart brings one back
// on the same address with the same data. A child has 90 s to get ready and 20 s to end.
//
// A child is this same program, run as
//
//	helio engine kafka|postgres|clickhouse --data DIR --listen HOST:PORT --engines DIR \
//	    [--sync-writes] [--no-sync] --child --log-json
//
// It prints one line of JSON on its standard output when it is ready, {"ready":true,"engine":"kafka","addr":"…"}, and
// one with "ready":false and the error when it fails; its log goes to its standard error. It ends when its standard
// input does, on SIGTERM and on SIGINT.
//
// Non-obvious:
//   - Children live in process groups of their own: Ctrl-C in a terminal reaches the parent only, which still needs its
//     engines while it drains.
//   - The same settings travel in the environment variable HELIO_ENGINE_CHILD, for programs that have no command line
//     of helio's: a test binary whose TestMain begins with EngineMain can be its own engine. A process with that
//     variable refuses to start engines, so a test binary that lacks the call cannot start copies of itself for ever.
//   - A restarted engine may find its port taken for a moment by the outgoing end of a client that redials it; Restart
//     tries again.
package embedded
