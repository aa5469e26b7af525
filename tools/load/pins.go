package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"heliograph/edge/auth"
)

// Pins gives the PIN that was sent to a phone number.
type Pins interface {
	Pin(ctx context.Context, phone string) (string, error)
}

// FixedPin is the PIN of every number, in a deployment that is set up so.
type FixedPin string

// Pin returns it.
func (p FixedPin) Pin(context.Context, string) (string, error) { return string(p), nil }

// SMSFile reads the file of an auth.FileSender as it grows. Many may wait at the same time; the file is read once.
type SMSFile struct {
	path string

	mu     sync.Mutex // guards all below
	offset int64
	read   time.Time // when last
	pins   map[string]string
}

// NewSMSFile returns a reader of the file, which need not exist yet.
func NewSMSFile(path string) *SMSFile { return &SMSFile{path: path, pins: map[string]string{}} }

// Pin waits for the newest PIN of a number and forgets it.
func (s *SMSFile) Pin(ctx context.Context, phone string) (string, error) {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		pin, err := s.look(phone)
		if pin != "" || err != nil {
			return pin, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no SMS for %s in %s: %w", phone, s.path, ctx.Err())
		case <-t.C:
		}
	}
}

func (s *SMSFile) look(phone string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pins[phone] == "" && time.Since(s.read) > 2*time.Millisecond {
		if err := s.more(); err != nil {
			return "", err
		}
		s.read = time.Now()
	}
	pin := s.pins[phone]
	delete(s.pins, phone)
	return pin, nil
}

// more reads the whole lines that came since the last time. mu is held.
func (s *SMSFile) more() error {
	f, err := os.Open(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open sms file: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	if _, err := f.Seek(s.offset, io.SeekStart); err != nil {
		return fmt.Errorf("seek sms file: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, 16<<20))
	if err != nil {
		return fmt.Errorf("read sms file: %w", err)
	}
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return nil
		}
		var sms auth.SMS
		if err := json.Unmarshal(b[:i], &sms); err != nil {
			return fmt.Errorf("sms file at byte %d: %w", s.offset, err)
		}
		s.pins[sms.Phone] = sms.Pin
		s.offset += int64(i) + 1
		b = b[i+1:]
	}
}
