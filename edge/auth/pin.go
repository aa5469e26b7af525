package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"hash"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/crypto/argon2"

	"heliograph/edge/phone"
	"heliograph/schemas/id"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// place is a phone number and where it is spoken of.
type place struct {
	phone [id.Size]byte // keyed hash of the number
	addr  netip.Addr
	home  []byte // keyed digest of number and network
}

func (a *Auth) place(number string, addr netip.Addr) place {
	mac := a.mac("home")
	mac.Write([]byte(number + "\x00" + network(addr)))
	return place{phone: id.PhoneHash(a.cfg.UserKey, number), addr: addr, home: mac.Sum(nil)[:16]}
}

// pinRow names a PIN: the number that it was sent to, and the device key that asked.
type pinRow struct {
	phone [id.Size]byte
	key   []byte
}

// keyHash digests a public key; that of none is empty.
func keyHash(key []byte) []byte {
	if len(key) == 0 {
		return []byte{}
	}
	sum := sha256.Sum256(key)
	return sum[:]
}

// isHome tells whether the number was registered from this network before.
func (a *Auth) isHome(ctx context.Context, at place) (home bool, err error) {
	err = a.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM registration.homes WHERE home = $1)`, at.home).Scan(&home)
	return home, err
}

func (a *Auth) setHome(ctx context.Context, at place) error {
	_, err := a.pool.Exec(ctx, `
		INSERT INTO registration.homes (home, seen) VALUES ($1, now())
		ON CONFLICT (home) DO UPDATE SET seen = excluded.seen`, at.home)
	return err
}

// tooSoon says after how long this device may ask for its next PIN.
func (a *Auth) tooSoon(ctx context.Context, row pinRow) (time.Duration, error) {
	var wait float64
	err := a.pool.QueryRow(ctx, `
		SELECT extract(epoch FROM sent + $3::interval - now())::float8 FROM registration.device_pins
		WHERE phone_hash = $1 AND key_hash = $2 AND used_by IS NULL`,
		row.phone, row.key, a.cfg.PinInterval).Scan(&wait)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return max(0, time.Duration(wait*float64(time.Second))), err
}

// storePin puts a PIN in the place of the one that the device asked for before; false: that one is too new.
func (a *Auth) storePin(ctx context.Context, row pinRow, hashed, salt []byte) (bool, error) {
	tag, err := a.pool.Exec(ctx, `
		INSERT INTO registration.device_pins AS p (phone_hash, key_hash, pin_hash, salt, sent, expires)
			VALUES ($1, $2, $3, $4, now(), now() + $5::interval)
		ON CONFLICT (phone_hash, key_hash) DO UPDATE SET
			pin_hash = excluded.pin_hash, salt = excluded.salt, sent = now(), expires = excluded.expires,
			tries = 0, used_by = NULL
			WHERE p.sent <= now() - $6::interval OR p.used_by IS NOT NULL`,
		row.phone, row.key, hashed, salt, pinLifetime, a.cfg.PinInterval)
	return tag.RowsAffected() == 1, err
}

// unsent lets the next PIN be asked for at once, since the SMS of this one failed. The PIN stays good and the limits
// counted: a gateway that did not answer may have sent it all the same, and who asks again and again must not have an
// SMS each time.
func (a *Auth) unsent(ctx context.Context, row pinRow, salt []byte) {
	// the request's own may be what ended the sending
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unsentTimeout)
	defer cancel()
	_, err := a.pool.Exec(ctx, `
		UPDATE registration.device_pins SET sent = 'epoch'
		WHERE phone_hash = $1 AND key_hash = $2 AND salt = $3`, row.phone, row.key, salt)
	if err != nil {
		a.logger.Warn("registration: a pin that was not sent delays the next", "err", err)
	}
}

// unsentTimeout bounds unsent.
const unsentTimeout = 2 * time.Second

// typedPin returns the six digits of a PIN as it was typed or pasted. What has not six is refused before it counts as a
// try.
func typedPin(s string) (string, error) {
	pin, err := phone.Digits(s)
	if err != nil || len(pin) != pinDigits {
		return "", wire.Errorf(wirev1.Code_CODE_INVALID, "the PIN is the %d digits of the SMS", pinDigits)
	}
	return pin, nil
}

// pinDigits is how many digits a PIN has.
const pinDigits = 6

// tryPin judges a try and counts it if it is wrong: against the PIN, the address and, from a network that is not the
// number's own, the number. All that is refused is refused alike, and after the same time.
func (a *Auth) tryPin(ctx context.Context, at place, pin string, d id.DeviceID, key []byte) error {
	begun := time.Now()
	// Counted before it is judged, so that parallel guesses cannot share a try, and given back if it is right.
	budgets := a.tryBudgets(at.addr)
	if err := a.takeAll(ctx, budgets); err != nil {
		return err
	}
	home, err := a.isHome(ctx, at)
	if err != nil {
		return a.unavailable("read homes", err)
	}
	tries := a.cfg.pinTries
	if !home {
		guess := budget{name: "number", key: fmt.Sprintf("guess:%x", at.phone), rate: a.cfg.guesses}
		ok, _, err := a.limiter.Take(ctx, guess.key, guess.rate, 1)
		switch {
		case err != nil:
			return a.unavailable("try limit", err)
		case ok:
			budgets = append(budgets, guess)
		default:
			// Somebody guesses at this number. Its owner, who has the PIN, needs one try.
			tries = 1
		}
	}
	err = a.usePin(ctx, pinRow{phone: at.phone, key: keyHash(key)}, tries, pin,
		sha256.Sum256(append(d[:len(d):len(d)], key...)))
	switch {
	case errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_AUTHENTICATION_FAILED}):
		a.until(ctx, begun.Add(a.cfg.refusedAfter))
		return err
	case err != nil:
		return err
	}
	for _, b := range budgets {
		if err := a.limiter.Give(ctx, b.key, b.rate, 1); err != nil {
			return a.unavailable("give back a try", err)
		}
	}
	if err := a.setHome(ctx, at); err != nil {
		return a.unavailable("store home", err)
	}
	return nil
}

// waitUntil waits for a moment, or for the end of ctx.
func waitUntil(ctx context.Context, moment time.Time) {
	t := time.NewTimer(time.Until(moment))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// usePin judges a PIN and uses it up for all but the device that by names. A try by another with a PIN that was used
// changes nothing. A PIN that was asked for without a key is any device's.
func (a *Auth) usePin(ctx context.Context, row pinRow, tries int, pin string, by [sha256.Size]byte) error {
	rows, err := a.pool.Query(ctx, `
		UPDATE registration.device_pins SET tries = tries + 1
		WHERE phone_hash = $1 AND key_hash IN ($2, '') AND tries < $3 AND expires > now()
			AND (used_by IS NULL OR used_by = $4)
		RETURNING key_hash, pin_hash, salt`, row.phone, row.key, tries, by[:])
	if err != nil {
		return a.unavailable("try pin", err)
	}
	type live struct{ key, want, salt []byte }
	found, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (l live, err error) {
		return l, r.Scan(&l.key, &l.want, &l.salt)
	})
	if err != nil {
		return a.unavailable("try pin", err)
	}
	reason := "pin_wrong"
	if len(found) == 0 {
		reason = "pin_dead"
		a.hashPin(pin, make([]byte, 16)) // as much work as for one that is not dead
	}
	for _, l := range found {
		if subtle.ConstantTimeCompare(l.want, a.hashPin(pin, l.salt)) != 1 {
			continue
		}
		// Whoever marks the row first has used the PIN; another with the right PIN finds it used.
		tag, err := a.pool.Exec(ctx, `
			UPDATE registration.device_pins SET used_by = $4, tries = 0
			WHERE phone_hash = $1 AND key_hash = $2 AND pin_hash = $3 AND (used_by IS NULL OR used_by = $4)`,
			row.phone, l.key, l.want, by[:])
		if err != nil {
			return a.unavailable("use pin", err)
		}
		if tag.RowsAffected() == 1 {
			return nil
		}
		reason = "pin_dead"
	}
	a.metrics.refused.WithLabelValues(reason).Inc()
	return failed()
}

// hashPin hashes a PIN under the deployment's key, so that the table alone is worth nothing, and with argon2id, so that
// it is dear even with the key.
func (a *Auth) hashPin(pin string, salt []byte) []byte {
	mac := a.mac("pin")
	mac.Write([]byte(pin))
	return argon2.IDKey(mac.Sum(nil), salt, 1, 1<<10, 1, 32)
}

// mac returns a keyed hash for one use.
func (a *Auth) mac(use string) hash.Hash {
	mac := hmac.New(sha256.New, a.cfg.UserKey)
	mac.Write([]byte("helio/" + use + "/1\x00"))
	return mac
}
