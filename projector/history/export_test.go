package history

import "time"

// SetTimeout bounds each insert and each query; 0 is the default.
func (c *Config) SetTimeout(d time.Duration) { c.timeout = d }

// SetInserts says how many inserts run at one time.
func (c *Config) SetInserts(n int) { c.inserts = n }
