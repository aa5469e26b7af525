package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"heliograph/infra/admin"
	"heliograph/infra/run"
)

// askReady asks a process whether it is ready.
func askReady(ctx context.Context, t *testing.T, p *process) (code int, status admin.Status) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+"/readyz", nil)
	if err != nil {
		t.Error(err)
		return 0, status
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0, status
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&status); err != nil {
		t.Error(err)
	}
	return answer.StatusCode, status
}

// A role that stops says so in /readyz before any of its services drains, whether a signal or a failure ends it.
func TestReadyzWhileStopping(t *testing.T) {
	for name, end := range map[string]func(cancel context.CancelFunc, failed chan<- error){
		"signal":  func(cancel context.CancelFunc, _ chan<- error) { cancel() },
		"failure": func(_ context.CancelFunc, failed chan<- error) { failed <- errors.New("broken") },
	} {
		t.Run(name, func(t *testing.T) {
			p, err := newProcess(slog.New(slog.DiscardHandler), "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			up, failed := make(chan struct{}), make(chan error, 1)
			p.group.Go("fails", func(ctx context.Context) error {
				select {
				case err := <-failed:
					return err
				case <-ctx.Done():
					return nil
				}
			})
			var code int
			var status admin.Status
			p.group.Add(run.Service{
				Name:  "role",
				Run:   func(ctx context.Context) error { close(up); <-ctx.Done(); return nil },
				Drain: func(ctx context.Context) error { code, status = askReady(ctx, t, p); return nil },
			})
			done := make(chan error, 1)
			go func() { done <- p.run(ctx) }()
			<-up
			if code, _ := askReady(ctx, t, p); code != http.StatusOK {
				t.Errorf("status %d while it runs, want 200", code)
			}
			end(cancel, failed)
			select {
			case <-done:
			case <-time.After(wait):
				t.Fatal("the process did not stop")
			}
			if code != http.StatusServiceUnavailable || !status.Draining {
				t.Errorf("status %d, draining %v while it stops, want 503 and true", code, status.Draining)
			}
		})
	}
}
