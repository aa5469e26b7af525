package link

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/quic-go/quic-go"
)

// An instance that was killed and is back on its address tells the edge so: the edge need not wait until it hears
// nothing for long.
func TestQUICBackFromTheDead(t *testing.T) {
	ctx := within(t)
	ca := authority(t)
	conf := config(t, ca, "delivery-1")
	taken := make(chan struct{})
	handle := func(ctx context.Context, end DeliveryEnd) error {
		if _, err := end.Recv(ctx); err != nil {
			return err
		}
		close(taken)
		for { // signs of life
			if m, err := end.Recv(ctx); err != nil {
				return err
			} else if m.HasBody() {
				return fmt.Errorf("unexpected frame %v", m)
			} else if err := end.SendWait(ctx, progress(1)); err != nil {
				return err
			}
		}
	}
	first, err := Listen("127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = first.Serve(ctx, handle) // fails when its socket is gone
	}()
	edge, err := Dial(ctx, first.Addr().String(), config(t, ca, "edge-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer edge.Close()
	if err := edge.Send(ctx, hello("edge-1")); err != nil {
		t.Fatal(err)
	}
	<-taken
	// Until nothing is under way any more: what then makes the edge notice is its own sign of life.
	if _, err := edge.Recv(ctx); err != nil {
		t.Fatal(err)
	}
	if err := first.udp.Close(); err != nil { // as at a SIGKILL: nothing is said to the edge
		t.Fatal(err)
	}
	<-served
	second, err := Listen(first.Addr().String(), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_, err = edge.Recv(ctx)
	var reset *quic.StatelessResetError
	if !errors.As(err, &reset) {
		t.Errorf("the link ended with %v, want a stateless reset", err)
	}
}
