//go:build !unix

package client

import "os"

// lock does nothing where there is no flock: two processes on one file are then the user's to avoid.
func lock(*os.File) error { return nil }
