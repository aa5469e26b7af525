package ingest

import (
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
	"heliograph/schemas/user"
)

// MaxEvent is the longest encoded event in bytes; a group of thread.MaxMembers is the longest that there is beside a
// long text.
const MaxEvent = 256 << 10

// check judges an event as the folds will, by the rules under which it is about to be written, so that nothing gets
// into the log that every fold would refuse as malformed; and what no fold may look at, so that every reader can show
// it. Who may do it is the caller's and the folds' to judge.
func check(t topic.Topic, s topic.Subject, e *event.Event) error {
	if s == (topic.Subject{}) {
		return event.Invalidf("subject", "is zero")
	}
	if d, _ := event.Declared(e.Type); d.Topic != t {
		return event.Invalidf("body", "%s does not belong in %s", e.Type, t)
	}
	if err := event.Check(e); err != nil {
		return err
	}
	switch t {
	case topic.Threads:
		return event.First(thread.Check(e), checkThread(s, e))
	case topic.Users:
		return user.Check(e)
	case topic.Receipts:
		return event.CheckID("device_id", e.GetDeviceId())
	case topic.Presence:
		return nil
	}
	return event.Invalidf("body", "%s is not the edges' to write", e.Type)
}

func checkThread(s topic.Subject, e *event.Event) error {
	switch e.WhichBody() {
	case eventv1.Event_MessageSent_case, eventv1.Event_MessageEdited_case:
		return thread.CheckWritten(e)
	case eventv1.Event_ThreadCreated_case:
		if !id.ThreadID(s).IsGroup() {
			return event.Invalidf("subject", "is not the id of a group")
		}
		if n := len(e.GetThreadCreated().GetMemberIds()); n > thread.MaxMembers-1 {
			return event.Invalidf("member_ids", "are %d, at most %d", n, thread.MaxMembers-1)
		}
	}
	return nil
}
