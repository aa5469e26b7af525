package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"heliograph/infra/embedded/engine"
)

const (
	devStart = 2 * time.Minute  // to come up
	devStop  = 30 * time.Second // to stop by itself
)

// Dev is a helio dev of the bench's own, as a process of its own, so that its CPU and memory are told from the
// generator's.
type Dev struct {
	exe, dir string
	args     []string
	cmd      *exec.Cmd
	log      *os.File
	ended    <-chan struct{} // closed when cmd has ended
}

// StartDev starts exe dev with its data in dir, on ports that the system chooses, and waits until its first message has
// gone round. args are added to the command.
func StartDev(ctx context.Context, exe, dir string, args ...string) (*Dev, error) {
	d := &Dev{exe: exe, dir: dir, args: args}
	return d, d.start(ctx)
}

func (d *Dev) start(ctx context.Context) error {
	const any = "127.0.0.1:0"
	log, err := os.OpenFile(filepath.Join(d.dir, "dev.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start helio dev: %w", err)
	}
	args := append([]string{
		"dev", "--data", d.dir, "--listen", any, "--admin", any, "--pprof", any,
		"--kafka-listen", any, "--postgres-listen", any, "--clickhouse-listen", any,
	}, d.args...)
	d.cmd = exec.Command(d.exe, args...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// An interrupt at the terminal is for the bench, which then stops it; a bench that is killed takes it along.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	exit, err := engine.Spawn(d.cmd)
	if err != nil {
		return errors.Join(fmt.Errorf("start helio dev: %w", err), log.Close())
	}
	d.log, d.ended = log, exit.Done() // how it ended stands in the log
	cmd, ended := d.cmd, d.ended
	ctx, cancel := context.WithTimeout(ctx, devStart)
	defer cancel()
	for {
		if s, err := readDev(d.dir); err == nil && s.PID == cmd.Process.Pid && s.Canary != "" {
			if s.Canary != "went round" && s.Canary != "off" {
				return errors.Join(
					fmt.Errorf("the first message of helio dev did not come round: %s\n%s", s.Canary, d.tail()),
					d.Stop(),
				)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("helio dev did not come up: %w\n%s", context.Cause(ctx), d.tail()), d.Stop())
		case <-ended:
			return errors.Join(fmt.Errorf("helio dev ended at its start:\n%s", d.tail()), d.Stop())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tail returns the last lines of its log.
func (d *Dev) tail() string {
	b, err := os.ReadFile(d.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Restart stops it and starts it anew with the same data.
func (d *Dev) Restart(ctx context.Context) error {
	if err := d.Stop(); err != nil {
		return err
	}
	return d.start(ctx)
}

// Stop ends it: by a signal, and after a while for good.
func (d *Dev) Stop() error {
	select {
	case <-d.ended:
	default:
		_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended just now
		select {
		case <-d.ended:
		case <-time.After(devStop):
			_ = d.cmd.Process.Kill() // as above
			<-d.ended
			return errors.Join(fmt.Errorf("helio dev did not stop within %v:\n%s", devStop, d.tail()), d.log.Close())
		}
	}
	if err := d.log.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close the log of helio dev: %w", err)
	}
	return nil
}

// Target is how to reach it.
func (d *Dev) Target() (Target, error) { return DevTarget(d.dir) }

// devFile is what this package reads of dev.json.
type devFile struct {
	PID     int            `json:"pid"`
	Edge    string         `json:"edge"`
	Admin   string         `json:"admin"`
	Pprof   string         `json:"pprof"`
	Kafka   string         `json:"kafka"`
	CA      string         `json:"ca"`
	SMS     string         `json:"sms"`
	Engines map[string]int `json:"engines"`
	Canary  string         `json:"canary"`
}

func readDev(dir string) (devFile, error) {
	var s devFile
	b, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err != nil {
		return s, fmt.Errorf("read dev.json: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("read dev.json: %w", err)
	}
	return s, nil
}

// DevTarget is how to reach the helio dev that runs with its data in dir.
func DevTarget(dir string) (Target, error) {
	s, err := readDev(dir)
	if err != nil {
		return Target{}, err
	}
	conf, err := TrustFile(s.CA)
	if err != nil {
		return Target{}, err
	}
	return Target{
		Edge:   s.Edge,
		TLS:    conf,
		Pins:   NewSMSFile(s.SMS),
		Admin:  s.Admin,
		Pprof:  s.Pprof,
		PID:    s.PID,
		Others: s.Engines,
		Kafka:  []string{s.Kafka},
	}, nil
}

// TrustFile returns a TLS configuration that trusts the certificates of a PEM file.
func TrustFile(path string) (*tls.Config, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}
