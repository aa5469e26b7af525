// Package query answers what devices ask of the views: the thread list, a thread with its members, history, users,
// devices, and how far each view has got.
//
// Promise: an answer shows only what the asking user may see: threads of his own list, events within his spans of
// membership and not before the device's floor. History is one seamless sequence: the tail comes from Postgres, what is
// older from ClickHouse, and the cursor between them is the position, which is the same in both.
//
// An Archive serves the catch-ups of devices that were away for longer than the tail goes back.
//
// When a store is down: CODE_UNAVAILABLE, retriable (wire 14.1). Nothing is cached here.
//
// Non-obvious:
//   - Members are judged by the view's rows, at the position that Postgres has reached; live pushes are judged by the
//     replica. A page of history never holds more than the spans allow, however old the view is.
//   - ClickHouse is asked only when Postgres' tail ends before the asked range does.
package query
