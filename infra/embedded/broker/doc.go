// Package broker runs the embedded log: franz-go's own Kafka broker on one address, with its data in a directory.
//
// Promise: what it acknowledged with acks=all is there after the process was killed (SIGKILL included) and after the
// machine lost power, and so is whatever a reader saw: no view and no device is ever ahead of the log. It keeps every
// record of a topic for ever unless the topic asks for less.
//
// Order: one partition is one sequence of offsets without gaps. There is one broker and no replica.
//
// Durability: group commit. Acknowledgements, fetched records and the ends of partitions that the disk may not have yet
// gather until a sync that began after they were made has ended; one sync at a time, of the files of all that gathered,
// so its price is paid per round and not per batch. While nobody waits there is none. With NoSync nothing waits: a
// power cut takes back what the kernel had not written yet, as with a single Kafka broker at its default flush, and
// views and devices may then be ahead of the log.
//
// Slow or restarted: every request passes through one goroutine, but none waits there for the disk: a slow disk delays
// acknowledgements and makes the rounds larger. A restart reads the directory back and goes on at the same offsets.
// When a write or a sync fails (a full disk) the broker ends with an error instead of going on: producers then get
// retriable errors, and a restart cuts the torn tail off.
//
// Non-obvious:
//   - The front stands in the connections (Listener, Conn): it reads the head of each request and the whole of the few
//     responses that it holds back. It relies on the broker to write a response with one call.
//   - A partition's indexes are not synced: without transactions nothing in them is needed to read it again. Nor are
//     groups' commits, which nobody reads back.
//   - Segments are synced by their names and through descriptors of the group's own, since compaction and deletion
//     replace files under the same name. Compaction itself is not safe from a power cut or a kill in its midst: the
//     broker removes a compacted partition's segments before it writes the new ones.
//   - Share groups are not held back: nobody here has any.
//   - Topics are not created on first use, and not seeded: whoever needs them creates them at every start.
//   - The address that clients are told is the one listened on, so a wildcard address is refused.
//   - The broker's own default keeps records for seven days and applies it to every topic as soon as one is
//     compacted; Run turns it to "for ever".
//   - Compacted topics are compacted every hour, in that one goroutine: requests wait meanwhile.
//   - The timestamps of records are the producers', also with message.timestamp.type=LogAppendTime.
package broker
