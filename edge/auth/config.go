package auth

import (
	"errors"
	"fmt"
	"time"
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
	// PinLifetime is how long a PIN can be used; 5 minutes.
	PinLifetime time.Duration
	// PinTries is how many wrong tries a PIN survives; 5.
	PinTries int
	// PinDelay is how long a number must wait after its first PIN died of wrong tries; it doubles with each further
	// one, up to a day; 1 minute.
	PinDelay time.Duration
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
}

func (c Config) withDefaults() Config {
	def := func(r *Rate, burst int, per time.Duration) {
		if *r == (Rate{}) {
			*r = Rate{Burst: burst, Per: per}
		}
	}
	if c.PinLifetime == 0 {
		c.PinLifetime = 5 * time.Minute
	}
	if c.PinTries == 0 {
		c.PinTries = 5
	}
	if c.PinDelay == 0 {
		c.PinDelay = time.Minute
	}
	if c.PinInterval == 0 {
		c.PinInterval = 30 * time.Second
	}
	def(&c.PerPhone, 5, time.Hour)
	def(&c.PerAddress, 20, time.Hour)
	def(&c.PerRange, 100, time.Hour)
	def(&c.Lookups, 5000, 24*time.Hour)
	return c
}

// Validate reports every fault.
func (c Config) Validate() error {
	var errs []error
	if len(c.UserKey) < 32 {
		errs = append(errs, fmt.Errorf("user key has %d bytes, needs at least 32", len(c.UserKey)))
	}
	c = c.withDefaults()
	if c.PinLifetime < time.Second || c.PinLifetime > time.Hour {
		errs = append(errs, fmt.Errorf("PIN lifetime %v is not between a second and an hour", c.PinLifetime))
	}
	if c.PinTries < 1 || c.PinTries > 20 {
		errs = append(errs, fmt.Errorf("%d PIN tries are not between 1 and 20", c.PinTries))
	}
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
