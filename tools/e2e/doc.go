// Package e2e holds the end-to-end tests: a whole Heliograph of real processes (package cluster), driven through the Go
// client alone, broken on purpose and compared with the log afterwards. It shows the promises P1 to P7 of the design,
// each by tests that try to break it.
//
//	P1  conversation, retries, kills, TestDev
//	P2  silent, and every test: each device's events are checked as they come and compared with a fold of the log at
//	    the end
//	P3  replay, rebuild, compacted
//	P4  removed, unheard, strangers, revoked
//	P5  outages, hung
//	P6  slow, quarantine, released, stampede
//	P7  replay, rebuild
//	P8  TestDevAfterItsLogWasSetBack
//
// All tests of a suite share one cluster, one after the other, and each leaves it whole; every test has users of its
// own. TestKfake and TestKafka run the same suite; TestDev is about helio dev.
//
// The environment:
//
//	HELIO_E2E_LOG       kfake or kafka: which log to test with. Default: kfake, and with CI=true both.
//	HELIO_E2E_ROUNDS    rounds of the kill test; default 15 with kfake, 5 with Apache Kafka
//	HELIO_E2E_REPLAY_KILLS  how many replays are killed on their way; default 3
//	HELIO_E2E_OUTAGE    how long an engine stays down, as 30s; default 3s, in CI 30s; the stores at most 12s, with
//	                    Apache Kafka 10s
//	HELIO_E2E_STAMPEDE  how many devices come back at once; default 100
//	HELIO_E2E_SEED      seed of the random choices; printed by each test that makes some
//	HELIO_E2E_KEEP      keep the cluster's directory (logs of all processes) after the tests
//
// Order, durability: none; it holds tests only.
//
// Non-obvious:
//   - The truth is the log, read with a plain franz-go client and folded with schemas/thread and schemas/user: nothing
//     of infra/kafka, the projectors or the edge has a part in it.
//   - The client of the newcomer test is not ours: it is written from the text of wire.proto, with the protobufs alone,
//     and shows that the text is enough.
//   - A wait is always for a condition, up to patience; nothing is judged by how long it took, save what README
//     promises a time for: that a revoked device is cut within one second. Of several one must be, so that a machine
//     that does much else fails no test.
package e2e
