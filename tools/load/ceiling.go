package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"heliograph/infra/kafka"
)

const (
	ceilingSlots   = 16        // partitions of the topic, as many as the embedded log has
	ceilingRecord  = 220       // bytes: a MessageSent with a body of 100
	ceilingRecords = 2_000_000 // most that are produced, so that the broker keeps its disk
)

// ceiling measures what lies below, alone: the log written, the log read, and QUIC with nothing behind it.
func (b *bench) ceiling(ctx context.Context, _ context.CancelCauseFunc) error {
	length := min(b.cfg.Measure, 5*time.Second)
	b.say("ceiling: %v each", length)
	var errs []error
	if len(b.target.Kafka) > 0 {
		if err := b.logCeiling(ctx, length); err != nil {
			errs = append(errs, err)
		}
	}
	v, err := echo(ctx, b.cfg.Senders, b.cfg.Window, b.cfg.Body, length)
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("quic echo: %w", err))...)
	}
	b.result.Ceiling.QUICEchoPerS = &v
	b.say("ceiling: %.0f QUIC echoes a second", v)
	return errors.Join(errs...)
}

func (b *bench) logCeiling(ctx context.Context, length time.Duration) (err error) {
	cfg := kafka.Config{Brokers: b.target.Kafka, ClientID: "helio-bench"}
	cl, err := kafka.Dial(cfg, kafka.ProducerOpts(kafka.ProducerConfig{DeliveryTimeout: 10 * time.Second})...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var raw [6]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return fmt.Errorf("draw a name: %w", err)
	}
	name := "helio-bench-" + hex.EncodeToString(raw[:])
	adm := kadm.NewClient(cl)
	made, cancel := context.WithTimeout(ctx, b.cfg.patience)
	defer cancel()
	if _, err := adm.CreateTopic(made, ceilingSlots, 1, nil, name); err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if _, derr := adm.DeleteTopic(ctx, name); derr != nil {
			err = errors.Join(err, fmt.Errorf("delete topic %s: %w", name, derr))
		}
	}()
	n, took, err := produce(ctx, cl, name, length)
	if err != nil {
		return err
	}
	v := float64(n) / took.Seconds()
	b.result.Ceiling.ProducePerS = &v
	b.say("ceiling: %.0f records a second produced", v)
	took, err = consume(ctx, cfg, name, n, b.cfg.patience)
	if err != nil {
		return err
	}
	c := float64(n) / took.Seconds()
	b.result.Ceiling.ConsumePerS = &c
	b.say("ceiling: %.0f records a second consumed", c)
	return nil
}

// produce writes records as fast as the log takes them and returns how many it took, in which time.
func produce(ctx context.Context, cl *kgo.Client, name string, length time.Duration) (int64, time.Duration, error) {
	value := make([]byte, ceilingRecord)
	if _, err := rand.Read(value); err != nil { // a body that compresses would flatter the log
		return 0, 0, fmt.Errorf("draw a record: %w", err)
	}
	var done atomic.Int64
	var failed atomic.Pointer[error]
	began := time.Now()
	for n := 0; n < ceilingRecords && time.Since(began) < length && ctx.Err() == nil && failed.Load() == nil; n++ {
		r := &kgo.Record{Topic: name, Partition: int32(n % ceilingSlots), Key: value[:16], Value: value}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
				return
			}
			done.Add(1)
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return 0, 0, fmt.Errorf("produce: %w", err)
	}
	if p := failed.Load(); p != nil {
		return 0, 0, fmt.Errorf("produce: %w", *p)
	}
	return done.Load(), time.Since(began), nil
}

// consume reads n records from the beginning.
func consume(
	ctx context.Context, cfg kafka.Config, name string, n int64, patience time.Duration,
) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	from := map[int32]kgo.Offset{}
	for p := range int32(ceilingSlots) {
		from[p] = kgo.NewOffset().AtStart()
	}
	began := time.Now()
	cl, err := kafka.Dial(cfg, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from}))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	for got := int64(0); got < n; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return 0, fmt.Errorf("consume: %d of %d records: %w", got, n, err)
		}
		got += int64(fs.NumRecords())
	}
	return time.Since(began), nil
}

// echo runs a QUIC server that sends back what it gets and clients that keep window messages under way, each on one
// stream of a connection of its own, and returns how many messages came back a second.
func echo(ctx context.Context, clients, window, size int, length time.Duration) (_ float64, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, fmt.Errorf("make key: %w", err)
	}
	tpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		DNSNames:              []string{"echo"},
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		return 0, fmt.Errorf("make certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return 0, fmt.Errorf("make certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	conf := &quic.Config{MaxIdleTimeout: time.Minute}
	l, err := quic.ListenAddr("127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"echo"},
		MinVersion:   tls.VersionTLS13,
	}, conf)
	if err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer func() {
		cancel()
		err = errors.Join(err, l.Close())
		wg.Wait()
	}()
	wg.Go(func() {
		for {
			q, err := l.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() { _ = q.CloseWithError(0, "") }() // it is over either way
				defer context.AfterFunc(ctx, func() { _ = q.CloseWithError(0, "") })()
				if s, err := q.AcceptStream(ctx); err == nil {
					_, _ = io.Copy(s, s) // ends with the connection
				}
			})
		}
	})
	socks, err := openSockets(clients)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, socks.close()) }()
	addr, err := net.ResolveUDPAddr("udp", l.Addr().String())
	if err != nil {
		return 0, fmt.Errorf("own address: %w", err)
	}
	var bytes atomic.Int64
	for i := range clients {
		q, err := socks.of(i).Dial(ctx, addr, &tls.Config{
			RootCAs: roots, ServerName: "echo", NextProtos: []string{"echo"}, MinVersion: tls.VersionTLS13,
		}, conf)
		if err != nil {
			return 0, fmt.Errorf("dial: %w", err)
		}
		wg.Go(func() {
			defer func() { _ = q.CloseWithError(0, "") }() // it is over either way
			defer context.AfterFunc(ctx, func() { _ = q.CloseWithError(0, "") })()
			s, err := q.OpenStreamSync(ctx)
			if err != nil {
				return
			}
			buf := make([]byte, window*size)
			n := len(buf)
			for {
				if _, err := s.Write(buf[:n]); err != nil {
					return
				}
				if n, err = s.Read(buf); err != nil {
					return
				}
				bytes.Add(int64(n))
			}
		})
	}
	if err := sleep(ctx, min(time.Second, length/4)); err != nil {
		return 0, err
	}
	n0, began := bytes.Load(), time.Now()
	if err := sleep(ctx, length); err != nil {
		return 0, err
	}
	return float64(bytes.Load()-n0) / float64(size) / time.Since(began).Seconds(), nil
}
