package generation_test

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"heliograph/infra/clickhouse"
	"heliograph/infra/embedded/enginetest"
	"heliograph/infra/kafka"
	"heliograph/infra/postgres"
	"heliograph/projector/generation"
	"heliograph/projector/history"
	"heliograph/projector/threads"
	chschema "heliograph/schemas/clickhouse"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	pgschema "heliograph/schemas/postgres"
	"heliograph/schemas/topic"
)

// BenchmarkReplay is the filling of a generation from a log of direct messages of some hundred bytes, a thousand pairs
// over 16 partitions. HELIO_REPLAY_EVENTS says how many; default 100,000.
func BenchmarkReplay(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("HELIO_REPLAY_EVENTS"))
	if err != nil {
		n = 100_000
	}
	const slots = 16
	brokers, prefix := enginetest.Kafka(b)
	kc := kafka.Config{Brokers: brokers, TopicPrefix: prefix, Partitions: slots}
	cl, err := kafka.Dial(kc, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxBufferedRecords(20_000))
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(err)
	defer cl.Close()
	_, err = kafka.EnsureTopics(b.Context(), cl, kc)
	must(err)
	users := eventtest.NewWorld(2000, seeded).Users()
	const text = "a message of some hundred bytes, as people write them to one another every day in a chat"
	begun := time.Now()
	for i := range n {
		a, p := users[i%1000], users[1000+i%1000]
		t, m := id.DirectThread(a, p), id.NewMessage()
		v, err := proto.Marshal(eventv1.Event_builder{
			UserId: a[:],
			MessageSent: eventv1.MessageSent_builder{
				MessageId: m[:], Content: eventtest.Text(text), DirectPeer: p[:],
			}.Build(),
		}.Build())
		must(err)
		rec := kc.NewRecord(topic.Threads, topic.SlotOf(topic.Subject(t), slots), t[:], v)
		rec.Timestamp = begun.Add(time.Duration(i) * time.Microsecond)
		cl.Produce(b.Context(), rec, nil)
	}
	must(cl.Flush(b.Context()))
	cfg := generation.Config{Kafka: kc, Partitions: slots, Topics: threads.Topics, Retention: threads.DefaultRetention}
	fill := func(b *testing.B, store generation.Store, cfg generation.Config) {
		b.Helper()
		records, seconds := int64(0), 0.0
		for b.Loop() {
			sum, err := generation.Replay(
				b.Context(), store, cfg, generation.Options{Unverified: true, Stay: true, Fresh: true},
			)
			if err != nil || sum.Records < int64(n) {
				b.Fatalf("%v: %+v", err, sum)
			}
			records += sum.Records
			seconds += sum.Seconds
		}
		b.ReportMetric(float64(records)/seconds, "events/s")
	}
	b.Run(fmt.Sprintf("postgres/%d", n), func(b *testing.B) {
		url := enginetest.NewDatabase(b)
		files, err := fs.Sub(pgschema.FS, "views")
		must(err)
		_, err = postgres.Migrate(b.Context(), url, files, pgschema.ViewsSchema)
		must(err)
		pc := generation.PostgresConfig{Postgres: postgres.Config{URL: url}}
		store, err := generation.OpenPostgres(b.Context(), pc)
		must(err)
		defer store.Close()
		fill(b, store, cfg)
	})
	b.Run(fmt.Sprintf("clickhouse/%d", n), func(b *testing.B) {
		addr, password, database := enginetest.NewClickHouseDatabase(b)
		cc := clickhouse.Config{Addr: []string{addr}, Database: database, Password: password}
		files, err := fs.Sub(chschema.FS, "history")
		must(err)
		_, err = clickhouse.Migrate(b.Context(), cc, files)
		must(err)
		store, err := generation.OpenClickHouse(b.Context(), generation.ClickHouseConfig{ClickHouse: cc})
		must(err)
		defer store.Close()
		c := cfg
		c.Topics = history.Topics
		fill(b, store, c)
		all, err := store.Generations(b.Context())
		must(err)
		for _, g := range all {
			if g.State != generation.Live {
				must(store.Drop(b.Context(), g))
			}
		}
	})
}

func seeded(n int) int { return n / 2 }
