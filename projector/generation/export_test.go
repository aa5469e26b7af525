package generation

import "time"

// SetWaits has a switch wait so long for the snapshots of others, and fn called each time that it waits for somebody,
// until the returned function is called.
func SetWaits(d time.Duration, fn func()) (reset func()) {
	most, was := readersMost, waits
	readersMost, waits = d, fn
	return func() { readersMost, waits = most, was }
}

// At has fn called before each step of a switch, and the lock of a replay that was killed expire soon.
func (c ClickHouseConfig) At(fn func(step string), expiry time.Duration) ClickHouseConfig {
	c.step, c.expiry = fn, expiry
	return c
}
