package thread

import (
	"fmt"
	"strings"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
)

// Rules are the limits by which an event is judged whose envelope carries their number. A row never changes: what is
// in the log was judged by it. A new limit is a new row, and event.CurrentRules is raised with it; but one that only a
// new type of event knows (since a later reader) may join the current row.
type Rules struct {
	// MaxMembers is the most members that a group has at one time.
	MaxMembers int
	// MaxInvited is the most users that are invited into a group at one time; 0: nobody is.
	MaxInvited int
	// MaxText is the longest text of plain content in bytes; 0: content is not opened to judge it.
	MaxText int
	// MaxSealed is the longest Sealed.data in bytes.
	MaxSealed int
	// MaxNonce is the longest Sealed.nonce in bytes.
	MaxNonce int
	// MaxTitle is the longest title in bytes.
	MaxTitle int
	// MaxEmoji is the longest reaction in bytes.
	MaxEmoji int
	// MaxMentions and MaxBlobs are how many users and blobs a message may name. 0: not judged.
	MaxMentions, MaxBlobs int
	// MaxExpire is the longest time in seconds after which a message vanishes. 0: not judged.
	MaxExpire uint32
	// MaxPreview is the most bytes of a message that the state keeps for lists.
	MaxPreview int
	// Separators: a title has no control of C1 and no separator of lines (event.OneLine).
	Separators bool
}

// rules are all that there ever were, by number less 1.
var rules = [...]Rules{
	{
		MaxMembers: 1024, MaxText: 65_536, MaxSealed: 66_560, MaxNonce: 32, MaxTitle: 256, MaxEmoji: 64,
		MaxPreview: 160,
	},
	{ // Content is not opened; the public part of a message has bounds.
		MaxMembers: 1024, MaxSealed: 66_560, MaxNonce: 32, MaxTitle: 256, MaxEmoji: 64,
		MaxMentions: 64, MaxBlobs: 32, MaxExpire: 31_536_000, MaxPreview: 160,
	},
	{ // A limit in bytes is not one by script: who writes counts the characters.
		MaxMembers: 1024, MaxInvited: 256, MaxSealed: 66_560, MaxNonce: 32, MaxTitle: 1024, MaxEmoji: 64,
		MaxMentions: 64, MaxBlobs: 32, MaxExpire: 31_536_000, MaxPreview: 224, Separators: true,
	},
}

// RulesOf returns the rules of a number from 1 to event.CurrentRules; event.Decode gives out no other.
func RulesOf(n uint32) *Rules {
	if n < 1 || int(n) > len(rules) {
		panic(fmt.Sprintf("thread: no rules %d", n)) // a caller that did not decode
	}
	return &rules[n-1]
}

// countsStamps is the first number of rules by which a stamp that is ahead counts only in part.
const countsStamps = 3

// tellsLater is the first number of rules by which a rejected message is kept for its sender. Views from before it have
// none of those before.
const tellsLater = 3

// TellsLater tells whether a message that was rejected is kept in the thread views, so that its sender, who has an ack
// of it, is told also when he was away.
func TellsLater(e *event.Event) bool {
	return e.HasMessageSent() && e.Rules >= tellsLater && !e.About.IsZero() && !e.Device.IsZero()
}

// Check judges what an event of helio.threads says, without regard to any state: the form of its ids and the limits of
// its rules. Its error is an *event.Invalid. An event that fails it is rejected by every fold as Malformed, so ingest
// refuses it.
func Check(e *event.Event) error {
	if e.User.IsZero() {
		return event.Invalidf("user_id", "is not a user's")
	}
	r := RulesOf(e.Rules)
	switch e.WhichBody() {
	case eventv1.Event_MessageSent_case:
		return r.checkMessage(e)
	case eventv1.Event_MessageEdited_case:
		return r.checkEdit(e)
	case eventv1.Event_MessageDeleted_case:
		return checkAbout(e)
	case eventv1.Event_ReactionSet_case:
		if n := len(e.GetReactionSet().GetEmoji()); n > r.MaxEmoji {
			return event.TooLong("emoji", n, r.MaxEmoji)
		}
		return checkAbout(e)
	case eventv1.Event_ThreadCreated_case:
		c := e.GetThreadCreated()
		return event.First(r.checkTitle(c.GetTitle()), r.checkMembers(c.GetMemberIds()))
	case eventv1.Event_ThreadRenamed_case:
		return r.checkTitle(e.GetThreadRenamed().GetTitle())
	case eventv1.Event_MemberAdded_case:
		if len(e.GetMemberAdded().GetMemberIds()) == 0 {
			return event.Invalidf("member_ids", "is empty")
		}
		return r.checkMembers(e.GetMemberAdded().GetMemberIds())
	case eventv1.Event_MemberInvited_case:
		if len(e.GetMemberInvited().GetMemberIds()) == 0 {
			return event.Invalidf("member_ids", "is empty")
		}
		return r.checkMembers(e.GetMemberInvited().GetMemberIds())
	case eventv1.Event_InvitationWithdrawn_case:
		return event.CheckID("member_id", e.GetInvitationWithdrawn().GetMemberId())
	case eventv1.Event_MemberRemoved_case:
		return event.CheckID("member_id", e.GetMemberRemoved().GetMemberId())
	case eventv1.Event_RoleChanged_case:
		c := e.GetRoleChanged()
		if role := Role(c.GetRole()); role != RoleMember && role != RoleAdmin {
			return event.Invalidf("role", "is %d", role)
		}
		return event.CheckID("member_id", c.GetMemberId())
	}
	return nil
}

