package edge

import (
	"context"
	"errors"
	"testing"

	"heliograph/schemas/thread"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestAdminsAreAskedForBeforeTheLogIs: what a member may not do is refused without a word to the log. The fold would
// refuse it too, but by then it is there for ever.
func TestAdminsAreAskedForBeforeTheLogIs(t *testing.T) {
	f := start(t, nil)
	a, b, c, d := f.join(t, "+491"), f.join(t, "+492"), f.join(t, "+493"), f.join(t, "+494")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	g, err := a.CreateGroup(ctx, "walk", identity(b), identity(c))
	if err != nil {
		t.Fatal(err)
	}
	if err := said(t, b, g, "hi"); err != nil {
		t.Fatal(err)
	}
	before := len(f.world.log())
	for name, do := range map[string]func() error{
		"rename": func() error { return b.Rename(ctx, g, "run") },
		"add":    func() error { return b.AddMembers(ctx, g, identity(d)) },
		"remove": func() error { return b.RemoveMember(ctx, g, identity(c)) },
		"role":   func() error { return b.SetRole(ctx, g, identity(b), thread.RoleAdmin) },
	} {
		var we *wire.Error
		if err := do(); !errors.As(err, &we) || we.Code != wirev1.Code_CODE_NOT_ALLOWED {
			t.Errorf("%s by a member: %v, want %v", name, err, wirev1.Code_CODE_NOT_ALLOWED)
		}
		for _, r := range f.world.log()[before:] {
			t.Errorf("%s by a member: the log got %v", name, r.ev.WhichBody())
		}
		before = len(f.world.log())
	}
}
