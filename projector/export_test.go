package projector

import "heliograph/schemas/event"

// ReadAs has the sink read events as another version does.
func (s *Sink[R]) ReadAs(decode func(raw []byte) (*event.Event, error)) { s.decode = decode }

// DrainBy has the sink drain quarantine in parts of that size.
func (s *Sink[R]) DrainBy(rows, bytes int) { s.drainRows, s.drainBytes = rows, bytes }
