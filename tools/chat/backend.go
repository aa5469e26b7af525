package chat

import (
	"context"
	"time"

	"heliograph/edge/client"
	"heliograph/schemas/id"
	"heliograph/schemas/topic"
	wirev1 "heliograph/schemas/wire/v1"
)

// Client is what the chat needs of a device; *client.Client is one.
type Client interface {
	// Identity tells who this device is; false before it is registered.
	Identity() (client.Identity, bool)
	// Outbox tells how many messages wait for their acknowledgement.
	Outbox() int
	// Direct names the direct thread with a user.
	Direct(peer id.UserID) (client.To, error)
	// Send puts a text into the outbox.
	Send(to client.To, text string) (id.MessageID, error)
	// Forget ends the keeping of a message that was not sent.
	Forget(m id.MessageID) error
	// MarkRead moves the read watermark of a thread.
	MarkRead(p client.Place)
	// Flush returns when an edge has the watermarks.
	Flush(ctx context.Context) error
	// CheckPhone asks how the server reads a phone number.
	CheckPhone(ctx context.Context, phone string) (client.Phone, error)
	// RequestPin asks for an SMS.
	RequestPin(ctx context.Context, phone string) (expires, retry time.Duration, err error)
	// Register registers a phone number.
	Register(ctx context.Context, r client.Registration) (client.Identity, error)
	// SetName changes the own display name.
	SetName(ctx context.Context, name string) error
	// Threads returns a page of the thread list.
	Threads(ctx context.Context, limit int, token []byte) ([]*wirev1.ThreadSummary, []byte, error)
	// Thread returns a thread with its members.
	Thread(ctx context.Context, t id.ThreadID) (*wirev1.Thread, error)
	// History returns a page of the events before a position, newest first.
	History(
		ctx context.Context, t id.ThreadID, before topic.Position, limit int,
	) ([]client.Event, topic.Position, error)
	// Lookup returns which phone numbers are users.
	Lookup(ctx context.Context, phones ...string) ([]*wirev1.User, error)
	// Users returns profiles by id.
	Users(ctx context.Context, ids ...id.UserID) ([]*wirev1.User, error)
	// CreateGroup creates a group.
	CreateGroup(ctx context.Context, title string, members ...id.UserID) (id.ThreadID, error)
	// AddMembers adds members to a group.
	AddMembers(ctx context.Context, t id.ThreadID, members ...id.UserID) error
	// RemoveMember removes a member from a group.
	RemoveMember(ctx context.Context, t id.ThreadID, u id.UserID) error
	// Leave leaves a group.
	Leave(ctx context.Context, t id.ThreadID) error
	// Rename changes a group's title.
	Rename(ctx context.Context, t id.ThreadID, title string) error
	// Invitations returns the open invitations of the own user.
	Invitations(ctx context.Context) ([]client.Invitation, error)
	// Invite invites users into a group.
	Invite(ctx context.Context, t id.ThreadID, users ...id.UserID) error
	// WithdrawInvitation takes an invitation back.
	WithdrawInvitation(ctx context.Context, t id.ThreadID, u id.UserID) error
	// AnswerInvitation accepts an invitation, or declines it.
	AnswerInvitation(ctx context.Context, t id.ThreadID, accept bool) error
	// Settings returns what the own user has set.
	Settings(ctx context.Context) (client.Settings, error)
	// SetMayAdd sets who may put the own user into groups.
	SetMayAdd(ctx context.Context, who client.MayAdd) error
	// SetBlocked blocks a user, or lifts that.
	SetBlocked(ctx context.Context, u id.UserID, blocked bool) error
}

var _ Client = (*client.Client)(nil)
