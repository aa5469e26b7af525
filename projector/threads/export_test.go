package threads

import "time"

// SetTimeout bounds an attempt at a batch and every question to the store.
func (c *Config) SetTimeout(d time.Duration) { c.timeout = d }

// SetTrimRows says how many messages one statement removes.
func (c *Config) SetTrimRows(n int) { c.trimRows = n }
