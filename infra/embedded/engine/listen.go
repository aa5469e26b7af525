package engine

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// The range in which ports are picked; see the package comment for why it ends where it does.
const (
	firstPort = 20000
	lastPort  = 32767
	portTries = 200
)

// Listen listens on addr, a loopback or other specific host with a port. Port 0 picks a free one.
func Listen(kind Kind, addr string) (net.Listener, error) {
	host, port, err := splitListen(kind, addr)
	if err != nil {
		return nil, err
	}
	if port != 0 {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, listenError(kind, addr, err)
		}
		return ln, nil
	}
	for range portTries {
		p := firstPort + rand.IntN(lastPort-firstPort+1)
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(p)))
		if err == nil {
			return ln, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
			return nil, listenError(kind, addr, err)
		}
	}
	// The range is crowded: let the kernel choose.
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, listenError(kind, addr, err)
	}
	return ln, nil
}

// CheckListen reports an address that no engine could listen on, without trying.
func CheckListen(kind Kind, addr string) error {
	_, _, err := splitListen(kind, addr)
	return err
}

// Reserve returns addr with a port that was free a moment ago, for an engine that binds for itself. picked says that
// the port was chosen here, so that losing the race for it is worth another try.
func Reserve(kind Kind, addr string) (free string, picked bool, err error) {
	ln, err := Listen(kind, addr)
	if err != nil {
		return "", false, err
	}
	free = ln.Addr().String()
	if err := ln.Close(); err != nil {
		return "", false, listenError(kind, addr, err)
	}
	_, port, err := net.SplitHostPort(addr)
	return free, err == nil && port == "0", nil
}

func splitListen(kind Kind, addr string) (host string, port int, err error) {
	bad := &Error{
		Engine: kind, Fault: BadListen, Reason: "cannot listen on " + strconv.Quote(addr),
		Mend: "give one address of this host and a port, as in --listen 127.0.0.1:0",
	}
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, bad
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, bad
	}
	ip := net.ParseIP(host)
	if ip == nil && host != "localhost" {
		return "", 0, bad
	}
	// Kafka and the ready line name the address to clients: a wildcard names nothing that can be dialled.
	if ip != nil && ip.IsUnspecified() {
		return "", 0, bad
	}
	return host, port, nil
}

func listenError(kind Kind, addr string, err error) *Error {
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(addr)
		return &Error{
			Engine: kind, Fault: PortInUse, Reason: "port " + port + " is in use (" + addr + ")",
			Mend: "stop what listens there or give another with --listen HOST:PORT",
		}
	}
	return &Error{
		Engine: kind, Fault: BadListen, Reason: "cannot listen on " + addr, Err: cause(err),
		Mend: "give one address of this host and a port, as in --listen 127.0.0.1:0",
	}
}
