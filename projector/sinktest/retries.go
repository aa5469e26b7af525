package sinktest

import (
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/proto"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/eventtest"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

// messageAt returns a message id that was made at a time, Unix milliseconds.
func messageAt(ms int64) id.MessageID {
	m := id.NewMessage()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(ms)<<16)
	copy(m[:6], b[:6])
	return m
}

// Retries is a log of one direct thread in which messages come again in each way that a sink which forgets, or loads,
// must tell apart, and how Feed is to bring it: in batches of one message, and of as many others as filler says before
// the slot is opened anew.
func Retries(partitions, filler int) (*Log, Options) {
	var steps []eventtest.Step
	var cuts []int // 0: the slot is opened anew
	a, b := id.User([]byte("test key"), "+4915112345671", 1), id.User([]byte("test key"), "+4915112345672", 1)
	t := id.DirectThread(a, b)
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	rules := uint32(1)
	write := func(from, to id.UserID, m id.MessageID) {
		e := eventv1.Event_builder{Rules: rules, UserId: from[:], MessageSent: eventv1.MessageSent_builder{
			MessageId: m[:], Content: eventtest.Text("a message"), DirectPeer: to[:],
		}.Build()}.Build()
		v, err := proto.Marshal(e)
		if err != nil {
			panic(err) // a broken test
		}
		now++
		steps = append(steps, eventtest.Step{
			Topic:    topic.Threads,
			Slot:     topic.SlotOf(topic.Subject(t), partitions),
			Position: topic.Position(len(steps)),
			TimeMS:   now,
			Subject:  topic.Subject(t),
			Key:      t[:],
			Value:    v,
			Event:    event.Of(e),
		})
	}
	send := func(from, to id.UserID, m id.MessageID) {
		write(from, to, m)
		cuts = append(cuts, 1)
	}
	openAgain := func() {
		for range filler {
			write(b, a, id.NewMessage())
		}
		cuts = append(cuts, filler, 0)
	}
	first, second, third := id.NewMessage(), id.NewMessage(), id.NewMessage()
	send(a, b, first)
	send(a, b, second)
	openAgain()
	send(a, b, third)
	send(a, b, first) // its thread is known again, the message is not
	send(a, b, third)
	send(b, a, first) // another's message of the same id
	openAgain()
	send(a, b, second) // nothing is known
	send(b, a, first)
	now += thread.Window.Milliseconds() - 3000
	send(a, b, third) // within the window, by a little
	openAgain()
	send(a, b, second) // and by the tables' own clock too
	now += 4000
	send(a, b, first) // after it: a message of its own
	send(a, b, first)
	openAgain()
	send(a, b, first) // the later one of two counts
	now -= 2 * time.Hour.Milliseconds()
	send(a, b, first) // also for a stamp that went back
	now += 4 * time.Hour.Milliseconds()
	send(a, b, second)
	now += thread.Window.Milliseconds()
	send(a, b, id.NewMessage())
	send(a, b, second)
	send(a, b, second)

	// The thread's clock is ahead of its last messages.
	hours := func(n int64) { now += n * time.Hour.Milliseconds() }
	fourth, fifth := id.NewMessage(), id.NewMessage()
	send(a, b, fourth)
	hours(30)
	send(a, b, id.NewMessage())
	hours(-22)
	openAgain()
	send(a, b, fourth) // out of the window by that clock
	hours(100)
	send(a, b, id.NewMessage())
	hours(20)
	send(a, b, fifth)
	hours(-19)
	openAgain()
	hours(25)
	send(b, a, id.NewMessage())
	send(a, b, fifth) // within it, six hours old
	// The last messages are out of the window themselves.
	hours(100)
	send(a, b, id.NewMessage())
	hours(30)
	send(a, b, id.NewMessage())
	hours(-29)
	openAgain()
	send(a, b, id.NewMessage())
	send(a, b, fourth)

	// A stamp that is ahead, by rules of which it counts in part: what was seen before is found again, here and there.
	rules = 3
	hours(200)
	for _, ahead := range []int64{24, 40 * 24} {
		sixth := messageAt(now)
		send(a, b, sixth)
		send(b, a, messageAt(now)) // others' messages are seen by either
		wrong := messageAt(now)
		hours(ahead)
		send(b, a, wrong)
		hours(-ahead)
		send(b, a, wrong)
		openAgain()
		send(a, b, sixth)
		openAgain()
		send(a, b, messageAt(now))
		send(a, b, sixth)
		send(b, a, wrong)
		hours(30)
		send(a, b, messageAt(now)) // an idle thread's clock goes on
		openAgain()
		send(a, b, sixth) // and so it is out of the window
	}

	// What has such a stamp is within the window for longer than a state is unsure of all else.
	hours(200)
	wrong := messageAt(now)
	hours(60)
	send(b, a, wrong)
	hours(-60)
	openAgain()
	send(a, b, messageAt(now))
	hours(25)
	send(a, b, messageAt(now))
	send(b, a, wrong)
	return NewLog(steps), Options{
		Reopen: func() bool {
			again := len(cuts) > 0 && cuts[0] == 0
			if again {
				cuts = cuts[1:]
			}
			return again
		},
		Cut: func() int {
			if len(cuts) == 0 {
				return 1 // there is nothing any more
			}
			n := cuts[0]
			cuts = cuts[1:]
			return n
		},
	}
}
