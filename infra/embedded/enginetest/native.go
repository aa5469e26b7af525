package enginetest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/ClickHouse/ch-go/compress"
	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"

	"heliograph/infra/embedded/certtest"
	"heliograph/infra/run"
)

// NativeClickHouse puts a relay before the shared ClickHouse that speaks the native protocol, with TLS if it is given a
// certificate, lets one user in, and makes an empty database. It returns the relay's address and the database's name.
//
// The engine behind it is the real one, its server side of the protocol is not: what this shows is that the client's
// side of it (handshake, settings, compressed blocks both ways, exceptions) carries our statements and types.
func NativeClickHouse(tb testing.TB, server *certtest.Pair, user, password string) (addr, database string) {
	tb.Helper()
	behind, own, database := NewClickHouseDatabase(tb)
	r := &relay{
		behind:   behind,
		own:      own,
		user:     user,
		password: password,
		conns:    make(map[net.Conn]bool),
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("native ClickHouse: %v", err)
	}
	if server != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{server.Certificate}})
	}
	r.transport = &http.Transport{}
	r.serving.Go(func() { r.serve(l) })
	tb.Cleanup(func() {
		_ = l.Close() // only a listener that is closed already fails
		r.end()
	})
	return l.Addr().String(), database
}

// relay translates the native protocol, at the revision that clickhouse-go has, into requests of the HTTP interface.
type relay struct {
	behind, user, password string
	own                    run.Secret // of the engine behind
	transport              *http.Transport
	serving                sync.WaitGroup

	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

func (r *relay) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns[c] = true
		r.mu.Unlock()
		r.serving.Go(func() {
			s := &nativeSession{
				relay:  r,
				conn:   c,
				in:     chproto.NewReader(bufio.NewReader(c)),
				packer: compress.NewWriter(compress.LevelZero, compress.LZ4),
			}
			_ = s.run() // the client sees it
			_ = c.Close()
			r.mu.Lock()
			delete(r.conns, c)
			r.mu.Unlock()
		})
	}
}

func (r *relay) end() {
	r.mu.Lock()
	for c := range r.conns {
		_ = c.Close()
	}
	r.mu.Unlock()
	r.serving.Wait()
	r.transport.CloseIdleConnections()
}

// nativeSession is one connection, and belongs to its goroutine.
type nativeSession struct {
	*relay
	conn     net.Conn
	in       *chproto.Reader
	out      chproto.Buffer
	packer   *compress.Writer
	packed   bool // of the query that runs
	database string
}

// refusal is an exception for the client, after which the connection goes on.
type refusal struct {
	code    int
	message string
}

func (e *refusal) Error() string { return fmt.Sprintf("code %d: %s", e.code, e.message) }

func (s *nativeSession) flush() error {
	_, err := s.conn.Write(s.out.Buf)
	s.out.Reset()
	return err
}

func (s *nativeSession) refuse(e *refusal) error {
	chproto.ServerCodeException.Encode(&s.out)
	x := chproto.Exception{Code: chproto.Error(e.code), Name: "DB::Exception", Message: e.message}
	x.EncodeAware(&s.out, proto.DBMS_TCP_PROTOCOL_VERSION)
	return s.flush()
}

