package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"heliograph/edge/auth"
)

// waitPin waits for the PIN that was sent to a number after a moment, in the file of a FileSender.
func waitPin(ctx context.Context, file, phone string, since time.Time) (string, error) {
	number, err := auth.ParsePhone(phone, "")
	if err != nil {
		return "", err
	}
	for {
		pin, err := lastPin(file, number.E164, since)
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

// askPin returns a function that asks a person for the PIN of the SMS, again when one was wrong.
func askPin(in io.Reader, out io.Writer) func(ctx context.Context, phone string, since time.Time) (string, error) {
	lines := bufio.NewReader(in)
	asked := false
	return func(ctx context.Context, phone string, _ time.Time) (string, error) {
		if asked {
			fmt.Fprintln(out, "That PIN is wrong, has expired or was used already.")
		} else {
			fmt.Fprintf(out, "An SMS with a PIN is on its way to %s.\n", phone)
		}
		asked = true
		for {
			fmt.Fprint(out, "PIN: ")
			type answer struct {
				line string
				err  error
			}
			typed := make(chan answer, 1)
			go func() { // a read cannot be interrupted: at a signal it is left to the end of the process
				line, err := lines.ReadString('\n')
				typed <- answer{line, err}
			}()
			select {
			case <-ctx.Done():
				return "", ctx.Err()
			case a := <-typed:
				switch pin := strings.TrimSpace(a.line); {
				case pin != "":
					return pin, nil
				case a.err != nil:
					return "", fmt.Errorf("no PIN was typed; give the one of the SMS with --pin DIGITS (%w)", a.err)
				}
			}
		}
	}
}

// trust makes a configuration that trusts the certificates of a PEM file and no others; an empty name means the
// system's.
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
