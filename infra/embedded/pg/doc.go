// Package pg runs a real PostgreSQL server as a child process, with its data in a directory, for as long as Run runs.
//
// Promise: when Run has called ready, the database helio takes connections of the superuser helio on the address, over
// TCP with a password (SCRAM) that URL reads from the data directory. The server ends with this process, however that
// ends.
//
// Order and durability: PostgreSQL's own, with fsync on. Commits do not wait for the disk (synchronous_commit=off): a
// crash of the server loses at most the last second of commits, whole and from the end. That is right for views that
// carry their own position in the log. SyncCommit, or SET synchronous_commit=on in a session, waits.
//
// Slow or restarted: cancelling Run's context asks for a fast shutdown, then an immediate one, then kills. When this
// process is killed the kernel sends the server SIGQUIT (an immediate shutdown, so the next start recovers from the
// write-ahead log); a start waits for such a predecessor to be gone, and removes what it left.
//
// Non-obvious:
//   - PostgreSQL refuses to run as root. As root, the server runs as the user postgres, else nobody, and owns the
//     directory "data" inside DataDir; every directory above it and above the programs must let that user through.
//   - The signal on the parent's death is bound to the thread that forked, not to the process: Run keeps that thread.
//   - The npm package carries no symbolic links; the ones that its libraries need are listed in a file and made here.
//   - A first start makes the cluster under another name and renames it, so a half-made one is never used.
package pg
