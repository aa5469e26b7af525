// Package realkafka starts a real Apache Kafka for a test: one node (KRaft, broker
// and controller in one process) on loopback, with its data in a folder of the test.
//
// Promise: Start returns when the broker answers requests, with an address that no
// other test has, and the broker is gone, with its data, when the test ends. Without
// Java or the jars (make kafka) the test is skipped; in CI (CI=true) it fails, unless
// HELIO_NO_REAL_KAFKA is set, so that it cannot be left out there by accident.
//
// Durability: Kill is a SIGKILL. What was acknowledged is in the page cache, so it is
// there after Restart; the consumer groups are as well.
//
// Slow: a start takes some two seconds of a core and 400 MB of memory, so a package starts one
// and shares it among subtests. A broker that does not answer in time fails the test
// with the end of its log.
//
// Non-obvious:
//   - A broker of StartSecure has one listener, which asks for a certificate and for a user:
//     there is no plain one beside it.
//   - Topics are not made by producing to them: make them with kadm, as in production.
//   - Records carry the broker's time (LogAppendTime), and kfake keeps the producer's.
//   - The broker dies with the test process, even if that is killed (on Linux).
//   - This package imports testing, so only tests may import it.
package realkafka
