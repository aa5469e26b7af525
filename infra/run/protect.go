package run

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// PanicError is a recovered panic.
type PanicError struct {
	Value any
	Stack []byte
}

// Error names the panic's value, without the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the panic's value when it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Protect calls fn and returns its error, or a *PanicError when it panicked.
func Protect(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return fn()
}

// Backoff gives growing, jittered delays: each is between half and the whole of Min, 2*Min, 4*Min … up to Max. It is
// not safe for concurrent use. The zero value begins at 50 ms and ends at 5 s.
type Backoff struct {
	Min, Max time.Duration

	tries int
}

// Next returns the next delay.
func (b *Backoff) Next() time.Duration {
	lo, hi := b.Min, b.Max
	if lo <= 0 {
		lo = 50 * time.Millisecond
	}
	if hi <= 0 {
		hi = 5 * time.Second
	}
	d := hi
	if b.tries < 32 && lo<<b.tries < hi && lo<<b.tries > 0 {
		d = lo << b.tries
	}
	b.tries++
	return d/2 + rand.N(d/2+1)
}

// Tries tells how many delays were taken since the last Reset.
func (b *Backoff) Tries() int { return b.tries }

// Reset begins anew at Min; call it after a success.
func (b *Backoff) Reset() { b.tries = 0 }

// Wait sleeps for the next delay and returns ctx's error when that comes first.
func (b *Backoff) Wait(ctx context.Context) error {
	if !Sleep(ctx, b.Next()) {
		return ctx.Err()
	}
	return nil
}

// Sleep waits for d; false when ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Default sets *v to d when it is zero, as a configuration's field that was not given is.
func Default[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
