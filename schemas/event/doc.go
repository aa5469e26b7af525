// Package event reads the events of the log: the one decoder from a record's value to a typed event, and what
// event.proto declares of each type.
//
// Promise: bytes that this version cannot read whole are never taken for something else. Decode tells apart an event,
// one of a newer version (*NewerError), one that every version passes over (ErrIgnorable), and bytes that no version
// reads (ErrMalformed). The same bytes give the same answer in the edge and in every projector
// of one version.
//
// Evolution (the numbered rules stand in event.proto): a new event type is declared with the reader version that first
// reads it, and Reader is raised with it. Rules are the number of the limits and permissions by which folds judge; the
// folds keep every number (thread.RulesOf, user.RulesOf).
//
// Non-obvious:
//   - Decode judges no field: an id of the wrong length leaves the parsed one zero, and the folds reject the event.
//     Only thread.Check and user.Check say what is wrong with it, for ingest.
//   - Plain content is opened here, once per process; what reads the event finds its text in it.
//   - A type that is declared with since 0 is laid down, so it counts as unknown, although the generated code knows it.
//   - Seal binds bytes to their place: AssociatedData, EditAssociatedData and StoredAssociatedData are authenticated.
package event
