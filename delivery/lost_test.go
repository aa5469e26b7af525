package delivery

import (
	"context"
	"errors"
	"testing"

	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
)

// roomless is an end whose queue has no room for one frame, and then has room again, since the edge goes on reading.
type roomless struct {
	link.DeliveryEnd
	err  error // of the next frame
	took int
}

func (r *roomless) Send(*linkv1.ToEdge) error {
	if err := r.err; err != nil {
		r.err = nil
		return err
	}
	r.took++
	return nil
}

func (r *roomless) SendWait(context.Context, *linkv1.ToEdge) error { return r.Send(nil) }

// Until a link that lost a frame has ended the edge gets nothing of what would have followed: a Progress behind lost
// events would tell it that it has them.
func TestNothingFollowsALostFrame(t *testing.T) {
	progress := linkv1.ToEdge_builder{Progress: &linkv1.Progress{}}.Build()
	all := []*linkv1.ToEdge{progress}
	for name, lose := range map[string]func(*linkSlot, *roomless){
		"live": func(ls *linkSlot, _ *roomless) { ls.send(progress) },
		"caught up": func(ls *linkSlot, r *roomless) {
			r.err = context.Canceled
			if err := ls.sendWait(t.Context(), all); !errors.Is(err, context.Canceled) {
				t.Errorf("sendWait: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			end := &roomless{err: link.ErrFull}
			ended := 0
			ls := &linkSlot{conn: &conn{end: end, fail: func(error) { ended++ }}}
			lose(ls, end)
			ls.send(progress)
			_, errNow := ls.sendNow(all)
			errWait := ls.sendWait(t.Context(), all)
			if end.took != 0 || ended != 1 || errNow == nil || errWait == nil {
				t.Errorf("%d frames followed, ended %d times, %v, %v", end.took, ended, errNow, errWait)
			}
		})
	}
}
