// Package secrets makes the secrets of a deployment on one machine: what 'helio dev' and the tests start their roles
// with. In production they come from the operator.
//
// Promise: after Ensure the directory holds a whole set, and what was there before is as it was. Files belong together
// in groups (a certificate and its key): a group of which only a part is there is an error, never mended by making the
// rest anew.
//
// Durability: files are complete or absent, whenever the process dies; the next Ensure goes on. When two processes call
// Ensure at once, one waits for the other.
//
// Non-obvious:
//   - user.key can never be replaced: user ids are derived from it.
//   - edge.pem signs itself, so it is also the file by which clients verify the edge.
//   - The key of the links' authority is not kept: whoever needs another certificate gets another authority with it.
//     Rotate brings both in, in three steps between which the files are distributed, and no link is refused on the way.
//   - A delivery instance needs the links' files alone (CopyLinks). user.key, from which user ids and the hashes of
//     phone numbers come, is for edges.
package secrets
