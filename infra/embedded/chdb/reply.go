package chdb

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// holdBytes is how much of a result is held back before the first byte goes out: an error within it still gets a status
// of its own, and a result that fits has a length and a true summary.
const holdBytes = 512 << 10

// smallResult is what is not worth compressing.
const smallResult = 512

// reply writes the answer to one request. It belongs to the request's goroutine, and ends with finish, fail or abort.
type reply struct {
	q      *query
	format string

	held      []byte
	spool     *os.File // what a client that waits for the end has coming, once it is more than held may be
	spooled   int64
	committed bool
	tag       string
	out       io.Writer     // after commit: where the format's bytes go
	layers    []flushCloser // after commit: compressors, the outermost last
}

func newReply(q *query) *reply { return &reply{q: q, format: q.job.format} }

// Write takes bytes of the result.
func (r *reply) Write(p []byte) (int, error) {
	if r.committed {
		return r.out.Write(p)
	}
	if r.spool != nil {
		return r.keep(p)
	}
	r.held = append(r.held, p...)
	if len(r.held) < holdBytes {
		return len(p), nil
	}
	if r.q.enabled("wait_end_of_query") || r.q.enabled("http_wait_end_of_query") {
		var e *exception
		if r.spool, e = r.q.nameless(); e != nil {
			return 0, e
		}
		_, err := r.keep(r.held)
		return len(p), err
	}
	if err := r.commit(nil); err != nil {
		return 0, err
	}
	return len(p), nil
}

// keep adds to the spool.
func (r *reply) keep(p []byte) (int, error) {
	if r.spooled += int64(len(p)); r.spooled > r.q.s.cfg.MaxBody {
		return 0, exceptionf(codeResultTooLarge, "The result is longer than %d bytes: too long to wait for its end",
			r.q.s.cfg.MaxBody)
	}
	n, err := r.spool.Write(p)
	if err != nil {
		return n, bodyException(err)
	}
	return n, nil
}

// giveUp ends a reply that could not be written: with the exception, if the fault is ours and nothing has gone out,
// else by breaking the connection.
func (r *reply) giveUp(err error) {
	var e *exception
	if errors.As(err, &e) && !r.committed {
		r.fail(e)
		return
	}
	r.abort()
}

// flush sends what has been committed on its way.
func (r *reply) flush() error {
	if !r.committed || len(r.layers) > 0 {
		return nil // a compressor flushes when it is full
	}
	return r.q.ctl.Flush()
}

// commit sends the status and what was held back. final is set when that is all.
func (r *reply) commit(final *stats) error {
	h := r.q.w.Header()
	r.common(h)
	h.Set("Content-Type", contentType(r.format))
	h.Set("X-ClickHouse-Format", r.format)
	if final != nil {
		sum := final.summary(time.Since(r.q.begin))
		h.Set("X-ClickHouse-Summary", sum)
		if r.q.enabled("send_progress_in_http_headers") {
			h.Set("X-ClickHouse-Progress", sum)
		}
	}
	r.out = patientWriter{r.q}
	switch {
	case r.q.enabled("compress"):
		if len(r.held) > 0 || final == nil {
			f := newFrameWriter(r.out, r.q.values.Get("network_compression_method"))
			r.layers, r.out = append(r.layers, f), f
		}
	case final != nil && r.spool == nil && len(r.held) < smallResult:
	case r.q.values.Has("enable_http_compression") && !r.q.enabled("enable_http_compression"):
	default:
		if name := acceptedEncoding(r.q.r.Header); name != "" {
			e, err := encoder(name, r.out)
			if err != nil {
				return fmt.Errorf("start %s: %w", name, err)
			}
			h.Set("Content-Encoding", name)
			r.layers, r.out = append(r.layers, e), e
		}
	}
	if final == nil {
		r.tag = strings.ReplaceAll(uuid.NewString(), "-", "")[:16]
		h.Set("X-ClickHouse-Exception-Tag", r.tag)
	} else if len(r.layers) == 0 && r.spool == nil {
		h.Set("Content-Length", strconv.Itoa(len(r.held)))
	}
	r.committed = true
	if err := r.q.ctl.SetWriteDeadline(time.Now().Add(r.q.s.cfg.SendTimeout)); err != nil {
		return err
	}
	r.q.w.WriteHeader(http.StatusOK)
	held := r.held
	r.held = nil
	if r.spool != nil {
		if _, err := r.spool.Seek(0, io.SeekStart); err != nil {
			return err
		}
		_, err := io.Copy(struct{ io.Writer }{r.out}, r.spool)
		return err
	}
	if len(held) == 0 {
		return nil
	}
	_, err := r.out.Write(held)
	return err
}

// free gives up what the reply keeps.
func (r *reply) free() {
	if r.spool != nil {
		_ = r.spool.Close()
	}
}

// common sets the headers that every answer carries.
func (r *reply) common(h http.Header) {
	h.Set("X-ClickHouse-Server-Display-Name", r.q.s.name)
	h.Set("X-ClickHouse-Timezone", r.q.s.core.timezone)
	if r.q.id != "" {
		h.Set("X-ClickHouse-Query-Id", r.q.id)
	}
}

// finish ends a result that is whole.
func (r *reply) finish(st stats) {
	if !r.committed {
		if err := r.commit(&st); err != nil {
			r.abort()
		}
	}
	for i := len(r.layers) - 1; i >= 0; i-- {
		if err := r.layers[i].Close(); err != nil {
			r.abort()
		}
	}
}

// fail answers with an exception, or ends a result that has begun with one.
func (r *reply) fail(e *exception) {
	text := fmt.Sprintf("%s (version %s)\n", e.Error(), r.q.s.core.version)
	if r.committed {
		// ClickHouse's frame for an exception in the middle of a result; the broken connection tells the others.
		_, err := fmt.Fprintf(r.out, "\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n",
			r.tag, text, len(text), r.tag)
		for i := len(r.layers) - 1; i >= 0 && err == nil; i-- {
			err = r.layers[i].Flush()
		}
		if err == nil {
			_ = r.q.ctl.Flush()
		}
		r.abort()
	}
	h := r.q.w.Header()
	r.common(h)
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
	if e.status() == http.StatusForbidden && e.code == codeAuthenticationError &&
		r.q.r.Header.Get("Authorization") == "" {
		h.Set("WWW-Authenticate", `Basic realm="ClickHouse"`)
	}
	_ = r.q.ctl.SetWriteDeadline(time.Now().Add(r.q.s.cfg.SendTimeout))
	r.q.w.WriteHeader(e.status())
	_, _ = io.WriteString(r.q.w, text) // the client may have gone
}

// abort breaks the connection, so that a cut result cannot be taken for a whole one. It does not return.
func (r *reply) abort() { panic(http.ErrAbortHandler) }

// patientWriter gives the client SendTimeout for each write.
type patientWriter struct{ q *query }

func (p patientWriter) Write(b []byte) (int, error) {
	if err := p.q.ctl.SetWriteDeadline(time.Now().Add(p.q.s.cfg.SendTimeout)); err != nil {
		return 0, err
	}
	return p.q.w.Write(b)
}

// summary is the X-ClickHouse-Summary header.
func (s stats) summary(took time.Duration) string {
	return fmt.Sprintf(`{"read_rows":"%d","read_bytes":"%d","written_rows":"%d","written_bytes":"%d",`+
		`"total_rows_to_read":"0","result_rows":"%d","result_bytes":"%d","elapsed_ns":"%d"}`,
		s.readRows, s.readBytes, s.writtenRows, s.writtenBytes, s.resultRows, s.resultBytes, took.Nanoseconds())
}
