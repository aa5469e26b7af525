package eventtest

import (
	"encoding/binary"

	"heliograph/schemas/event"
	"heliograph/schemas/topic"
)

// fuzzed are the topics of a script, by their number in it.
var fuzzed = [...]topic.Topic{topic.Threads, topic.Receipts, topic.Users}

// Script writes steps down for a fuzzer to play with: for each step the topic, how far its position and its stamp lie
// from those of the step before on the topic and in the log, its key and its value. ParseScript reads any bytes as a
// script, so that whatever the fuzzer makes of one is a log.
func Script(steps []Step) []byte {
	var out []byte
	var at [len(fuzzed)]topic.Position
	now := int64(0)
	for _, s := range steps {
		for n, t := range fuzzed {
			if s.Topic != t {
				continue
			}
			out = append(out, byte(n))
			out = binary.AppendVarint(out, int64(s.Position-at[n]))
			at[n] = s.Position
		}
		out = binary.AppendVarint(out, s.TimeMS-now)
		now = s.TimeMS
		out = binary.AppendUvarint(out, uint64(len(s.Key)))
		out = append(out, s.Key...)
		out = binary.AppendUvarint(out, uint64(len(s.Value)))
		out = append(out, s.Value...)
	}
	return out
}

// ParseScript reads as many steps as there are. Positions never are negative and stamps keep to 48 bits, as in a log;
// anything else may come: positions that go back, keys of any length, values that cannot be decoded (Event is nil
// then).
func ParseScript(script []byte) []Step {
	var out []Step
	var at [len(fuzzed)]topic.Position
	now := int64(0)
	number := func() int64 {
		n, size := binary.Varint(script)
		script = script[max(size, 0):]
		return n
	}
	text := func() []byte {
		n, size := binary.Uvarint(script)
		script = script[max(size, 0):]
		n = min(n, uint64(len(script)))
		t := script[:n:n]
		script = script[n:]
		return t
	}
	for len(script) > 0 {
		n := int(script[0]) % len(fuzzed)
		script = script[1:]
		at[n] = (at[n] + topic.Position(number())) & (1<<48 - 1)
		now = (now + number()) & (1<<48 - 1)
		s := Step{Topic: fuzzed[n], Position: at[n], TimeMS: now, Key: text(), Value: text()}
		copy(s.Subject[:], s.Key)
		s.Event, _ = event.Decode(s.Value)
		out = append(out, s)
	}
	return out
}
