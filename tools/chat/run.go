package chat

import (
	"context"
	"fmt"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"heliograph/edge/client"
)

// FlushTime is how long the last watermarks get to leave when everything else is over.
const FlushTime = 2 * time.Second

// Run shows the chat in the terminal until the user quits or ctx ends. It runs cl, whose Run must not be called
// elsewhere.
func Run(ctx context.Context, cfg Config, cl *client.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := tea.NewProgram(New(ctx, cfg, cl), tea.WithContext(ctx), tea.WithoutSignalHandler())
	var wg sync.WaitGroup
	wg.Go(func() { p.Send(StoppedMsg{Err: cl.Run(ctx)}) })
	wg.Go(func() {
		for e := range cl.Events(ctx) {
			p.Send(EventMsg{Event: e})
		}
	})
	_, err := p.Run()
	ended := ctx.Err() != nil // a signal, not a fault of the screen's
	if !ended {
		last, stop := context.WithTimeout(ctx, FlushTime)
		_ = cl.Flush(last) // they go out next time
		stop()
	}
	cancel()
	wg.Wait()
	if err != nil && !ended {
		return fmt.Errorf("terminal: %w", err)
	}
	return nil
}
