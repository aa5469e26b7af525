package event

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

// Reader is the version of this reader: it applies every event whose type was declared with a since up to it and whose
// min_reader is not above it. It is raised with each type and each meaning that an older reader would get wrong.
const Reader = 4

// CurrentRules is the number of the rules by which new events are judged; older numbers stay with the events that carry
// them. 1: before rules had numbers. 2: no verdict opens content, and the public part of a message has limits. 3: names
// and titles may be longer, and have no separators of lines.
const CurrentRules = 3

// WrittenRules is the number that ingest writes. A release that raises CurrentRules should leave it where it is, and
// the next one raise it: edges of both then run side by side, and neither puts the other's events into quarantine.
// Rules 3 are written by the release that reads them first, since nothing is deployed that could not be upgraded in the
// order of the README (projectors and delivery first): what an older projector meets meanwhile waits in quarantine, in
// order, and its successor drains it; an older edge gets those threads and users from the views.
const WrittenRules = 3

// Type is an event type: the number of its field in event.v1.Event. The numbers are stored.
type Type int32

// Declaration is what event.proto says of an event type.
type Declaration struct {
	Type  Type
	Name  string      // of the field, as the stores write it: "message_sent"
	Topic topic.Topic // empty: it may lie on any
	Class eventv1.Class
	// Since is the first reader version that reads it; 0: laid down.
	Since uint32
	// Ignorable: older readers may pass over it.
	Ignorable bool
	// System: it may have no user.
	System bool
}

// anyTopic stands in event.proto for every topic.
const anyTopic = "*"

// declared are the types by number. Fixed at start.
var declared = func() map[Type]Declaration {
	out := map[Type]Declaration{}
	bodies := (&eventv1.Event{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	for i := range bodies.Len() {
		f := bodies.Get(i)
		d, _ := proto.GetExtension(f.Options(), eventv1.E_Declared).(*eventv1.Declaration)
		one := Declaration{
			Type: Type(f.Number()), Name: string(f.Name()), Class: d.GetClass(), Since: d.GetSince(),
			Ignorable: d.GetIgnorable(), System: d.GetSystem(),
		}
		if d.GetTopic() != anyTopic {
			one.Topic = topic.Topic(d.GetTopic())
		}
		out[one.Type] = one
	}
	return out
}()

// Declared returns what is declared of a type; false: this version does not know it.
func Declared(t Type) (Declaration, bool) {
	d, ok := declared[t]
	return d, ok
}

// Known tells whether this version reads events of a type.
func Known(t Type) bool {
	d, ok := declared[t]
	return ok && d.Since != 0 && d.Since <= Reader
}

// String is the name of the type's field in event.v1.Event, or its number when this version does not know it.
func (t Type) String() string {
	if d, ok := declared[t]; ok {
		return d.Name
	}
	return fmt.Sprintf("type_%d", t)
}

// TypeOf returns the type of an event that was not decoded here; 0: it has no body.
func TypeOf(e *eventv1.Event) Type { return Type(e.WhichBody()) }

// isBody tells whether a field number of Event is a body's and not the envelope's.
func isBody(n protoreflect.FieldNumber) bool {
	return n >= firstBody && (n < firstReserved || n > lastReserved)
}

// The field numbers of the envelope are those below firstBody and those from firstReserved to lastReserved.
const (
	firstBody     = 10
	firstReserved = 1000
	lastReserved  = 1099
)
