package ingest

import (
	"crypto/ed25519"
	"fmt"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// Invalid is an event that breaks the rules of the schema: it will never be taken.
type Invalid struct {
	// Field is the one that breaks them, as the schema names it.
	Field string
	// Why, in words; never the field's content.
	Why string
	// TooLong: it is the length of a text or title that is at fault.
	TooLong bool
}

// Error names the field and says why.
func (e *Invalid) Error() string { return "invalid event: " + e.Field + " " + e.Why }

func invalid(field, format string, args ...any) error {
	return &Invalid{Field: field, Why: fmt.Sprintf(format, args...)}
}

func tooLong(field string, n, limit int) error {
	return &Invalid{Field: field, Why: fmt.Sprintf("has %d bytes, at most %d", n, limit), TooLong: true}
}

// MaxEvent is the longest encoded event in bytes; a group of thread.MaxMembers is the longest that there is beside a
// long text.
const MaxEvent = 256 << 10

// check judges an event by the limits of the folds, so that nothing gets into the log that every fold would refuse as
// malformed. Who may do it is the caller's and the folds' to judge.
func check(t topic.Topic, s topic.Subject, ev *eventv1.Event) error {
	if s == (topic.Subject{}) {
		return invalid("subject", "is zero")
	}
	if n := len(ev.GetUserId()); n != id.Size && (n != 0 || t == topic.Threads || t == topic.Receipts) {
		return invalid("user_id", "has %d bytes, needs %d", n, id.Size)
	}
	if n := len(ev.GetDeviceId()); n != id.Size && (n != 0 || t == topic.Receipts) {
		return invalid("device_id", "has %d bytes, needs %d", n, id.Size)
	}
	body := ev.WhichBody()
	switch {
	case t == topic.Threads && body >= 10 && body < 30:
		return checkThread(s, ev)
	case t == topic.Receipts && body == eventv1.Event_WatermarksMoved_case:
		return nil
	case t == topic.Users && body >= 50 && body < 70:
		return checkUser(ev)
	case t == topic.Presence && body == eventv1.Event_PresenceChanged_case:
		return nil
	}
	return invalid("body", "of kind %d does not belong in %s", body, t)
}

func checkThread(s topic.Subject, ev *eventv1.Event) error {
	switch ev.WhichBody() {
	case eventv1.Event_MessageSent_case:
		m := ev.GetMessageSent()
		return first(
			messageID(m.GetMessageId()), sealed(m.GetContent()), optional("reply_to", m.GetReplyTo()),
			optional("direct_peer", m.GetDirectPeer()),
		)
	case eventv1.Event_MessageEdited_case:
		m := ev.GetMessageEdited()
		return first(messageID(m.GetMessageId()), sealed(m.GetContent()))
	case eventv1.Event_MessageDeleted_case:
		m := ev.GetMessageDeleted()
		return first(messageID(m.GetMessageId()), optional("author_id", m.GetAuthorId()))
	case eventv1.Event_ReactionSet_case:
		m := ev.GetReactionSet()
		if len(m.GetEmoji()) > thread.MaxEmoji {
			return invalid("emoji", "has %d bytes, at most %d", len(m.GetEmoji()), thread.MaxEmoji)
		}
		return first(messageID(m.GetMessageId()), ids("author_id", m.GetAuthorId()))
	case eventv1.Event_ThreadCreated_case:
		c := ev.GetThreadCreated()
		if !id.ThreadID(s).IsGroup() {
			return invalid("subject", "is not the id of a group")
		}
		return first(title(c.GetTitle()), members(c.GetMemberIds(), thread.MaxMembers-1))
	case eventv1.Event_ThreadRenamed_case:
		return title(ev.GetThreadRenamed().GetTitle())
	case eventv1.Event_MemberAdded_case:
		raw := ev.GetMemberAdded().GetMemberIds()
		if len(raw) == 0 {
			return invalid("member_ids", "is empty")
		}
		return members(raw, thread.MaxMembers)
	case eventv1.Event_MemberRemoved_case:
		return ids("member_id", ev.GetMemberRemoved().GetMemberId())
	case eventv1.Event_MemberLeft_case:
		return nil
	case eventv1.Event_RoleChanged_case:
		c := ev.GetRoleChanged()
		if r := c.GetRole(); r != eventv1.Role_ROLE_MEMBER && r != eventv1.Role_ROLE_ADMIN {
			return invalid("role", "is %d", r)
		}
		return ids("member_id", c.GetMemberId())
	}
	return invalid("body", "is of an unknown kind")
}

func checkUser(ev *eventv1.Event) error {
	switch ev.WhichBody() {
	case eventv1.Event_UserRegistered_case:
		r := ev.GetUserRegistered()
		if r.GetGeneration() == 0 {
			return invalid("generation", "is 0")
		}
		return first(ids("phone_hash", r.GetPhoneHash()), device(r.GetDeviceId(), r.GetPublicKey(), r.GetDeviceName()))
	case eventv1.Event_DeviceLinked_case:
		l := ev.GetDeviceLinked()
		return device(l.GetDeviceId(), l.GetPublicKey(), l.GetDeviceName())
	case eventv1.Event_DeviceRevoked_case:
		return ids("device_id", ev.GetDeviceRevoked().GetDeviceId())
	case eventv1.Event_ProfileChanged_case:
		return first(notEmpty("name", ev.GetProfileChanged().GetName()), name("name", ev.GetProfileChanged().GetName()))
	case eventv1.Event_ContactSaved_case:
		return first(
			ids("phone_hash", ev.GetContactSaved().GetPhoneHash()), name("name", ev.GetContactSaved().GetName()),
		)
	case eventv1.Event_ContactRemoved_case:
		return ids("phone_hash", ev.GetContactRemoved().GetPhoneHash())
	case eventv1.Event_UserBlocked_case:
		return ids("blocked_id", ev.GetUserBlocked().GetBlockedId())
	case eventv1.Event_UserUnblocked_case:
		return ids("blocked_id", ev.GetUserUnblocked().GetBlockedId())
	case eventv1.Event_ThreadJoined_case:
		return ids("thread_id", ev.GetThreadJoined().GetThreadId())
	case eventv1.Event_ThreadLeft_case:
		return ids("thread_id", ev.GetThreadLeft().GetThreadId())
	}
	return invalid("body", "is of an unknown kind")
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func ids(field string, b []byte) error {
	if len(b) != id.Size {
		return invalid(field, "has %d bytes, needs %d", len(b), id.Size)
	}
	return nil
}

func optional(field string, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return ids(field, b)
}

func messageID(b []byte) error {
	if m, err := id.From[id.MessageID](b); err != nil || !m.Valid() {
		return invalid("message_id", "is not a UUIDv7 of %d bytes", id.Size)
	}
	return nil
}

func sealed(c *eventv1.Sealed) error {
	switch {
	case c == nil:
		return invalid("content", "is missing")
	case len(c.GetData()) > thread.MaxSealed:
		return tooLong("content", len(c.GetData()), thread.MaxSealed)
	case len(c.GetNonce()) > 32:
		return invalid("content", "has a nonce of %d bytes, at most 32", len(c.GetNonce()))
	case c.GetKeyId() != 0:
		return nil
	}
	if text, ok := thread.Text(c); !ok {
		if len(text) > thread.MaxText {
			return tooLong("content", len(text), thread.MaxText)
		}
		return invalid("content", "is plain and cannot be read")
	}
	return nil
}

func title(t string) error {
	if len(t) > thread.MaxTitle {
		return tooLong("title", len(t), thread.MaxTitle)
	}
	if !thread.ValidTitle(t) {
		return invalid("title", "is not 1 to %d bytes of text", thread.MaxTitle)
	}
	return nil
}

func members(raw [][]byte, limit int) error {
	if len(raw) > limit {
		return invalid("member_ids", "are %d, at most %d", len(raw), limit)
	}
	for _, b := range raw {
		u, err := id.From[id.UserID](b)
		if err != nil || u.IsZero() {
			return invalid("member_ids", "has one that is not a user id")
		}
	}
	return nil
}

func device(d, key []byte, deviceName string) error {
	if dev, err := id.From[id.DeviceID](d); err != nil || !dev.Valid() {
		return invalid("device_id", "is not a UUIDv7 of %d bytes", id.Size)
	}
	if len(key) != ed25519.PublicKeySize {
		return invalid("public_key", "has %d bytes, needs %d", len(key), ed25519.PublicKeySize)
	}
	return name("device_name", deviceName)
}

func name(field, n string) error {
	if !user.ValidName(n) {
		return invalid(field, "is not at most %d bytes of plain text", user.MaxName)
	}
	return nil
}

func notEmpty(field, n string) error {
	if n == "" {
		return invalid(field, "is empty")
	}
	return nil
}