func (s *nativeSession) run() error {
	if code, err := s.in.UVarInt(); err != nil || code != proto.ClientHello {
		return errors.Join(errors.New("no hello"), err)
	}
	var hello chproto.ClientHello
	if err := hello.Decode(s.in); err != nil {
		return err
	}
	if hello.User != s.user || hello.Password != s.password {
		return s.refuse(&refusal{
			516,
			hello.User + ": Authentication failed: password is incorrect, or there is no user with such name.",
		})
	}
	s.database = hello.Database
	answer := chproto.ServerHello{
		Name:        "ClickHouse",
		Major:       26,
		Minor:       5,
		Patch:       1,
		Revision:    proto.DBMS_TCP_PROTOCOL_VERSION,
		Timezone:    "UTC",
		DisplayName: "relay",
	}
	answer.EncodeAware(&s.out, proto.DBMS_TCP_PROTOCOL_VERSION)
	if err := s.flush(); err != nil {
		return err
	}
	if _, err := s.in.Str(); err != nil { // the addendum: a quota key
		return err
	}
	for {
		code, err := s.in.UVarInt()
		if err != nil {
			return err
		}
		switch code {
		case proto.ClientPing:
			chproto.ServerCodePong.Encode(&s.out)
			err = s.flush()
		case proto.ClientQuery:
			err = s.query()
			var e *refusal
			if errors.As(err, &e) {
				err = s.refuse(e)
			}
		default: // a cancel ends the connection
			err = fmt.Errorf("packet %d", code)
		}
		if err != nil {
			return err
		}
	}
}

// nativeInsert is a statement whose rows follow in blocks.
var nativeInsert = regexp.MustCompile(`(?is)^\s*INSERT\s+INTO\s+(\S+?)\s*(?:\((.*?)\))?\s+FORMAT\s+Native\s*$`)

func (s *nativeSession) query() error {
	var q chproto.Query
	if err := q.DecodeAware(s.in, proto.DBMS_TCP_PROTOCOL_VERSION); err != nil {
		return err
	}
	s.packed = q.Compression == chproto.CompressionEnabled
	if b, err := s.block(); err != nil || b.Rows() > 0 {
		return errors.Join(errors.New("external tables are not relayed"), err)
	}
	var err error
	if m := nativeInsert.FindStringSubmatch(q.Body); m != nil {
		err = s.insert(q, m[1], m[2])
	} else {
		err = s.selected(q)
	}
	if err != nil {
		return err
	}
	chproto.ServerCodeEndOfStream.Encode(&s.out)
	return s.flush()
}

// nativeSelect is a statement that has columns to tell of, even without rows.
var nativeSelect = regexp.MustCompile(`(?is)^\s*(SELECT|WITH)\s`)

// selected sends what a server sends: a block without rows that tells the columns, then the rows. Over HTTP there is
// nothing where there are no rows.
func (s *nativeSession) selected(q chproto.Query) error {
	sent := false
	err := s.ask(q, q.Body, nil, func(b *proto.Block) error {
		if !sent {
			sent = true
			header := newBlock()
			for i, name := range b.ColumnsNames() {
				if err := header.AddColumn(name, b.Columns[i].Type()); err != nil {
					return err
				}
			}
			if err := s.send(header); err != nil {
				return err
			}
		}
		return s.send(b)
	})
	if err != nil || sent || !nativeSelect.MatchString(q.Body) {
		return err
	}
	header := newBlock()
	err = s.describe(q, "("+q.Body+")", func(name string, t column.Type) error { return header.AddColumn(name, t) })
	if err != nil {
		return err
	}
	return s.send(header)
}

// describe asks for the columns of a table or of a query in brackets.
func (s *nativeSession) describe(q chproto.Query, what string, each func(name string, t column.Type) error) error {
	return s.ask(q, "DESCRIBE TABLE "+what, nil, func(b *proto.Block) error {
		for i := range b.Rows() {
			name, t := b.Columns[0].Row(i, false), b.Columns[1].Row(i, false)
			if err := each(fmt.Sprint(name), column.Type(fmt.Sprint(t))); err != nil {
				return err
			}
		}
		return nil
	})
}

