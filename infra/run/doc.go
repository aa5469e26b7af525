// Package run starts the services of a process and stops them again, and holds the few things that every service
// shares: backoff with jitter, defaults of settings, recovery from panics, a watchdog over gauges, secrets that print
// redacted and TLS files.
//
// Promise: Group.Run returns only when every service has returned, or when the hard stop's deadline has passed, and
// then it names those that have not. A service's first error ends the group. A panic at a service's boundary becomes an
// error, is counted and ends that service alone.
//
// Order: services start in the order in which they were added and stop in reverse, one after the other: first drain
// (refuse new work, flush), then the service's context is cancelled and its return is awaited.
//
// Durability: none; nothing here is stored.
//
// When slow: the whole stop has one deadline (20 s). Past it every context is cancelled at once (the
// hard stop), and the services have 5 s left.
//
// Non-obvious:
//   - A service that returns nil before it was told to stop is finished, not failed: the group goes on.
//   - The contexts of the services are detached from Run's: cancelling Run's context starts the drain, it does not cut
//     the services.
//   - Secret has no MarshalJSON that reveals: writing a configuration out and reading it back loses its secrets, on
//     purpose.
package run
