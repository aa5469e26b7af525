package sinktest

import (
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// Retries is a log of one direct thread in which messages come again in each way that a sink which forgets, or loads, must tell apart, and the batches after
// which its slot is to be opened anew. A batch is one record. filler messages come before each.
func Retries(partitions, filler int) (steps []eventtest.Step, reopen map[int]bool) {
	a, b := id.User([]byte("test key"), "+4915112345671", 1), id.User([]byte("test key"), "+4915112345672", 1)
	t := id.DirectThread(a, b)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	reopen = map[int]bool{}
	send := func(from, to id.UserID, m id.MessageID) {
		e := eventv1.Event_builder{UserId: from[:], MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:], Content: eventtest.Text("a message"), DirectPeer: to[:],
		}.Build()}.Build()
		v, err := proto.Marshal(e)
		if err != nil {
			panic(err) // a broken test
		}
		now++
		steps = append(steps, eventtest.Step{Topic: topic.Threads, Slot: topic.SlotOf(topic.Subject(t), partitions), Position: topic.Position(len(steps)), TimeMS: now, Subject: topic.Subject(t), Key: t[:], Value: v, Event: e})
	}
	opened := func() { reopen[len(steps)] = true }
	fill := func() {
		for range filler {
			send(b, a, id.NewMessage())
		}
	}
	first, second, third := id.NewMessage(), id.NewMessage(), id.NewMessage()
	send(a, b, first)
	send(a, b, second)
	fill()
	opened()
	send(a, b, third)
	send(a, b, first) // its thread is known again, the message is not
	send(a, b, third)
	send(b, a, first) // another's message of the same id
	fill()
	opened()
	send(a, b, second) // nothing is known
	send(b, a, first)
	now += thread.Window.Milliseconds() - 1000
	send(a, b, third) // within the window, by a little
	now += 2000
	send(a, b, first) // after it: a message of its own
	send(a, b, first)
	fill()
	opened()
	send(a, b, first) // the later one of two counts
	now -= 2 * time.Hour.Milliseconds()
	send(a, b, first) // also for a stamp that went back
	now += 4 * time.Hour.Milliseconds()
	send(a, b, second)
	now += thread.Window.Milliseconds()
	send(a, b, id.NewMessage())
	send(a, b, second)
	send(a, b, second)
	return steps, reopen
}
