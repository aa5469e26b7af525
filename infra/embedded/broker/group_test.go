package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// lossy is a disk that remembers what was synced: of a directory its names, of a segment its length, and of the other
// files of the log's directory, which are synced before they get their names, what was in them.
type lossy struct {
	mu    sync.Mutex
	names map[string][]string
	bytes map[string]int64
	whole map[string][]byte
	fault error
	slow  func() // called before a segment is synced
}

func newLossy() *lossy {
	return &lossy{names: make(map[string][]string), bytes: make(map[string]int64), whole: make(map[string][]byte)}
}

// Sync implements disk. What a sync is sure to bring to the disk is what was there when it began.
func (l *lossy) Sync(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if l.slow != nil && !info.IsDir() {
		l.slow()
	}
	var names []string
	whole := make(map[string][]byte)
	if info.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, e := range entries {
			names = append(names, e.Name())
			if strings.HasSuffix(e.Name(), ".json") {
				if whole[filepath.Join(path, e.Name())], err = os.ReadFile(filepath.Join(path, e.Name())); err != nil {
					return err
				}
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault != nil {
		return l.fault
	}
	if !info.IsDir() {
		l.bytes[path] = max(l.bytes[path], info.Size())
		return nil
	}
	l.names[path] = names
	for p, b := range whole {
		l.whole[p] = b
	}
	return nil
}

// cut copies what a power cut in this moment leaves of dir.
func (l *lossy) cut(dir, to string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.copy(dir, to)
}

func (l *lossy) copy(dir, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range l.names[dir] {
		from, to := filepath.Join(dir, name), filepath.Join(to, name)
		if _, ok := l.names[from]; ok {
			if err := l.copy(from, to); err != nil {
				return err
			}
			continue
		}
		b, whole := l.whole[from]
		if n := l.bytes[from]; !whole && n > 0 {
			was, err := os.ReadFile(from)
			if err != nil {
				return err
			}
			b = was[:n]
		}
		if info, err := os.Stat(from); err == nil && info.IsDir() {
			if err := os.MkdirAll(to, 0o700); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// told is what clients were told of a log: by partition and offset, the values.
type told struct {
	mu     sync.Mutex
	values map[int32]map[int64]string
	ends   map[int32]int64
}

func newTold() *told {
	return &told{values: make(map[int32]map[int64]string), ends: make(map[int32]int64)}
}

func (a *told) add(r *kgo.Record) {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := a.values[r.Partition]
	if of == nil {
		of = make(map[int64]string)
		a.values[r.Partition] = of
	}
	of[r.Offset] = string(r.Value)
}

func (a *told) count() (n int) {
	for _, of := range a.values {
		n += len(of)
	}
	return n
}

// clone is what was told up to now.
func (a *told) clone() *told {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := newTold()
	for p, of := range a.values {
		b.values[p] = maps.Clone(of)
	}
	b.ends = maps.Clone(a.ends)
	return b
}

// TestPowerCut: whatever the moment of a power cut, the log has what was acknowledged, what was read and the ends that
// were told, over segments that end, with clients of today and such that name topics by name. The moments are those in
// which the most is under way: a sync has been asked for, and the disk takes its time.
func TestPowerCut(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const parts, each = 4, 60
	disk := newLossy()
	dir := t.TempDir()
	addr, stop := running(t, Config{DataDir: dir, disk: disk})
	defer quietly(stop)
	adm := kadm.NewClient(dial(t, addr))
	segment := "2048"
	config := map[string]*string{"segment.bytes": &segment}
	if _, err := adm.CreateTopic(ctx, parts, 1, config, "t"); err != nil {
		t.Fatal(err)
	}
	said := newTold()
	type outage struct {
		dir string
		has *told
	}
	var outages []outage // guarded by mu
	var mu sync.Mutex
	cut := func() {
		o := outage{dir: t.TempDir(), has: said.clone()} // before the cut: what was told by then
		err := errors.Join(disk.cut(logOf(dir), logOf(o.dir)),
			os.Link(filepath.Join(dir, "engine.json"), filepath.Join(o.dir, "engine.json")))
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		outages = append(outages, o)
	}
	var calls atomic.Int64
	other := kadm.NewClient(dial(t, addr))
	disk.slow = func() {
		if n := calls.Add(1); n != 5 && n%30 != 0 || n > 150 {
			return
		}
		for range 20 { // whoever does not wait for the disk gets far meanwhile
			if _, err := other.ListGroups(ctx); err != nil {
				t.Error(err)
			}
		}
		cut()
	}
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	var readers, writers sync.WaitGroup
	readers.Go(func() {
		for reading.Err() == nil {
			ends, err := adm.ListEndOffsets(reading, "t")
			if err != nil {
				return
			}
			said.mu.Lock()
			ends.Each(func(o kadm.ListedOffset) { said.ends[o.Partition] = max(said.ends[o.Partition], o.Offset) })
			said.mu.Unlock()
		}
	})
	for i, opts := range [][]kgo.Opt{nil, {kgo.MaxVersions(kversion.V2_8_0())}} {
		start := kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())
		reader := dial(t, addr, append(opts, kgo.ConsumeTopics("t"), start)...)
		readers.Go(func() {
			for reading.Err() == nil {
				reader.PollFetches(reading).EachRecord(said.add)
			}
		})
		writer := dial(t, addr, append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
		for p := range int32(parts) {
			writers.Go(func() {
				for n := range each {
					value := fmt.Appendf(nil, "%d/%d/%d %0100d", i, p, n, n)
					r := &kgo.Record{Topic: "t", Partition: p, Value: value}
					if err := writer.ProduceSync(ctx, r).FirstErr(); err != nil {
						t.Error(err)
						return
					}
					said.add(r)
				}
			})
		}
	}
	writers.Wait()
	stopReading()
	readers.Wait()
	cut()
	if n := len(outages); n < 3 {
		t.Errorf("only %d cuts", n)
	}
	if last := outages[len(outages)-1].has.count(); last < 2*parts*each {
		t.Errorf("%d records were told of, want %d", last, 2*parts*each)
	}
	for i, o := range outages {
		check(ctx, t, i, o.dir, o.has)
	}
}

func logOf(dir string) string { return filepath.Join(dir, "log") }

// check holds the log in dir against what was told.
func check(ctx context.Context, t *testing.T, i int, dir string, want *told) {
	t.Helper()
	addr, stop := running(t, Config{DataDir: dir, NoSync: true})
	defer quietly(stop)
	ends, err := kadm.NewClient(dial(t, addr)).ListEndOffsets(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	left := int64(0)
	ends.Each(func(o kadm.ListedOffset) {
		left += o.Offset
		if o.Err != nil || o.Offset < want.ends[o.Partition] {
			t.Errorf("cut %d: partition %d ends at %d (%v), %d was told", i, o.Partition, o.Offset, o.Err,
				want.ends[o.Partition])
		}
	})
	got := newTold()
	cl := dial(t, addr, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for n := 0; int64(n) < left; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(got.add)
		n = got.count()
	}
	lost := 0
	for p, of := range want.values {
		for o, v := range of {
			if got.values[p][o] != v {
				lost++
			}
		}
	}
	if lost > 0 {
		t.Errorf("cut %d: of %d records that clients had or had an ack of, %d are lost", i, want.count(), lost)
	}
	// and it takes new records
	if err := dial(t, addr).ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("on")}).FirstErr(); err != nil {
		t.Error(err)
	}
}

// TestDiskRefuses: what the disk did not take is neither acknowledged nor shown, and ends the broker.
func TestDiskRefuses(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	disk := newLossy()
	running, end := context.WithCancel(ctx)
	defer end()
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- Run(running, Config{DataDir: t.TempDir(), disk: disk}, func(addr string) { ready <- addr })
	}()
	addr := <-ready
	cl := dial(t, addr, kgo.RecordDeliveryTimeout(time.Second), kgo.RecordRetries(0))
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	reader := dial(t, addr, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("kept")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := reader.PollFetches(ctx).Records(); len(got) != 1 || string(got[0].Value) != "kept" {
		t.Fatalf("read %v", got)
	}
	disk.mu.Lock()
	disk.fault = syscall.EIO
	disk.mu.Unlock()
	cl.Produce(ctx, &kgo.Record{Topic: "t", Value: []byte("lost")}, func(_ *kgo.Record, err error) {
		if err == nil {
			t.Error("acknowledged")
		}
	})
	polling, stopPolling := context.WithCancel(ctx)
	var read sync.WaitGroup
	read.Go(func() {
		for polling.Err() == nil {
			reader.PollFetches(polling).EachRecord(func(r *kgo.Record) { t.Errorf("read %q", r.Value) })
		}
	})
	if err := <-done; !errors.Is(err, syscall.EIO) {
		t.Errorf("got %v, want %v", err, syscall.EIO)
	}
	stopPolling()
	read.Wait()
	cl.CloseAllowingRebalance()
}
