package chdb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"
)

const (
	pipeBytes  = 1 << 20
	setPipeSz  = 1031 // F_SETPIPE_SZ
	inlineRows = "Null"
)

// runWhole runs a statement whose result is small and comes as a whole.
func (q *query) runWhole(ctx context.Context, st statement) {
	begin := time.Now()
	r := newReply(q)
	defer r.free()
	r.format = first(st.format, q.job.format)
	a, err := q.s.core.do(ctx, q.job)
	q.ended(st, begin, err)
	if err != nil {
		r.fail(asException(err))
		return
	}
	defer a.free()
	q.s.m.sent.Add(float64(len(a.bytes())))
	if _, err := r.Write(a.bytes()); err != nil {
		r.giveUp(err) // the statement is done
		return
	}
	r.finish(a.stats())
}

// runInsert inserts the spooled data.
func (q *query) runInsert(ctx context.Context, st statement, text []byte, spool *os.File) {
	begin := time.Now()
	r := newReply(q)
	q.job.sql = insertSQL(st, text, spool.Fd(), q.insertFormat(st))
	q.job.format = inlineRows
	a, err := q.s.core.do(ctx, q.job)
	runtime.KeepAlive(spool)
	q.ended(st, begin, err)
	if err != nil {
		r.fail(asException(err))
		return
	}
	defer a.free()
	r.finish(a.stats())
}

// runSelect streams a result through a pipe: the engine writes the format into one end, the client gets what comes out
// of the other, and no more than a pipe and two buffers of it are in memory.
func (q *query) runSelect(ctx context.Context, st statement, text []byte) {
	begin := time.Now()
	r := newReply(q)
	defer r.free()
	r.format = first(st.format, q.job.format)
	out, in, err := os.Pipe()
	if err != nil {
		q.ended(st, begin, err)
		r.fail(&exception{code: codeAborted, text: "no pipe for the result: " + err.Error()})
		return
	}
	defer func() { _ = out.Close() }()
	fd := in.Fd()
	// A small pipe only costs speed.
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, fd, setPipeSz, pipeBytes)
	q.job.sql = fmt.Sprintf("%s INTO OUTFILE '/dev/fd/%d' APPEND %s", text[:st.splice], fd, text[st.splice:st.end])

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	type outcome struct {
		a   *answer
		err error
	}
	ended := make(chan outcome, 1)
	go func() {
		a, err := q.s.core.do(ctx, q.job)
		_ = in.Close() // the end of the result
		ended <- outcome{a, err}
	}()

	sendErr := q.pump(out, r)
	if sendErr != nil {
		stop()
		_, _ = io.Copy(io.Discard, out) // the engine must not hang on a full pipe
	}
	o := <-ended
	if o.err == nil {
		defer o.a.free()
	}
	switch {
	case sendErr != nil:
		q.ended(st, begin, exceptionf(codeCancelled, "The result could not be given to the client: %v", sendErr))
		r.giveUp(sendErr)
	case o.err != nil:
		q.ended(st, begin, o.err)
		r.fail(asException(o.err))
	default:
		q.ended(st, begin, nil)
		r.finish(o.a.stats())
	}
}

// pump copies the pipe to the reply until the engine closes it. The error is the client's.
func (q *query) pump(out io.Reader, r *reply) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := out.Read(buf)
		if n > 0 {
			q.s.m.sent.Add(float64(n))
			if _, err := r.Write(buf[:n]); err != nil {
				return err
			}
			if err := r.flush(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the result's pipe: %w", err)
		}
	}
}

func asException(err error) *exception {
	var e *exception
	if errors.As(err, &e) {
		return e
	}
	return &exception{code: codeAborted, text: err.Error()}
}
