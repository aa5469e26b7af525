// Package chdb runs the ClickHouse engine (libchdb.so) in this process and puts ClickHouse's HTTP interface in front of
// it, so that clickhouse-go, curl, a Grafana data source and anything else that speaks that interface can use it.
//
// Promise: a statement that was answered with 200 is done, and what it wrote is read by every later statement and
// survives a SIGKILL of the process. The body of an INSERT is received in whole before any of it is inserted: a client
// that breaks off half way inserts nothing. Errors carry ClickHouse's own codes.
//
// Order: statements of different requests run side by side, each on a connection of its own, so no setting, database
// or temporary table leaks from one request into another.
//
// Durability: the engine writes parts into the data directory without fsync, like a ClickHouse server at its defaults:
// a killed process loses nothing that was answered, a power cut can lose the last seconds. With Config.SyncWrites an
// INSERT waits for the disk.
//
// Slow or restarted: Config.MaxConcurrent statements run, Config.MaxQueued wait, and the next one is refused with
// ClickHouse's code 202 (TOO_MANY_SIMULTANEOUS_QUERIES). INSERTs that bring their data, statements with the setting
// priority=1 and KILL QUERY have places of their own, so that queries which take long hold none of them up. Results
// stream: a client that reads slowly slows its own query, and one that does not read for Config.SendTimeout loses it.
// When the process is told to stop it takes no new statement, gives the running ones Config.DrainTimeout and then kills
// them. The data directory admits one process.
//
// Non-obvious:
//   - libchdb installs handlers for SIGSEGV and its like, and can abort the process: Run belongs into a process that
//     holds nothing else. One process can run it once.
//   - A result leaves the engine through a pipe (INTO OUTFILE '/dev/fd/N'), because the library's own streaming calls
//     repeat a format's header in every chunk and drop totals. An INSERT's body enters it through an unlinked
//     file (FROM INFILE '/dev/fd/N'), because the library cuts binary data that stands in the statement.
//   - clickhouse-go asks for blocks of a newer revision than the library writes. Its first question (revision()) is
//     answered with 0, and from then on both sides use plain Native blocks.
//   - The engine gives every statement an id of its own. The client's query_id is carried in log_comment, and KILL
//     QUERY is rewritten to look there; system.processes still shows the engine's ids.
//   - A GET runs with readonly=2, as on a server.
//   - The front does what our own code, curl, clickhouse-connect and Grafana's ClickHouse data source use, and no more.
//     There are no sessions: clickhouse-connect sends a session_id with every request, which is taken and means
//     nothing; with it SET, USE and CREATE TEMPORARY TABLE are refused, since they would be for later requests alone.
//     Bodies and results are compressed with zstd, lz4 or gzip.
//   - A client that goes away ends its SELECT; an INSERT or a DDL statement goes on, as on a server.
//   - There are two users, with random passwords that lie in the data directory: Writer (default) for our own roles and
//     Reader (reader) for analysts, who only reads, within limits of time, rows and memory that he may lower. Neither
//     reaches files, commands or the network: the engine grants nobody its sources (account.go), and what it does not
//     ask a privilege for is refused here (guard.go): file() as a function, hasColumnInTable, disk(), engines that take
//     a path, ATTACH, BACKUP and RESTORE, INTO OUTFILE. To the engine all are one user.
//   - There is no TLS, so the address must be a loopback one: passwords would cross the network in the clear.
//   - Expressions in VALUES are computed only where the statement comes whole and names nothing that is refused;
//     elsewhere data in the format Values must be literals.
//   - What is not done is refused with NOT_IMPLEMENTED, never passed over: external tables (multipart requests), roles,
//     quotas, stack traces, headers of one's own, exceptions inside a format (parameters.go has the list). There is no
//     TLS, and the system tables that a server logs into (query_log, part_log and so on) do not exist.
//   - send_progress_in_http_headers gets one X-ClickHouse-Progress, when the result is whole: headers cannot trickle
//     here.
package chdb
