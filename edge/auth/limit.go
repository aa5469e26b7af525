package auth

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"heliograph/edge/phone"
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

// Give gives n tokens back that Take took.
func (l *Limiter) Give(ctx context.Context, bucket string, r Rate, n int) error {
	_, err := l.pool.Exec(ctx, `
		UPDATE registration.limits SET tokens = LEAST($2::float8, tokens + $3::float8) WHERE bucket = $1`,
		bucket, float64(r.Burst), float64(n))
	if err != nil {
		return fmt.Errorf("limit bucket: %w", err)
	}
	return nil
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
	for _, stmt := range []string{
		`DELETE FROM registration.pins WHERE expires < now() - interval '2 days' AND not_before < now()`,
		`DELETE FROM registration.device_pins WHERE expires < now() - interval '2 days'`,
		`DELETE FROM registration.homes WHERE seen < now() - interval '400 days'`,
	} {
		if _, err := l.pool.Exec(ctx, stmt); err != nil {
			return fmt.Errorf("sweep registration: %w", err)
		}
	}
	return nil
}

// budget is a bucket that a request takes a token of.
type budget struct {
	name string // for metrics
	key  string
	rate Rate
	over prometheus.Counter // counts what it refuses; nil: only by name
}

// takeAll takes a token of each budget, and refuses at the first that is empty.
func (a *Auth) takeAll(ctx context.Context, budgets []budget) error {
	for _, b := range budgets {
		ok, retry, err := a.limiter.Take(ctx, b.key, b.rate, 1)
		if err != nil {
			return a.unavailable("limit", err)
		}
		if !ok {
			a.metrics.refused.WithLabelValues("limit_" + b.name).Inc()
			if b.over != nil {
				b.over.Inc()
			}
			return limited(retry)
		}
	}
	return nil
}

// pinBudgets are what an SMS must fit into. From a network from which the number was registered before, what strangers
// ask elsewhere for that number or its range does not count. The dearest come last: what one refuses takes nothing of
// those after it.
func (a *Auth) pinBudgets(n phone.Number, at place, home bool) []budget {
	out := addressBudgets("address", "", at.addr, a.cfg.PerAddress)
	out = append(out, budget{
		name: "phone", key: fmt.Sprintf("phone:%x:%x", at.phone, at.home), rate: a.cfg.PerPhone,
	})
	if !home {
		out = append(out,
			budget{name: "number", key: fmt.Sprintf("number:%x", at.phone), rate: a.cfg.PerNumber},
			budget{name: "range", key: rangeBucket(n.E164), rate: a.cfg.PerRange},
		)
	}
	over := a.metrics.unpaid.WithLabelValues(n.Region)
	return append(out,
		budget{name: "country", key: "country:" + n.Region, rate: a.cfg.PerCountry, over: over},
		budget{name: "deployment", key: "deployment", rate: a.cfg.PerDeployment, over: over},
	)
}

// tryBudgets are what a wrong try must fit into.
func (a *Auth) tryBudgets(addr netip.Addr) []budget {
	return addressBudgets("tries", "try:", addr, a.cfg.WrongPins)
}

// networkShare is how many addresses' worth of a rate an IPv6 /48 has: who has one can choose among 65,536 /64s.
const networkShare = 4

// addressBudgets are the budgets of an address: IPv4 by itself; IPv6 by its /64, which one subscriber owns at least,
// and by its /48, which one site or customer may own.
func addressBudgets(name, prefix string, addr netip.Addr, r Rate) []budget {
	addr = addr.Unmap()
	if !addr.IsValid() {
		// one bucket for all whose address is not known: closed rather than open
		return []budget{{name: name, key: prefix + "address:unknown", rate: r}}
	}
	addr = addr.WithZone("")
	if addr.Is4() {
		return []budget{{name: name, key: prefix + "address:" + netip.PrefixFrom(addr, 32).String(), rate: r}}
	}
	return []budget{
		{name: name, key: prefix + "address:" + netip.PrefixFrom(addr, 64).Masked().String(), rate: r},
		{name: name, key: prefix + "address:" + network(addr), rate: Rate{Burst: networkShare * r.Burst, Per: r.Per}},
	}
}

// network names the network of an address: the IPv4 /24 or the IPv6 /48.
func network(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	bits := 24
	if addr.Is6() {
		bits = 48
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return "unknown"
	}
	return p.String()
}

// rangeBucket is the bucket of a range of numbers: the number without its last four digits.
func rangeBucket(phone string) string {
	if len(phone) <= 4 {
		return "range:short"
	}
	return "range:" + phone[:len(phone)-4]
}
