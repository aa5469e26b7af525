package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sync/errgroup"
)

const (
	// syncsAtOnce is how many files are synced side by side: they share the journal's commits.
	syncsAtOnce = 32
	// slowSync is how long a sync takes that is worth a line, of which there is one in slowEvery.
	slowSync  = time.Second
	slowEvery = time.Minute
	// knownTopics is how many topics' ids are remembered: topics that are made and deleted for ever fill no memory.
	knownTopics = 10_000
)

// errStopping ends those who wait when the broker stops: their clients ask again.
var errStopping = errors.New("the broker stops")

// place is what a response shows of one partition.
type place struct {
	where
	// need is the offset up to which the disk must have the log before the response may pass; always: a sync must come.
	need int64
	// has is the offset up to which the log was written when the response was made.
	has int64
}

// always is the need of an acknowledgement.
const always = -1

// where names a partition by the topic's name or, where a response has none, by its id.
type where struct {
	topic     string
	id        [16]byte
	partition int32
}

// group is the group commit. Responses that show what the disk may not have yet gather in a round and wait for its
// sync, which begins after they came and takes in the files of all their partitions. There is one sync at a time, and
// none while nobody waits.
type group struct {
	// fixed before run, which alone asks for topics
	root   string // the log's directory
	disk   disk
	topics topicsOf
	log    *slog.Logger
	wake   chan struct{} // room for one: there is a next round

	// run's
	dirs map[where]*dirState
	told time.Time // when a slow disk was last told of

	// guarded by mu
	mu     sync.Mutex
	next   *round // gathers; nil when nobody waits
	names  map[[16]byte]string
	synced map[where]int64 // the disk has what is before this offset
	err    error           // why there is no further round
}

// round is a sync to come.
type round struct {
	want map[where]int64 // the partitions, and up to where the log was written
	done chan struct{}   // closed when it is over
	err  error           // fixed when done is closed
}

// dirState is what the disk has of a partition's directory.
type dirState struct {
	dir   os.FileInfo
	files map[string]os.FileInfo // the segments, as they were before they were synced
}

// disk syncs a file or a directory.
type disk interface{ Sync(path string) error }

// realDisk is the operating system's.
type realDisk struct{}

// Sync implements disk. Any descriptor syncs the whole file, whoever wrote it.
func (realDisk) Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func newGroup(root string, d disk, log *slog.Logger) *group {
	return &group{
		root: root, disk: d, log: log, wake: make(chan struct{}, 1), dirs: make(map[where]*dirState),
		names: make(map[[16]byte]string), synced: make(map[where]int64),
	}
}

// join returns the round that a response with these places must wait for; nil: the disk has what it shows. Any
// goroutine may call it, also before run.
func (g *group) join(places []place) *round {
	g.mu.Lock()
	defer g.mu.Unlock()
	var r *round
	for _, p := range places {
		at := p.where
		if name := g.names[at.id]; at.topic == "" && name != "" {
			at = where{topic: name, partition: at.partition}
		}
		if p.need != always && p.need <= g.synced[at] {
			continue
		}
		if g.err != nil {
			return over(g.err)
		}
		if g.next == nil {
			g.next = &round{want: make(map[where]int64), done: make(chan struct{})}
			select {
			case g.wake <- struct{}{}:
			default:
			}
		}
		r = g.next
		r.want[at] = max(r.want[at], p.has)
	}
	return r
}

// over is a round that has ended with an error.
func over(err error) *round {
	r := &round{done: make(chan struct{}), err: err}
	close(r.done)
	return r
}

// run syncs round after round until ctx ends, which is no error, or the disk fails. Who waits then gets an error, and
// whoever joins later.
func (g *group) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			g.end(errStopping)
			return nil
		case <-g.wake:
		}
		g.mu.Lock()
		r := g.next
		g.next = nil
		g.mu.Unlock()
		began := time.Now()
		fresh, err := g.sync(r)
		if took := time.Since(began); took > slowSync && began.Sub(g.told) > slowEvery {
			g.told = began
			g.log.Warn("disk is slow: acknowledgements wait for it", "sync", took, "files", len(r.want))
		}
		if err != nil {
			r.err = err
			close(r.done)
			g.end(err)
			return err
		}
		g.mu.Lock()
		for at, upTo := range r.want {
			if fresh[at] {
				g.synced[at] = upTo // another topic of this name, perhaps
			}
			g.synced[at] = max(g.synced[at], upTo)
		}
		g.mu.Unlock()
		close(r.done)
	}
}