func (r *Rules) checkMessage(e *event.Event) error {
	m := e.GetMessageSent()
	if e.About.IsZero() {
		return event.Invalidf("message_id", "is not a UUIDv7 of %d bytes", id.Size)
	}
	if m.HasReply() && e.Reply.IsZero() {
		return event.Invalidf("reply", "does not name a message")
	}
	err := event.First(r.checkContent(e, m.GetContent()), event.CheckOptionalID("reply_to", m.GetReplyTo()))
	if err != nil || r.MaxMentions == 0 {
		return err
	}
	if err := event.CheckOptionalID("direct_peer", m.GetDirectPeer()); err != nil {
		return err
	}
	if m.GetExpireAfterS() > r.MaxExpire {
		return event.Invalidf("expire_after_s", "is %d, at most %d", m.GetExpireAfterS(), r.MaxExpire)
	}
	return r.checkPublic(m.GetMentionedIds(), m.GetBlobIds(), m.GetCommitment())
}

// checkEdit judges an edit.
func (r *Rules) checkEdit(e *event.Event) error {
	m := e.GetMessageEdited()
	err := event.First(checkAbout(e), r.checkContent(e, m.GetContent()))
	if err != nil || r.MaxMentions == 0 {
		return err
	}
	return r.checkPublic(m.GetMentionedIds(), m.GetBlobIds(), m.GetCommitment())
}

// checkPublic judges what stands beside the sealed part.
func (r *Rules) checkPublic(mentioned, blobs [][]byte, commitment []byte) error {
	switch {
	case len(mentioned) > r.MaxMentions:
		return event.Invalidf("mentioned_ids", "are %d, at most %d", len(mentioned), r.MaxMentions)
	case len(blobs) > r.MaxBlobs:
		return event.Invalidf("blob_ids", "are %d, at most %d", len(blobs), r.MaxBlobs)
	case len(commitment) != 0 && len(commitment) != commitmentSize:
		return event.Invalidf("commitment", "has %d bytes, needs %d", len(commitment), commitmentSize)
	}
	for _, u := range mentioned {
		if err := event.CheckID("mentioned_ids", u); err != nil {
			return err
		}
	}
	for _, b := range blobs {
		if err := event.CheckID("blob_ids", b); err != nil {
			return err
		}
	}
	return nil
}

const commitmentSize = 32

// checkAbout judges how an edit, a deletion or a reaction names its message.
func checkAbout(e *event.Event) error {
	if e.About.IsZero() {
		return event.Invalidf("message", "does not name a message")
	}
	return nil
}

func (r *Rules) checkContent(e *event.Event, c *eventv1.Sealed) error {
	switch {
	case c == nil:
		return event.Invalidf("content", "is missing")
	case len(c.GetData()) > r.MaxSealed:
		return event.TooLong("content", len(c.GetData()), r.MaxSealed)
	case len(c.GetNonce()) > r.MaxNonce:
		return event.Invalidf("content", "has a nonce of %d bytes, at most %d", len(c.GetNonce()), r.MaxNonce)
	case r.MaxText == 0:
		return nil
	}
	return CheckPlain(e.Content)
}

// SealedSize is how many bytes of a message's content count against Rules.MaxSealed: its data, and what it and the
// reference to what it answers have in fields that this version does not know. Those are kept in the log, so whoever
// writes counts them; no verdict does.
func SealedSize(c *eventv1.Sealed, reply *eventv1.MessageRef) int {
	n := len(c.GetData()) + len(c.ProtoReflect().GetUnknown())
	if reply != nil {
		n += len(reply.ProtoReflect().GetUnknown())
	}
	return n
}

// CheckWritten judges what no verdict looks at of a message's or an edit's content, so that whoever writes it keeps to
// it: that every reader can show it, and that nothing is beside what has bounds.
func CheckWritten(e *event.Event) error {
	c := e.GetMessageEdited().GetContent()
	if e.HasMessageSent() {
		c = e.GetMessageSent().GetContent()
	}
	if n := SealedSize(c, e.GetMessageSent().GetReply()); n > MaxSealed {
		return event.TooLong("content", n, MaxSealed)
	}
	return CheckPlain(e.Content)
}

// CheckPlain judges what plain content says, which no verdict but that of rules 1 looks at: whoever writes it keeps to
// it, so that every reader can show it.
func CheckPlain(c event.Content) error {
	switch {
	case c.KeyID != 0:
		return nil
	case !c.Plain:
		return event.Invalidf("content", "is plain and cannot be read")
	case len(c.Text) > MaxText:
		return event.TooLong("content", len(c.Text), MaxText)
	}
	return nil
}

func (r *Rules) checkTitle(t string) error {
	if len(t) > r.MaxTitle {
		return event.TooLong("title", len(t), r.MaxTitle)
	}
	if !event.OneLine(t, r.Separators) || strings.TrimSpace(t) == "" {
		return event.Invalidf("title", "is not 1 to %d bytes of text", r.MaxTitle)
	}
	return nil
}

func (r *Rules) checkMembers(raw [][]byte) error {
	if len(raw) > r.MaxMembers {
		return event.Invalidf("member_ids", "are %d, at most %d", len(raw), r.MaxMembers)
	}
	for _, b := range raw {
		u, err := id.From[id.UserID](b)
		if err != nil || u.IsZero() {
			return event.Invalidf("member_ids", "has one that is not a user id")
		}
	}
	return nil
}
