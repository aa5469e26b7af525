package history

import (
	"context"
	"fmt"
	"math/rand/v2"

	"heliograph/infra/kafka"
	"heliograph/schemas/topic"
)

// ownerRow says who writes a slot from now on.
type ownerRow struct {
	generation uint32
	slot       topic.Slot
	epoch      uint64
}

// claim makes this process the slot's owner: what another has not begun by now it will not begin any more. Positions
// are to be read after it, so that all that was begun is among them. The step is drawn, so that two that claim at one
// moment are not both the owner.
func (s *store) claim(ctx context.Context, slot topic.Slot) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.timeout)
	defer cancel()
	last, err := s.history.Owner(ctx, slot, s.cfg.Generation)
	if err != nil {
		return err
	}
	mine := ownerRow{s.cfg.Generation, slot, last + 1 + rand.Uint64N(1<<32)}
	by, err := s.claims.put(ctx, []ownerRow{mine})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.epochs[slot] = mine.epoch
	s.mu.Unlock()
	return s.fence(slot, by)
}

// fence returns kafka.ErrFenced when somebody else has taken a slot over.
func (s *store) fence(slot topic.Slot, by epochs) error {
	s.mu.Lock()
	mine := s.epochs[slot]
	s.mu.Unlock()
	if by[slot] != mine {
		return fmt.Errorf("%w: the history's slot %d was taken over", kafka.ErrFenced, slot)
	}
	return nil
}

// owners reads who owns the slots.
func (s *store) owners(ctx context.Context) (epochs, error) {
	found, err := s.history.Owners(ctx, s.cfg.Generation)
	by := make(epochs, len(found))
	for _, o := range found {
		by[o.Slot] = o.Epoch
	}
	return by, err
}
