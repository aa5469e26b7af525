package operator

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

// Envelope is what an event says beside its body and who did it.
type Envelope struct {
	// Rules by which it is judged; 0: it does not say, and they are the first.
	Rules uint32 `json:"rules,omitempty"`
	// Producer appended it: the edge's name and version.
	Producer string `json:"producer,omitempty"`
	// Request that led to it: its text, or in hexadecimal where it is none.
	Request string `json:"request_id,omitempty"`
	// Cause is the event that led to it; nil: none did.
	Cause *Cause `json:"cause,omitempty"`
	// Actor is the kind of who did it; empty: a user.
	Actor string `json:"actor_kind,omitempty"`
	// MinReader is the lowest reader version that may apply it; 0: any that knows it.
	MinReader uint32 `json:"min_reader,omitempty"`
}

// Cause is where the event lies that led to another.
type Cause struct {
	Topic    topic.Topic    `json:"topic"`
	Slot     topic.Slot     `json:"slot"`
	Position topic.Position `json:"position"`
}

func envelope(ev *eventv1.Event) Envelope {
	e := Envelope{
		Rules: ev.GetRules(), Producer: ev.GetProducer(), Request: request(ev.GetRequestId()),
		MinReader: ev.GetMinReader(),
	}
	if k := ev.GetActorKind(); k != eventv1.ActorKind_ACTOR_KIND_UNSPECIFIED {
		e.Actor = strings.ToLower(strings.TrimPrefix(k.String(), "ACTOR_KIND_"))
	}
	if c := ev.GetCause(); c != nil {
		t, err := topic.FromNumber(c.GetTopic())
		if err != nil {
			t = topic.Topic(fmt.Sprintf("topic %d", c.GetTopic())) // of a newer version
		}
		e.Cause = &Cause{t, topic.Slot(c.GetSlot()), topic.Position(c.GetPosition())}
	}
	return e
}

// request shows what a request is called: an idempotency key is text, a device's request is bytes.
func request(name []byte) string {
	if !utf8.Valid(name) || strings.ContainsFunc(string(name), func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return hex.EncodeToString(name)
	}
	return string(name)
}

// Words says it for people, a word for each part that is there, as NAME=VALUE.
func (e Envelope) Words() (out []string) {
	if e.Rules != 0 {
		out = append(out, fmt.Sprintf("rules=%d", e.Rules))
	}
	if e.MinReader != 0 {
		out = append(out, fmt.Sprintf("min_reader=%d", e.MinReader))
	}
	if e.Actor != "" {
		out = append(out, "actor_kind="+e.Actor)
	}
	if e.Producer != "" {
		out = append(out, "producer="+e.Producer)
	}
	if e.Request != "" {
		out = append(out, "request_id="+e.Request)
	}
	if e.Cause != nil {
		out = append(out, fmt.Sprintf("cause=%s:%d:%d", e.Cause.Topic, e.Cause.Slot, e.Cause.Position))
	}
	return out
}
