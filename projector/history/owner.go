package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"heliograph/infra/history"
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
	// After the claim: whoever switches says so first and takes the slots over then, so he sees this one, or we see
	// him.
	if err := s.admitted(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.epochs[slot] = mine.epoch
	s.mu.Unlock()
	return s.fence(slot, by)
}

// errSwitching says that nobody writes the history just now.
var errSwitching = errors.New("another generation is taking the history's place")

// admitted tells whether this process may write what the database holds.
func (s *store) admitted(ctx context.Context) error {
	sw, err := s.history.Switching(ctx)
	if err != nil {
		return err
	}
	if sw.Open && !s.cfg.Beside {
		return fmt.Errorf("%w (%d, since %s): it waits until that is done; if nobody is at it any more, "+
			"'helio replay clickhouse' brings it to its end", errSwitching, sw.Number, sw.Since.Format(time.RFC3339))
	}
	b, err := s.history.Building(ctx)
	if err != nil {
		return err
	}
	if (b.State == history.Live) == s.cfg.Beside {
		return kafka.Permanent(fmt.Errorf("generation %d of the history is %s: "+
			"the live one is filled by its projectors, "+
			"and every other by 'helio replay clickhouse' alone", b.Number, b.State))
	}
	return nil
}

// TakeAll takes the slots over for nobody: who has one stops. The slots are all that ever had an owner.
func TakeAll(ctx context.Context, conn driver.Conn) error {
	h := history.New(conn)
	now, err := h.Generation(ctx)
	if err != nil {
		return err
	}
	var rows []ownerRow
	for _, g := range []uint32{now, now + 1} { // somebody may have begun a rebuild in place
		found, err := h.Owners(ctx, g)
		if err != nil {
			return err
		}
		for _, o := range found {
			rows = append(rows, ownerRow{g, o.Slot, o.Epoch + 1 + rand.Uint64N(1<<32)})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	s := &store{conn: conn, history: h, metrics: newMetrics(nil), cfg: Config{}.withDefaults(nil, nil)}
	s.room = make(chan struct{}, 1)
	return insertChunk(ctx, s, tableOwners, "", rows)
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
