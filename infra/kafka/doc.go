// Package kafka is the plumbing around the log: how its clients are configured, its topics created, its producers
// bounded, and the one consumer loop that every view and every delivery instance uses.
//
// Promise: a Consumer gives a Sink every record of the slots it owns, from the position that the sink has stored, or
// from the beginning when it has stored none. A batch that the sink has not acknowledged is brought again; the position
// moves only in the sink. With a sink that compares-and-sets its positions each record takes effect exactly once, over
// crashes, rebalances and zombies.
//
// Order: within one topic of one slot as in the log. Between topics of a slot, and between slots, none.
//
// Releases: operators decide about what is in quarantine in helio.quarantine (Decisions). A Consumer knows all that was
// decided of a slot when it opens it; what is dropped comes to its sink without a value, as tombstones do, in what is
// read again too. When more is decided of an open slot, it is opened anew at once, between two batches. So every sink
// that folds obeys without knowing it; who folds nothing asks for Raw.
//
// Durability: none here. The commits to Kafka only feed Kafka's own tools and are never read back.
//
// When slow: each owned slot has one goroutine and one queue, bounded in records and bytes, and all of them by the
// process's budget, of which the longest queues give way first; a full queue pauses the fetching of that slot alone. A
// sink that fails stalls its slot with backoff, and the lag gauges show it.
//
// A static member whose place another process has taken (two of one name) is not let in again while that one lives, and
// ends with *InstanceTakenError after the session timeout. Ready tells a member with its slots, or rightly without.
//
// When restarted: slots are asked of the group again (under an InstanceID the same ones, without a rebalance) and each
// is opened anew.
//
// Topics are made by an operator ('helio init', PlanTopics), by the embedded log's users and by tests (EnsureTopics);
// roles only open them (OpenTopics). Their settings are held against these rules at every start, and every five minutes
// by a TopicWatch, which projectors run; it mends, and where a start would fail it shows
// helio_kafka_topic_setting_wrong{topic,setting} = 1 and says so once:
//
//	setting                          must be                            otherwise
//	cleanup.policy                   delete; receipts compact;          mended; start fails if the cluster forbids it
//	                                 presence compact,delete
//	retention.ms, retention.bytes    -1; presence an hour               mended; start fails if the cluster forbids it
//	max.message.bytes                at least 1048588                   mended; start fails if the cluster forbids it
//	message.timestamp.type           LogAppendTime                      mended; warned of if the cluster forbids it
//	unclean.leader.election.enable   false                              mended; warned of if the cluster forbids it
//	segment.ms                       presence ten minutes               mended; warned of if the cluster forbids it
//	min.insync.replicas              at least 2 of 3 replicas           warned of: the operators' choice
//	                                 not more than the replicas         start fails: nothing can be acknowledged
//	replicas                         3, or as many as brokers           warned of
//	partitions                       P, in all topics the same          start fails
//	topic                            there                              start fails and names 'helio init'
//
// Non-obvious:
//   - Two kgo clients per consumer. One is a member of the group over the threads topic and reads nothing: its
//     assignment is the list of slots. The other reads partition p of every topic for each slot p directly. So a slot's
//     topics can never be split between two owners.
//   - Partitions are added and removed only between two polls, by the goroutine that polls: a fetch of an earlier
//     session cannot reach a later one.
//   - A lost slot (session timed out) is cut off at once; a revoked one finishes its batch while the rebalance waits.
//     What a zombie still writes is stopped by the compare-and-set in the sink (ErrFenced), not here.
//   - A fetch in flight delays partitions that were just added or resumed by up to FetchMaxWait, which is therefore 250
//     ms, or the linger where that is shorter
//   - A stored position that the log does not have stalls the slot (ErrPositions) and is never mended by a rewind:
//     rewinding would be silent loss.
//   - A sink that is a Marker stores with each position the identity of the record before it. Reading begins with that
//     record, so a log that was set back and has grown again shows itself (LogError) before anything of it is taken in.
//     A log can only become another one while its broker is away: so each new connection raises a doubt, and what came
//     over it is fetched again from the marked record on. Ends, heads and topic ids are asked after each connection
//     and every ten seconds, for idle partitions and for admins who cut or remake a topic on a living broker.
//   - Of a compacted topic the marked record may be gone. Then only the topic's id and its end speak.
//   - A log that an operator has adopted (Adopt) has another base from some offset on, an era. Positions in it begin at
//     the next multiple of 2^40, past all that anybody was told. The decision stands in helio.quarantine, which is read
//     at each start and after each fault; a copy of it in the partition ends the session of whoever reads past it
//     without knowing.
//   - A view that has read what was given up then is never let on: it is rebuilt.
//   - A session of a slot goes by the decisions that were there when it began: a batch that is tried again is the same.
//   - Decisions are a set: that they are read twice, in whatever order, after a log was set back, means nothing. One
//     of a newer version is not obeyed and said in the log: its event stays in quarantine, which is right until that
//     version comes.
//   - Positions have gaps in compacted topics; a gap in another topic is logged and counted, since nothing can bring
//     the records back.
//   - The first base is read from the first record of a partition (header topic.BaseHeader). In a compacted topic that
//     record needs a key of its own.
//   - Replay relies on the last record of a partition never being compacted away, which Kafka keeps: the active segment
//     is not cleaned.
//   - Some brokers answer a wrong password by closing the connection, which franz-go takes for the network's fault and
//     tries again. Knock tells the two apart, and is asked before anything else at a start.
//   - What a topic takes (max.message.bytes) is held against what a producer sends (MaxBatch) at each start, and
//     raised. An operator who lowers it later has large events refused, one by one.
//   - A produced record that timed out may be in the log all the same; see ProducerOpts.
package kafka
