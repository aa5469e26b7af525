package kafka

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/schemas/topic"
)

// MaxBatch is the longest batch of records in bytes that a producer sends. EnsureTopics sees to it that every topic
// takes one (max.message.bytes).
const MaxBatch = 1_000_012

// ProducerConfig bounds a producer; zero means default.
type ProducerConfig struct {
	// default 0: a record goes at once, and batches form behind the five requests in flight
	Linger          time.Duration
	MaxRecords      int           // buffered before TryProduce refuses; default 65,536
	MaxBytes        int           // buffered before TryProduce refuses; default 64 MiB
	DeliveryTimeout time.Duration // a record that is older is failed; default 2 s, at least 1 s
}

// ProducerOpts returns the options of a producer to the event topics: to the partition that the record names,
// idempotent, acks=all, bounded in records, bytes and time. Use them with Dial and produce with TryProduce.
//
// With the log down a record fails about DeliveryTimeout after it was handed over; with a broker that is there but
// mute, a second later. A record that failed so may still be in the log: unknown, not failed. Whoever sends it again
// does it under the same message id, and the fold drops the second.
func ProducerOpts(p ProducerConfig) []kgo.Opt {
	if p.MaxRecords <= 0 {
		p.MaxRecords = 1 << 16
	}
	if p.MaxBytes <= 0 {
		p.MaxBytes = 64 << 20
	}
	if p.DeliveryTimeout <= 0 {
		p.DeliveryTimeout = 2 * time.Second
	}
	p.DeliveryTimeout = max(p.DeliveryTimeout, time.Second)
	return []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(MaxBatch),
		kgo.ProducerLinger(p.Linger),
		kgo.MaxBufferedRecords(p.MaxRecords),
		kgo.MaxBufferedBytes(p.MaxBytes),
		kgo.RecordDeliveryTimeout(p.DeliveryTimeout + p.Linger),
		kgo.ProduceRequestTimeout(p.DeliveryTimeout),
		kgo.RequestTimeoutOverhead(time.Second),
		kgo.RetryTimeout(p.DeliveryTimeout),
		kgo.DialTimeout(p.DeliveryTimeout),
		// Without this an in-flight record outlives every timeout, and a sender would wait as long as the broker is
		// away.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return min(50*time.Millisecond<<min(tries, 4), 500*time.Millisecond)
		}),
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
	}
}

// NewRecord makes a record for Produce: its partition is the slot.
func (c Config) NewRecord(t topic.Topic, s topic.Slot, key, value []byte) *kgo.Record {
	return &kgo.Record{Topic: c.Name(t), Partition: int32(s), Key: key, Value: value}
}
