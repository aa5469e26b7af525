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
	// PinInterval is the least time between two PINs for one number and device; 30 seconds.
	PinInterval time.Duration
	// PerPhone bounds the PINs that one network (IPv4 /24, IPv6 /48) asks for one number; 5 an hour.
	PerPhone Rate
	// PerNumber bounds the PINs for one number from all networks but those from which it was registered before: so many
	// SMS strangers can have sent to somebody; 20 a day.
	PerNumber Rate
	// PerAddress bounds the PINs asked for from one address (IPv4 /32, IPv6 /64; an IPv6 /48 has four times as many);
	// 20 an hour.
	PerAddress Rate
	// WrongPins bounds the wrong PINs from one address, as PerAddress does; 20 an hour.
	WrongPins Rate
	// PerRange bounds the PINs asked for one range of numbers (all but the last four digits), against SMS pumping; 100
	// an hour.
	PerRange Rate
	// PerCountry bounds the SMS to one country; 5,000 a day.
	PerCountry Rate
	// PerDeployment bounds the SMS of the deployment; 20,000 a day.
	PerDeployment Rate
	// Lookups bounds the phone numbers that one user may look up; 5,000 a day.
	Lookups Rate
	// GroupsPerUser bounds the groups that a user creates (200 a day), AdditionsPerUser whom he puts into groups
	// (10,000 a day), ChangesPerUser his other changes of groups (2,000 a day), ProfilesPerUser those of his profile
	// and the devices that he links (100 a day), SettingsPerUser those of his settings and blocks (500 a day).
	GroupsPerUser, AdditionsPerUser, ChangesPerUser, ProfilesPerUser, SettingsPerUser Rate

	pinTries     int           // how many wrong tries a PIN survives, for tests; 5
	guesses      Rate          // wrong tries at one number from networks that are not its own, for tests; 30 a day
	refusedAfter time.Duration // what a PIN that is refused takes, for tests; 250 ms
}

// pinLifetime is how long a PIN can be used.
const pinLifetime = 5 * time.Minute

func (c Config) withDefaults() Config {
	run.Default(&c.pinTries, 5)
	run.Default(&c.PinInterval, 30*time.Second)
	run.Default(&c.PerPhone, Rate{Burst: 5, Per: time.Hour})
	run.Default(&c.PerAddress, Rate{Burst: 20, Per: time.Hour})
	run.Default(&c.guesses, Rate{Burst: 30, Per: 24 * time.Hour})
	run.Default(&c.refusedAfter, 250*time.Millisecond)
	run.Default(&c.PerNumber, Rate{Burst: 20, Per: 24 * time.Hour})
	run.Default(&c.WrongPins, Rate{Burst: 20, Per: time.Hour})
	run.Default(&c.PerCountry, Rate{Burst: 5000, Per: 24 * time.Hour})
	run.Default(&c.PerDeployment, Rate{Burst: 20_000, Per: 24 * time.Hour})
	run.Default(&c.PerRange, Rate{Burst: 100, Per: time.Hour})
	run.Default(&c.GroupsPerUser, Rate{Burst: 200, Per: 24 * time.Hour})
	run.Default(&c.AdditionsPerUser, Rate{Burst: 10_000, Per: 24 * time.Hour})
	run.Default(&c.ChangesPerUser, Rate{Burst: 2000, Per: 24 * time.Hour})
	run.Default(&c.ProfilesPerUser, Rate{Burst: 100, Per: 24 * time.Hour})
	run.Default(&c.SettingsPerUser, Rate{Burst: 500, Per: 24 * time.Hour})
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
		"phone":         c.PerPhone,
		"number":        c.PerNumber,
		"address":       c.PerAddress,
		"wrong address": c.WrongPins,
		"range":         c.PerRange,
		"country":       c.PerCountry,
		"deployment":    c.PerDeployment,
		"lookups":       c.Lookups,
		"groups":        c.GroupsPerUser,
		"additions":     c.AdditionsPerUser,
		"changes":       c.ChangesPerUser,
		"profiles":      c.ProfilesPerUser,
		"settings":      c.SettingsPerUser,
	} {
		if r.Burst < 1 || r.Per <= 0 {
			errs = append(errs, fmt.Errorf("limit per %s: %d per %v is not a rate", name, r.Burst, r.Per))
		}
	}
	return errors.Join(errs...)
}