func (g *group) end(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	if g.next != nil {
		g.next.err = err
		close(g.next.done)
		g.next = nil
	}
}

// start lets it run until the returned function is called, which waits for the sync under way.
func (g *group) start(cluster *kfake.Cluster, failed chan<- error) (stop func()) {
	g.topics = topicsOf{cluster}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := g.run(ctx); err != nil {
			failed <- err // there is room for the only one
		}
	}()
	return func() { cancel(); <-done }
}

// topicsOf is what is asked of the broker; the answers come from its one goroutine.
type topicsOf struct{ cluster *kfake.Cluster }

// named returns the name of the topic with this id; empty: there is none.
func (t topicsOf) named(id [16]byte) string {
	if info := t.cluster.TopicIDInfo(id); info != nil {
		return info.Topic
	}
	return ""
}

// there says whether there is a topic of this name.
func (t topicsOf) there(topic string) bool { return t.cluster.TopicInfo(topic) != nil }

// begin syncs the directories that lead to the log, as far as this process may open them, so that no power cut takes
// away the whole.
func (g *group) begin() error {
	for dir := g.root; ; dir = filepath.Dir(dir) {
		if err := g.disk.Sync(dir); err != nil {
			if dir != g.root && (errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported)) {
				return nil
			}
			return err
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// syncTries is how often a round is begun again because a file was removed meanwhile: by compaction, which puts another
// in its place, or by a topic's retention.
const syncTries = 5

// sync brings the round's partitions to the disk, and names those whose directory is not the one known before.
func (g *group) sync(r *round) (fresh map[where]bool, err error) {
	g.resolve(r)
	for range syncTries {
		if fresh, err = g.pass(r); !errors.Is(err, fs.ErrNotExist) {
			return fresh, err
		}
		for at := range r.want {
			delete(g.dirs, at)
		}
	}
	return nil, err
}

func (g *group) pass(r *round) (fresh map[where]bool, err error) {
	fresh = make(map[where]bool)
	var all errgroup.Group
	all.SetLimit(syncsAtOnce)
	above := false
	for at := range r.want {
		dir := filepath.Join(g.root, "partitions", fmt.Sprintf("%s-%d", url.PathEscape(at.topic), at.partition))
		now, err := list(dir)
		if errors.Is(err, fs.ErrNotExist) && (at.topic == "" || !g.topics.there(at.topic)) {
			delete(g.dirs, at)
			continue // the topic was deleted, and its records with it
		}
		if err != nil {
			return nil, errors.Join(err, all.Wait())
		}
		was := g.dirs[at]
		if was == nil || !os.SameFile(was.dir, now.dir) {
			was = &dirState{}
			fresh[at], above = true, true
		}
		grown := false
		for name, is := range now.files {
			before, known := was.files[name]
			grown = grown || !known
			if !known || !same(before, is) {
				all.Go(func() error { return g.disk.Sync(filepath.Join(dir, name)) })
			}
		}
		if grown {
			all.Go(func() error { return g.disk.Sync(dir) })
		}
		g.dirs[at] = now
	}
	if above { // the topics' list, too, stands there
		for _, up := range []string{filepath.Join(g.root, "partitions"), g.root} {
			all.Go(func() error { return g.disk.Sync(up) })
		}
	}
	return fresh, all.Wait()
}

// resolve replaces the ids of topics by their names.
func (g *group) resolve(r *round) {
	for at, upTo := range r.want {
		if at.topic != "" {
			continue
		}
		name := g.topics.named(at.id)
		if name == "" {
			continue // deleted
		}
		g.mu.Lock()
		if len(g.names) >= knownTopics {
			clear(g.names)
		}
		g.names[at.id] = name
		g.mu.Unlock()
		delete(r.want, at)
		known := where{topic: name, partition: at.partition}
		r.want[known] = max(r.want[known], upTo)
	}
}

// list looks at a partition's directory and its segments. Their indexes are not asked for: the broker reads a log whose
// index is short or missing as well, as long as nobody has used transactions.
func list(dir string) (*dirState, error) {
	self, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	s := &dirState{dir: self, files: make(map[string]os.FileInfo)}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), segmentSuffix) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		s.files[e.Name()] = info
	}
	return s, nil
}

// segmentSuffix is what the names of the files end with that hold records.
const segmentSuffix = ".dat"

// same says whether a file is as it was: segments only grow, or are replaced.
func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
