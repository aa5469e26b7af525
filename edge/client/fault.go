package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/quic-go/quic-go"
)

// What a Fault is about; told by errors.Is.
var (
	// ErrCertificate is an edge whose certificate this device does not trust: signed by nobody whom it trusts, or for
	// another name.
	ErrCertificate = errors.New("the edge's certificate is not to be trusted")
	// ErrClock is a certificate that is not valid at the time that this device's clock shows. Only a person can tell
	// whether the clock is wrong or the certificate has run out.
	ErrClock = errors.New("the edge's certificate is not valid now")
	// ErrNoEdge is an address where something answers that is no edge of this version.
	ErrNoEdge = errors.New("no edge is at this address")
)

// Fault is why an edge cannot be connected to where that does not mend itself: trying again is of no use before
// somebody has set a clock, a certificate or an address right. The client goes on trying all the same, and calls that
// wait for a connection fail with it at once when there is no address without one.
type Fault struct {
	Addr   string // of the edge
	What   error  // ErrCertificate, ErrClock or ErrNoEdge
	Detail string // for whoever mends it
}

// Error names the address, what is wrong and what is known about it.
func (f *Fault) Error() string { return fmt.Sprintf("%s: %v: %s", f.Addr, f.What, f.Detail) }

// Unwrap makes errors.Is find What.
func (f *Fault) Unwrap() error { return f.What }

// alertNoProtocol is TLS's answer to an ALPN that is not spoken (RFC 7301, section 3.2), as QUIC carries it (RFC 9001,
// section 4.8).
const alertNoProtocol quic.TransportErrorCode = 0x100 + 120

// faultOf tells whether a connection failed by a Fault; nil: not.
func faultOf(addr string, err error, now time.Time) *Fault {
	var invalid x509.CertificateInvalidError
	var untrusted *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var transport *quic.TransportError
	var version *quic.VersionNegotiationError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		const form = "2006-01-02 15:04 MST"
		return &Fault{addr, ErrClock, fmt.Sprintf(
			"it is good from %s to %s, and this device's clock says %s", invalid.Cert.NotBefore.UTC().Format(form),
			invalid.Cert.NotAfter.UTC().Format(form), now.UTC().Format(form),
		)}
	case errors.As(err, &name):
		return &Fault{addr, ErrCertificate, name.Error()}
	case errors.As(err, &authority):
		return &Fault{addr, ErrCertificate, authority.Error()}
	case errors.As(err, &untrusted):
		return &Fault{addr, ErrCertificate, untrusted.Err.Error()}
	case errors.As(err, &version):
		return &Fault{addr, ErrNoEdge, version.Error()}
	case errors.As(err, &transport) && transport.ErrorCode == alertNoProtocol:
		return &Fault{addr, ErrNoEdge, "it does not speak this protocol"}
	}
	return nil
}

// failed notes how an attempt to connect to an address ended, and returns the error to tell and whether there is an
// address left without a Fault.
func (c *Client) failed(addr string, err error) (told error, lasting bool) {
	f := faultOf(addr, err, time.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	if f == nil {
		delete(c.faults, addr)
		c.lasting = nil
		return err, false
	}
	c.faults[addr] = true
	c.lasting = nil
	if len(c.faults) == len(c.addrs) {
		c.lasting = f
		c.lastings++
		c.notify()
	}
	return f, c.lasting != nil
}
