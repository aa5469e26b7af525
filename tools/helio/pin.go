package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"heliograph/edge/auth"
)

// waitPin waits for the PIN that was sent to a number after a moment, in the file of a FileSender.
func waitPin(ctx context.Context, file, phone string, since time.Time) (string, error) {
	number, err := auth.ParsePhone(phone)
	if err != nil {
		return "", err
	}
	for {
		pin, err := lastPin(file, number, since)
		if err != nil || pin != "" {
			return pin, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no PIN for %s came to %s: %w", phone, file, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// lastPin returns the last PIN for a number since a moment, or none.
func lastPin(file, number string, since time.Time) (string, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("file of SMS: %w", err)
	}
	defer func() { _ = f.Close() }() // read only
	pin := ""
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		var s auth.SMS
		if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
			continue // a line that is being written
		}
		if s.Phone == number && !s.Time.Before(since) {
			pin = s.Pin
		}
	}
	if err := sc.Err(); err != nil {
		return "", fmt.Errorf("file of SMS: %w", err)
	}
	return pin, nil
}

// trust makes a configuration that trusts the certificates of a PEM file and no others; an empty name means the system's.
func trust(caFile string) (*tls.Config, error) {
	if caFile == "" {
		return &tls.Config{MinVersion: tls.VersionTLS13}, nil
	}
	b, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("certificates to trust (--ca): %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("certificates to trust (--ca): %s has none", caFile)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}, nil
}
