package wire_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	"heliograph/schemas/id"
	"heliograph/schemas/user"
	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// As many invitations as a user may have, with titles as long as they may be, fit a frame together.
func TestMostInvitationsFitAFrame(t *testing.T) {
	title := strings.Repeat("x", user.RulesOf(event.CurrentRules).MaxTitle)
	var list []*wirev1.Invitation
	for range user.MaxInvitations {
		g, u := id.NewGroup(), id.UserID{1}
		list = append(list, wirev1.Invitation_builder{
			ThreadId: g[:], Title: title, InviterId: u[:], TimeMs: 1 << 48,
		}.Build())
	}
	got := proto.Size(wirev1.ServerFrame_builder{
		RequestId: 1 << 63, Invitations: wirev1.Invitations_builder{Invitations: list}.Build(),
	}.Build())
	if got > wire.MaxServerFrame {
		t.Errorf("got %d bytes, want at most %d", got, wire.MaxServerFrame)
	}
}
