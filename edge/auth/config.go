package auth

import (
	"errors"
	"fmt"
	"time"

	"heliograph/infra/run"
)

// Rate is a token bucket: Burst at once, refilled with Burst per Per.
type Rate struct {
	Burst int
	Per   time.Duration
}

// Config of New. Zero fields take the defaults that are named with them.
type Config struct {
	// UserKey is the secret of the deployment (32 bytes at least) from which user ids and the hashes of phone numbers
	// are derived. It never changes.
	UserKey []byte
	// PinInterval is the least time between two PINs for one number; 30 seconds.
	PinInterval time.Duration
	// PerPhone bounds the PINs asked for one number; 5 an hour.
	PerPhone Rate
	// PerAddress bounds the PINs asked for, and the tries made, from one address (IPv4 /32, IPv6 /64); 20 an hour.
	PerAddress Rate
	// PerRange bounds the PINs asked for one range of numbers (all but the last four digits), against SMS pumping; 100
	// an hour.
	PerRange Rate
	// Lookups bounds the phone numbers that one user may look up; 5,000 a day.
	Lookups Rate

	pinTries int // how many wrong tries a PIN survives, for tests; 5
}

const (
	// pinLifetime is how long a PIN can be used.
	pinLifetime = 5 * time.Minute
	// pinDelay is how long a number must wait after its first PIN died of wrong tries; it doubles with each further
	// one, up to a day.
	pinDelay = time.Minute
)

func (c Config) withDefaults() Config {
	run.Default(&c.pinTries, 5)
	run.Default(&c.PinInterval, 30*time.Second)
	run.Default(&c.PerPhone, Rate{Burst: 5, Per: time.Hour})
	run.Default(&c.PerAddress, Rate{Burst: 20, Per: time.Hour})
	run.Default(&c.PerRange, Rate{Burst: 100, Per: time.Hour})
	run.Default(&c.Lookups, Rate{Burst: 5000, Per: 24 * time.Hour})
	return c
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if len(c.UserKey) < 32 {
		errs = append(errs, fmt.Errorf("user key has %d bytes, needs at least 32", len(c.UserKey)))
	}
	c = c.withDefaults()
	for name, r := range map[string]Rate{
		"phone":   c.PerPhone,
		"address": c.PerAddress,
		"range":   c.PerRange,
		"lookups": c.Lookups,
	} {
		if r.Burst < 1 || r.Per <= 0 {
			errs = append(errs, fmt.Errorf("limit per %s: %d per %v is not a rate", name, r.Burst, r.Per))
		}
	}
	return errors.Join(errs...)
}
