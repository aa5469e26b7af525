// Package replicatest has what a replica stands on, in memory, for tests: a World with a log and the thread views that
// are folded from it with a lag, and a Cluster of delivery instances over the log whose links break and whose slots
// move.
//
// Promise: what the log holds is what an Oracle of each thread has folded at once; the views come to the same when they
// are folded to its end.
//
// Non-obvious: all of a World, its Views and its Past are guarded by World.Mu; methods say when the caller holds it.
package replicatest
