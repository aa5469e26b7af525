package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync"
	"time"
)

// Sender sends an SMS. It may be called concurrently; an error means that no SMS is on its way.
type Sender interface {
	Send(ctx context.Context, phone, text, pin string) error
}

// FileSender appends each SMS as a line of JSON to a file that only its owner can read, and says so on the log: for a
// laptop and for tests, never for people. The PIN itself goes to the file alone, since no log of ours ever holds one.
type FileSender struct {
	path string
	log  *slog.Logger
	mu   sync.Mutex // guards the file
}

// SMS is a line of a FileSender's file.
type SMS struct {
	Time  time.Time `json:"time"`
	Phone string    `json:"phone"`
	Pin   string    `json:"pin"`
	Text  string    `json:"text"`
}

// NewFileSender returns a sender that appends to path.
func NewFileSender(path string, log *slog.Logger) *FileSender {
	return &FileSender{path: path, log: log}
}

// Send appends a line.
func (f *FileSender) Send(_ context.Context, phone, text, pin string) error {
	line, err := json.Marshal(SMS{Time: time.Now().UTC(), Phone: phone, Pin: pin, Text: text})
	if err != nil {
		return fmt.Errorf("encode sms: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open sms file: %w", err)
	}
	if _, err := file.Write(append(line, '\n')); err != nil {
		_ = file.Close() // the write's error is the one that counts
		return fmt.Errorf("write sms file: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("close sms file: %w", err)
	}
	f.log.Info("sms written to file instead of being sent", "file", f.path)
	return nil
}

// GatewaySender posts each SMS to an HTTP gateway as JSON: {"to": "+49…", "text": "…"}. Any status from 200 to 299
// counts as taken. PINs and credentials leave this host only under TLS: http is for a gateway on the loopback.
type GatewaySender struct {
	url    string
	header http.Header
	client *http.Client
}

// NewGatewaySender returns a sender to a gateway's URL; header is sent with each request, for credentials. An error
// says what is wrong with the URL, without its secrets.
func NewGatewaySender(gateway string, header http.Header) (*GatewaySender, error) {
	u, err := url.Parse(gateway)
	if err != nil {
		return nil, errors.New("the gateway's URL cannot be read")
	}
	if err := sealed(u); err != nil {
		return nil, err
	}
	client := &http.Client{
		Timeout: 10 * time.Second,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 3 {
				return errors.New("too many redirects")
			}
			return sealed(r.URL)
		},
	}
	return &GatewaySender{url: gateway, header: header, client: client}, nil
}

// sealed refuses a URL by which a PIN would cross a network in the clear.
func sealed(u *url.URL) error {
	switch {
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("a gateway's URL begins with https:// and a host")
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return fmt.Errorf("http to %s would show PINs to the network: use https", u.Hostname())
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Send posts the SMS. The error never holds the text.
func (g *GatewaySender) Send(ctx context.Context, phone, text, _ string) error {
	body, err := json.Marshal(map[string]string{"to": phone, "text": text})
	if err != nil {
		return fmt.Errorf("encode sms: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("sms gateway request: %w", err)
	}
	for k, vs := range g.header {
		req.Header[k] = vs
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := g.client.Do(req)
	if err != nil {
		return fmt.Errorf("sms gateway: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // nothing to do about it: the answer is in
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)); err != nil {
		return fmt.Errorf("sms gateway answer: %w", err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("sms gateway answered %s", res.Status)
	}
	return nil
}
