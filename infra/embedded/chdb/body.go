package chdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	chcompress "github.com/ClickHouse/ch-go/compress"
)

// patientReader gives the client SendTimeout for each read of its body.
type patientReader struct{ q *query }

func (p patientReader) Read(b []byte) (int, error) {
	_ = p.q.ctl.SetReadDeadline(time.Now().Add(p.q.s.cfg.SendTimeout))
	return p.q.r.Body.Read(b)
}

// plainEOF unwraps the end of a stream of compressed frames, for readers that compare with io.EOF.
type plainEOF struct{ r io.Reader }

func (p plainEOF) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if err != nil && errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// openBody lays the request's decompression over its body.
func (q *query) openBody() *exception {
	if strings.HasPrefix(q.r.Header.Get("Content-Type"), "multipart/form-data") {
		return exceptionf(
			codeNotImplemented, "External tables (multipart requests) are not supported by the embedded engine",
		)
	}
	q.body = patientReader{q}
	d, err := decoder(strings.ToLower(strings.TrimSpace(q.r.Header.Get("Content-Encoding"))), q.body)
	if err != nil {
		return bodyException(err)
	}
	q.body = d
	if q.enabled("decompress") {
		q.body = plainEOF{chcompress.NewReader(q.body)}
	}
	return nil
}

func bodyException(err error) *exception {
	var e *exception
	var corrupt *chcompress.CorruptedDataErr
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &corrupt):
		return exceptionf(codeCannotDecompress, "Cannot decompress the body: %v", err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return exceptionf(codeNoSpace, "No room for a body or a result: %v", err)
	default:
		return exceptionf(codeNetwork, "Cannot read the body: %v", err)
	}
}

// readStatement reads the statement. For an INSERT with data it stops within the data: q.body then gives what follows
// text.
func (q *query) readStatement() (statement, []byte, *exception) {
	if sql := q.values.Get("query"); sql != "" {
		st, _, e := parseStatement([]byte(sql), true)
		if e != nil {
			return st, nil, e
		}
		if st.kind == stmtInsertData {
			if strings.Trim(sql[st.end:], " \t\r\n;") == "" {
				return st, []byte(sql[:st.end]), nil
			}
			return st, []byte(sql + "\n"), nil
		}
		rest, e := q.readText(nil)
		if e != nil || len(rest) == 0 {
			return st, []byte(sql), e
		}
		text := append([]byte(sql+"\n"), rest...)
		st, _, e = parseStatement(text, true)
		return st, text, e
	}
	head := make([]byte, headBytes)
	n, err := io.ReadFull(q.body, head)
	head = head[:n]
	complete := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !complete {
		return statement{}, nil, bodyException(err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && q.truncated() {
		return statement{}, nil, bodyException(err)
	}
	if complete {
		q.body = bytes.NewReader(nil)
	}
	st, more, e := parseStatement(head, complete)
	if e != nil || !more {
		return st, head, e
	}
	text, e := q.readText(head)
	if e != nil {
		return st, nil, e
	}
	st, _, e = parseStatement(text, true)
	return st, text, e
}

// truncated reports whether the body broke off: ReadFull says the same of that as of a short but whole body.
func (q *query) truncated() bool {
	_, err := q.body.Read(make([]byte, 1))
	return !errors.Is(err, io.EOF)
}

// readText appends the rest of the body to text.
func (q *query) readText(text []byte) ([]byte, *exception) {
	rest, err := io.ReadAll(io.LimitReader(q.body, int64(textBytes-len(text)+1)))
	if err != nil {
		return nil, bodyException(err)
	}
	if len(text)+len(rest) > textBytes {
		return nil, exceptionf(codeTooLarge, "The statement is longer than %d bytes", textBytes)
	}
	return append(text, rest...), nil
}

// spool keeps the data of an INSERT, head first, in a file without a name.
func (q *query) spool(head []byte) (*os.File, *exception) {
	f, e := q.nameless()
	if e != nil {
		return nil, e
	}
	n, err := io.Copy(f, io.LimitReader(io.MultiReader(bytes.NewReader(head), q.body), q.s.cfg.MaxBody+1))
	q.s.m.received.Add(float64(n))
	if err == nil && n > q.s.cfg.MaxBody {
		err = exceptionf(codeTooLarge, "The body is longer than %d bytes", q.s.cfg.MaxBody)
	}
	if err != nil {
		_ = f.Close()
		return nil, bodyException(err)
	}
	q.bodyRead()
	return f, nil
}

// nameless makes a file without a name.
func (q *query) nameless() (*os.File, *exception) {
	f, err := os.CreateTemp(q.s.core.spoolDir, "spool-*")
	if err != nil {
		return nil, bodyException(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, bodyException(err)
	}
	return f, nil
}

// bodyRead takes the deadline off the connection: what is still read from it only tells whether the client is there.
func (q *query) bodyRead() { _ = q.ctl.SetReadDeadline(time.Time{}) }

// insertSQL is the statement that inserts the file with descriptor fd.
func insertSQL(st statement, text []byte, fd uintptr, format string) string {
	sql := fmt.Sprintf("%s FROM INFILE '/dev/fd/%d' %s", text[:st.splice], fd, text[st.splice:st.end])
	if st.tail != "" {
		sql += " FORMAT " + format
	}
	return sql
}

// insertFormat is the format of data whose INSERT names none.
func (q *query) insertFormat(st statement) string {
	if h := q.r.Header.Get("X-ClickHouse-Format"); h != "" && settingName.MatchString(h) {
		return h
	}
	return st.tail
}

var _ http.Handler = (*server)(nil)
