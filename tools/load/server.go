package load

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/procfs"
)

// errUnknown is returned for a figure of the servers that cannot be had from here.
var errUnknown = errors.New("not known from here")

// ticks of /proc's clock in a second: USER_HZ is 100 on every architecture that Go runs on.
const ticks = 100

// cpuSeconds are those that a process used, with its children that have ended.
func cpuSeconds(s procfs.ProcStat) float64 {
	return float64(int(s.UTime+s.STime)+s.CUTime+s.CSTime) / ticks
}

// cpuTimes are CPU seconds by process, each with all its children that are not named themselves. The one that holds the
// connections is "".
type cpuTimes map[string]float64

func (c cpuTimes) sum() float64 {
	n := 0.0
	for _, v := range c {
		n += v
	}
	return n
}

// since returns what was used after an earlier reading, in words for each process.
func (c cpuTimes) since(before cpuTimes, took time.Duration) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		out = append(out, fmt.Sprintf("%s %.2f", cmp.Or(name, "roles"), (c[name]-before[name])/took.Seconds()))
	}
	return strings.Join(out, ", ")
}

// cpu returns the CPU seconds that the servers' processes have used so far.
func (t Target) cpu() (cpuTimes, error) {
	if t.PID == 0 {
		return nil, errUnknown
	}
	procs, err := procfs.AllProcs()
	if err != nil || len(procs) == 0 {
		return nil, errUnknown
	}
	all := make(map[int]procfs.ProcStat, len(procs))
	for _, p := range procs {
		if s, err := p.Stat(); err == nil { // else it has ended, and its parent has its time
			all[p.PID] = s
		}
	}
	if _, ok := all[t.PID]; !ok {
		return nil, fmt.Errorf("the servers' process %d is gone", t.PID)
	}
	roots := map[int]string{t.PID: ""}
	for name, p := range t.Others {
		roots[p] = name
	}
	sum := cpuTimes{}
	for _, p := range all {
		for q, depth := p, 0; depth < 32; depth++ {
			if name, ok := roots[q.PID]; ok {
				sum[name] += cpuSeconds(p)
				break
			}
			var ok bool
			if q, ok = all[q.PPID]; !ok {
				break
			}
		}
	}
	return sum, nil
}

// ownCPU returns the CPU time of the generator so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // it is only shown
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rss returns the resident memory of the process that holds the connections, in bytes.
func (t Target) rss() (int64, error) {
	if t.PID == 0 {
		return 0, errUnknown
	}
	p, err := procfs.NewProc(t.PID)
	if err != nil {
		return 0, fmt.Errorf("memory of the servers: %w", err)
	}
	s, err := p.Stat()
	if err != nil {
		return 0, fmt.Errorf("memory of the servers: %w", err)
	}
	return int64(s.ResidentMemory()), nil
}

// settledRSS collects garbage and waits until the memory has stopped changing, at most 15 times a second.
func (t Target) settledRSS(ctx context.Context) (int64, error) {
	last := int64(0)
	for try := 0; ; try++ {
		if t.Pprof != "" {
			if _, err := get(ctx, "http://"+t.Pprof+"/debug/pprof/heap?gc=1"); err != nil {
				return 0, err
			}
		}
		n, err := t.rss()
		if err != nil {
			return 0, err
		}
		if d := n - last; try >= 3 && max(d, -d) < n/200 || try == 15 {
			return n, nil
		}
		last = n
		if err := sleep(ctx, time.Second); err != nil {
			return 0, err
		}
	}
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("ask the servers: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the servers: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it is read
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return "", fmt.Errorf("ask the servers: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask the servers: %s answered %s", url, res.Status)
	}
	return string(b), nil
}

// lag returns how many records each view is behind, over all topics and slots.
func (t Target) lag(ctx context.Context) (map[string]float64, error) {
	if t.Admin == "" {
		return nil, errUnknown
	}
	text, err := get(ctx, "http://"+t.Admin+"/metrics")
	if err != nil {
		return nil, err
	}
	return parseLag(text)
}

func parseLag(text string) (map[string]float64, error) {
	out := map[string]float64{}
	s := bufio.NewScanner(strings.NewReader(text))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		rest, ok := strings.CutPrefix(s.Text(), "helio_kafka_lag_records{")
		if !ok {
			continue
		}
		labels, value, ok := strings.Cut(rest, "} ")
		if !ok {
			return nil, fmt.Errorf("metric line %.80q", s.Text())
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return nil, fmt.Errorf("metric line %.80q: %w", s.Text(), err)
		}
		for l := range strings.SplitSeq(labels, ",") {
			if view, ok := strings.CutPrefix(l, `view="`); ok {
				out[strings.TrimSuffix(view, `"`)] += n
			}
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	if len(out) == 0 {
		return nil, errUnknown
	}
	return out, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
