package run

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Expiry is when the first of the certificates in a PEM file expires.
func Expiry(file string) (time.Time, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, fmt.Errorf("read certificate: %w", err)
	}
	var first time.Time
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}, fmt.Errorf("read certificate %s: %w", file, err)
		}
		if first.IsZero() || cert.NotAfter.Before(first) {
			first = cert.NotAfter
		}
	}
	if first.IsZero() {
		return time.Time{}, fmt.Errorf("read certificate %s: there is none", file)
	}
	return first, nil
}

// Certificates exports when a process's certificates expire, read anew whenever that is asked for. Its methods may be
// called from any goroutine.
type Certificates struct {
	desc *prometheus.Desc

	mu    sync.Mutex // guards files
	files map[string]string
}

// NewCertificates returns the export of no certificate yet. A nil reg registers nothing.
func NewCertificates(reg prometheus.Registerer) *Certificates {
	return Register(reg, &Certificates{
		desc: prometheus.NewDesc("helio_run_certificate_expiry_timestamp_seconds",
			"When the certificate expires, of a bundle the first; 0 where it cannot be read.",
			[]string{"certificate"}, nil),
		files: map[string]string{},
	})
}

// Watch adds the file of a certificate, by what it is for. One that cannot be read counts as expired.
func (c *Certificates) Watch(what, file string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files[what] = file
}

// Describe implements prometheus.Collector.
func (c *Certificates) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect implements prometheus.Collector.
func (c *Certificates) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	files := maps.Clone(c.files)
	c.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(files)) {
		seconds := 0.0
		if at, err := Expiry(files[what]); err == nil {
			seconds = float64(at.Unix())
		}
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, seconds, what)
	}
}
