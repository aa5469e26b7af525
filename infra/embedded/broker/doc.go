// Package broker runs the embedded log: franz-go's own Kafka broker on one address, with its data in a directory.
//
// Promise: what it acknowledged with acks=all is there after the process was killed (SIGKILL included); with SyncWrites
// also after the machine lost power. It keeps every record of a topic for ever unless the topic asks for less.
//
// Order: one partition is one sequence of offsets without gaps. There is one broker and no replica.
//
// Durability: without SyncWrites the kernel's page cache holds the tail, as with a single Kafka broker at its default
// flush. With it every batch waits for fsync, in one goroutine.
//
// Slow or restarted: every request passes through one goroutine, so a slow disk slows everything. A restart reads the
// directory back and goes on at the same offsets. When a write fails (a full disk) the broker ends with an error
// instead of going on: producers then get retriable errors, and a restart cuts the torn tail off.
//
// Non-obvious:
//   - Topics are not created on first use, and not seeded: whoever needs them creates them at every start.
//   - The address that clients are told is the one listened on, so a wildcard address is refused.
//   - The broker's own default keeps records for seven days and applies it to every topic as soon as one is
//     compacted; Run turns it to "for ever".
//   - Compacted topics are compacted every hour, in that one goroutine: requests wait meanwhile.
//   - The timestamps of records are the producers', also with message.timestamp.type=LogAppendTime.
package broker
