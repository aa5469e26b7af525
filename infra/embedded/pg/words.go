package pg

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
)

// maxWords bounds the lines that are kept for an error message, and maxLine one line.
const (
	maxWords = 20
	maxLine  = 8 << 10
)

// words takes the server's output, passes it to the log line by line and keeps the last lines.
type words struct {
	log *slog.Logger

	mu   sync.Mutex
	part []byte
	kept []string
}

// Write implements io.Writer. It may be called from any goroutine.
func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	var lines []string
	w.part = append(w.part, p...)
	for {
		i := bytes.IndexByte(w.part, '\n')
		if i < 0 {
			break
		}
		lines = append(lines, string(w.part[:i]))
		w.part = w.part[i+1:]
	}
	if len(w.part) > maxLine {
		w.part = w.part[:maxLine]
	}
	w.kept = append(w.kept, lines...)
	if n := len(w.kept) - maxWords; n > 0 {
		w.kept = append([]string(nil), w.kept[n:]...)
	}
	w.mu.Unlock()
	for _, line := range lines {
		severity, text, ok := strings.Cut(line, ":  ")
		if !ok {
			severity, text = "", line
		}
		w.log.Log(context.Background(), levels[severity], strings.TrimSpace(text))
	}
	return len(p), nil
}

// levels maps PostgreSQL's severities. An ERROR is the answer to one client's statement: the client reports it.
var levels = map[string]slog.Level{
	"PANIC": slog.LevelError, "FATAL": slog.LevelWarn, "WARNING": slog.LevelWarn,
	"ERROR": slog.LevelDebug, "LOG": slog.LevelDebug, "": slog.LevelDebug,
}

func (w *words) all() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.kept, "\n") + string(w.part)
}

// last is the line that says most about an end: the last FATAL or PANIC, else the last line.
func (w *words) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := len(w.kept) - 1; i >= 0; i-- {
		for _, severity := range []string{"PANIC:", "FATAL:"} {
			if strings.HasPrefix(w.kept[i], severity) {
				return w.kept[i]
			}
		}
	}
	if n := len(w.kept); n > 0 {
		return w.kept[n-1]
	}
	return ""
}
