package ingest

import "context"

// requestKey is the context's key of a request's name.
type requestKey struct{}

// WithRequest returns a context for what a request does: the events that are appended in it carry its name, at most
// event.MaxRequestID bytes.
func WithRequest(ctx context.Context, name []byte) context.Context {
	return context.WithValue(ctx, requestKey{}, name)
}

// Request returns the name of the request that a context is of; nil: of none.
func Request(ctx context.Context) []byte {
	name, _ := ctx.Value(requestKey{}).([]byte)
	return name
}
