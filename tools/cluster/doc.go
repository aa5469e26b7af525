// Package cluster runs a whole Heliograph on this machine from real processes: the engines, and any number of edges,
// delivery instances and projectors, each a child that runs the helio binary, so that they can be killed, stopped,
// paused and started again one by one. The demo and the end-to-end tests stand on it.
//
// Promise: Start returns when every process says that it is ready, or with the reason and the end of the log of the one
// that did not. Every process ends with this one, however that ends. A process that is started again has the addresses
// it had before.
//
// Order: engines start before roles and stop after them.
//
// Durability: the engines' own; their data, the secrets and one log file per process lie under Options.Dir and stay
// there.
//
// When slow or restarted: nothing is started again by itself. A role that ends without having been asked to is told of
// by Unasked.
//
// Non-obvious:
//   - StartDev runs helio dev instead, everything in one process: what is one process with its engines is then killed
//     and started again as a whole.
//   - Options.Dir must be passable for other users: Postgres runs as one of its own when this process is root's.
//   - The roles' ports are chosen once, from below the range that the kernel gives to outgoing connections: so nobody
//     takes the port of a process that is down.
//   - Registering from one address is limited, as it should be: Register comes from another loopback address each time.
//   - Deadlines are the callers' contexts; only Stop has one of its own, after which it kills.
package cluster