// insert tells the client the columns' types, and passes its blocks on when they have all come.
func (s *nativeSession) insert(q chproto.Query, table, names string) error {
	types := make(map[string]column.Type)
	err := s.describe(q, table, func(name string, t column.Type) error {
		types[name] = t
		return nil
	})
	if err != nil {
		return err
	}
	header := newBlock()
	for name := range strings.SplitSeq(names, ",") {
		name = strings.Trim(name, " \n\t`\"")
		if types[name] == "" {
			return &refusal{16, "No such column " + name}
		}
		if err := header.AddColumn(name, types[name]); err != nil {
			return err
		}
	}
	if err := s.send(header); err != nil {
		return err
	}
	var body chproto.Buffer
	for {
		if code, err := s.in.UVarInt(); err != nil || code != proto.ClientData {
			return errors.Join(fmt.Errorf("packet %d within an insert", code), err)
		}
		b, err := s.data()
		if err != nil {
			return err
		}
		if b.Rows() == 0 {
			break
		}
		if err := b.Encode(&body, 0); err != nil {
			return err
		}
	}
	return s.ask(q, q.Body, body.Buf, s.send)
}

// block reads a packet of data.
func (s *nativeSession) block() (*proto.Block, error) {
	if code, err := s.in.UVarInt(); err != nil || code != proto.ClientData {
		return newBlock(), errors.Join(fmt.Errorf("packet %d, not data", code), err)
	}
	return s.data()
}

func (s *nativeSession) data() (*proto.Block, error) {
	b := newBlock()
	if _, err := s.in.Str(); err != nil {
		return b, err
	}
	if s.packed {
		s.in.EnableCompression()
		defer s.in.DisableCompression()
	}
	return b, b.Decode(s.in, proto.DBMS_TCP_PROTOCOL_VERSION)
}

func (s *nativeSession) send(b *proto.Block) error {
	chproto.ServerCodeData.Encode(&s.out)
	s.out.PutString("")
	var plain chproto.Buffer
	if err := encode(&plain, b); err != nil {
		return err
	}
	if s.packed {
		if err := s.packer.Compress(plain.Buf); err != nil {
			return err
		}
		plain.Buf = s.packer.Data
	}
	s.out.PutRaw(plain.Buf)
	return s.flush()
}

// encode writes a block as a server does: without rows a column is its name, its type and the mark of an ordinary
// serialization, and nothing of its own, which the client's library would write even then.
func encode(to *chproto.Buffer, b *proto.Block) error {
	if b.Rows() > 0 {
		return b.Encode(to, proto.DBMS_TCP_PROTOCOL_VERSION)
	}
	err := b.EncodeHeader(to, proto.DBMS_TCP_PROTOCOL_VERSION)
	for _, c := range b.Columns {
		to.PutString(c.Name())
		to.PutString(string(c.Type()))
		to.PutBool(false)
	}
	return err
}

// ask sends a statement to the HTTP interface and hands on the blocks of its answer.
func (s *nativeSession) ask(q chproto.Query, sql string, body []byte, each func(*proto.Block) error) error {
	v := url.Values{"query": {sql}, "default_format": {"Native"}, "database": {s.database}}
	for _, set := range q.Settings {
		v.Set(set.Key, set.Value)
	}
	to := "http://" + s.behind + "/?" + v.Encode()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("X-ClickHouse-Key", s.own.Reveal())
	res, err := s.transport.RoundTrip(req)
	if err != nil {
		return &refusal{210, err.Error()}
	}
	defer func() { _ = res.Body.Close() }() // read only
	if res.StatusCode != http.StatusOK {
		said, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		code, _ := strconv.Atoi(res.Header.Get("X-ClickHouse-Exception-Code"))
		if err != nil || code == 0 {
			return &refusal{1002, fmt.Sprintf("%s: %s", res.Status, said)}
		}
		return &refusal{code, strings.TrimSpace(string(said))}
	}
	buffered := bufio.NewReader(res.Body)
	for in := chproto.NewReader(buffered); ; {
		b := newBlock()
		if err := b.Decode(in, 0); errors.Is(err, io.EOF) && len(b.Columns) == 0 {
			return nil
		} else if err != nil {
			return &refusal{1002, "the engine's answer: " + err.Error()}
		}
		if err := each(b); err != nil {
			return err
		}
	}
}

func newBlock() *proto.Block {
	b := proto.NewBlock()
	b.ServerContext = &column.ServerContext{Revision: proto.DBMS_TCP_PROTOCOL_VERSION}
	return b
}
