package auth

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Limiter is a set of token buckets in Postgres, shared by all edges.
type Limiter struct {
	pool *pgxpool.Pool
}

// NewLimiter returns a limiter over the registration schema's table of buckets.
func NewLimiter(pool *pgxpool.Pool) *Limiter { return &Limiter{pool: pool} }

// Take takes n tokens of a bucket. When there are not enough it takes none and says after how long there will be. An
// error means that nothing is known, which callers treat as a refusal.
func (l *Limiter) Take(ctx context.Context, bucket string, r Rate, n int) (ok bool, retry time.Duration, err error) {
	perSecond := float64(r.Burst) / r.Per.Seconds()
	var left float64
	var taken bool
	// The row is locked by the upsert, so concurrent takers queue up; the refill is computed on the database's one
	// clock.
	err = l.pool.QueryRow(ctx, `
		INSERT INTO registration.limits AS l (bucket, tokens, updated)
			VALUES ($1, $2::float8 - CASE WHEN $4::float8 <= $2 THEN $4 ELSE 0 END, now())
		ON CONFLICT (bucket) DO UPDATE SET
			tokens = LEAST($2, l.tokens + extract(epoch FROM now() - l.updated) * $3::float8)
				- CASE WHEN LEAST($2, l.tokens + extract(epoch FROM now() - l.updated) * $3) >= $4 THEN $4 ELSE 0 END,
			updated = now(),
			granted = LEAST($2, l.tokens + extract(epoch FROM now() - l.updated) * $3) >= $4
		RETURNING tokens, granted`, bucket, float64(r.Burst), perSecond, float64(n)).Scan(&left, &taken)
	if err != nil {
		return false, 0, fmt.Errorf("limit bucket: %w", err)
	}
	if taken && n <= r.Burst {
		return true, 0, nil
	}
	missing := float64(n) - left
	return false, max(time.Second, time.Duration(missing/perSecond*float64(time.Second))), nil
}

// sweepTimeout bounds a sweep: nobody waits for it, so a server that has gone without a word would hold its connection
// for as long as TCP goes on trying.
const sweepTimeout = time.Minute

// Sweep removes buckets that have been full for long.
func (l *Limiter) Sweep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	_, err := l.pool.Exec(ctx, `DELETE FROM registration.limits WHERE updated < now() - interval '2 days'`)
	if err != nil {
		return fmt.Errorf("sweep limit buckets: %w", err)
	}
	_, err = l.pool.Exec(ctx, `
		DELETE FROM registration.pins
		WHERE expires < now() - interval '2 days' AND not_before < now()`)
	if err != nil {
		return fmt.Errorf("sweep pins: %w", err)
	}
	return nil
}

// addressBucket is the bucket of an address: IPv4 by itself, IPv6 by its /64, which one subscriber owns.
func addressBucket(a netip.Addr) string {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return "address:unknown" // one bucket for all whose address is not known: closed rather than open
	}
	return "address:" + p.String()
}

// rangeBucket is the bucket of a range of numbers: the number without its last four digits.
func rangeBucket(phone string) string {
	if len(phone) <= 4 {
		return "range:short"
	}
	return "range:" + phone[:len(phone)-4]
}
