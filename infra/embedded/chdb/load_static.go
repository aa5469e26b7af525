//go:build static

package chdb

import "heliograph/infra/embedded/engine"

// load fails: a statically linked program cannot open a library. That is the build for containers, where ClickHouse is
// a server.
func load(path string) (*library, error) {
	return nil, engine.Missingf(
		engine.ClickHouse, "%s cannot be loaded: this helio was built without the embedded engine (-tags static)", path,
	)
}
