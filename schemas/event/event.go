package event

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
)

// ErrMalformed says that no version reads these bytes.
var ErrMalformed = errors.New("the event cannot be decoded")

// ErrIgnorable says that it is an event that every fold passes over, whether its version knows the type or not: else a
// view that an older version has folded would differ from a fresh one for ever.
var ErrIgnorable = errors.New("an event that is passed over")

// NewerError is an event that only a newer version can apply.
type NewerError struct {
	// Type is the event's: one that this version does not read, or does.
	Type Type
	// MinReader is the lowest reader version that may apply it, as far as the event says; 0: it does not.
	MinReader uint32
	// Rules are those by which it is judged.
	Rules uint32
}

// Error says what the event asks for.
func (e *NewerError) Error() string {
	return fmt.Sprintf("event of a newer version: type %d, min_reader %d, rules %d", e.Type, e.MinReader, e.Rules)
}

// MessageRef names a message within its thread.
type MessageRef struct {
	Author id.UserID
	ID     id.MessageID
}

// IsZero tells whether it names none.
func (r MessageRef) IsZero() bool { return r == MessageRef{} }

// Proto encodes it; nil when it names none.
func (r MessageRef) Proto() *eventv1.MessageRef {
	if r.IsZero() {
		return nil
	}
	return eventv1.MessageRef_builder{AuthorId: r.Author[:], MessageId: r.ID[:]}.Build()
}

// RefOf reads a reference; false when it is absent or an id in it is malformed.
func RefOf(m *eventv1.MessageRef) (MessageRef, bool) {
	author, err := id.From[id.UserID](m.GetAuthorId())
	if err != nil || author.IsZero() {
		return MessageRef{}, false
	}
	message, err := id.From[id.MessageID](m.GetMessageId())
	if err != nil || !message.Valid() {
		return MessageRef{}, false
	}
	return MessageRef{author, message}, true
}

// Event is a decoded event. It is not changed after it was made, and may be read by any goroutine.
type Event struct {
	*eventv1.Event
	// Type is the body's.
	Type Type
	// User did it; zero: the system, or malformed.
	User id.UserID
	// Device is the one it was done on; zero: none, or malformed.
	Device id.DeviceID
	// Rules is the number of those by which it is judged, from 1.
	Rules uint32
	// About is the message that the event is, or is about: of a message sent, the message itself. Zero: none, or
	// malformed.
	About MessageRef
	// Reply is the message that a message answers. Its author is zero in events from before MessageRef.
	Reply MessageRef
	// Content is what a message or an edit says; its zero value in other events.
	Content Content
}

// Content is the content of a message or an edit.
type Content struct {
	// KeyID is the key that it is sealed with; 0: plain.
	KeyID uint64
	// Plain: it is plain and was opened.
	Plain bool
	// Text of plain content.
	Text string
	// Sealed bytes of content that is not plain.
	Sealed []byte
}

// Bytes is the text of plain content, else the sealed bytes.
func (c Content) Bytes() []byte {
	if c.KeyID != 0 {
		return c.Sealed
	}
	return []byte(c.Text)
}

// Decode reads the value of a record. Its error is ErrMalformed, ErrIgnorable or a *NewerError, wrapped or bare. The
// event keeps no part of raw.
func Decode(raw []byte) (*Event, error) { return decode(raw, Reader, Known) }

// As returns a decoder that reads what a reader of that version reads of the types that known names: what an older
// version would have made of newer events. It is for tests of upgrades.
func As(reader uint32, known func(Type) bool) func(raw []byte) (*Event, error) {
	return func(raw []byte) (*Event, error) { return decode(raw, reader, known) }
}

func decode(raw []byte, reader uint32, known func(Type) bool) (*Event, error) {
	m := &eventv1.Event{}
	if err := proto.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	body := TypeOf(m)
	if n := unknownBody(m); n != 0 {
		body = n
	} else if body == 0 {
		return nil, fmt.Errorf("%w: it has no body", ErrMalformed)
	}
	if m.GetIgnorable() {
		return nil, ErrIgnorable
	}
	if !known(body) || m.GetMinReader() > reader || m.GetRules() > CurrentRules {
		return nil, &NewerError{Type: body, MinReader: m.GetMinReader(), Rules: m.GetRules()}
	}
	return Of(m), nil
}

// unknownBody returns the number of a body that the generated code does not know, or 0.
func unknownBody(m *eventv1.Event) Type {
	for b := m.ProtoReflect().GetUnknown(); len(b) > 0; {
		n, _, size := protowire.ConsumeField(b)
		if size < 0 {
			return 0 // cannot be: it was parsed before
		}
		if isBody(n) {
			return Type(n)
		}
		b = b[size:]
	}
	return 0
}

// Of makes an Event of a message. The message is kept and must not be changed afterwards.
func Of(m *eventv1.Event) *Event {
	e := &Event{Event: m, Type: TypeOf(m), Rules: max(1, m.GetRules())}
	e.User, _ = id.From[id.UserID](m.GetUserId())
	e.Device, _ = id.From[id.DeviceID](m.GetDeviceId())
	switch m.WhichBody() {
	case eventv1.Event_MessageSent_case:
		s := m.GetMessageSent()
		e.About = about(nil, e.User[:], s.GetMessageId())
		if e.Reply, _ = RefOf(s.GetReply()); !s.HasReply() {
			e.Reply.ID, _ = id.From[id.MessageID](s.GetReplyTo())
		}
		e.Content = open(s.GetContent())
	case eventv1.Event_MessageEdited_case:
		c := m.GetMessageEdited()
		e.About = about(c.GetMessage(), e.User[:], c.GetMessageId())
		e.Content = open(c.GetContent())
	case eventv1.Event_MessageDeleted_case:
		c := m.GetMessageDeleted()
		author := c.GetAuthorId()
		if len(author) == 0 {
			author = e.User[:]
		}
		e.About = about(c.GetMessage(), author, c.GetMessageId())
	case eventv1.Event_ReactionSet_case:
		c := m.GetReactionSet()
		e.About = about(c.GetMessage(), c.GetAuthorId(), c.GetMessageId())
	}
	return e
}

// about reads the name of a message in either form.
func about(ref *eventv1.MessageRef, author, message []byte) MessageRef {
	if ref != nil {
		r, _ := RefOf(ref)
		return r
	}
	a, err := id.From[id.UserID](author)
	if err != nil {
		return MessageRef{}
	}
	m, err := id.From[id.MessageID](message)
	if err != nil || !m.Valid() {
		return MessageRef{}
	}
	return MessageRef{a, m}
}

// open reads content that is plain.
func open(c *eventv1.Sealed) Content {
	if c == nil {
		return Content{}
	}
	if c.GetKeyId() != 0 {
		return Content{KeyID: c.GetKeyId(), Sealed: c.GetData()}
	}
	var content eventv1.Content
	if err := proto.Unmarshal(c.GetData(), &content); err != nil || !utf8.ValidString(content.GetText()) {
		return Content{}
	}
	return Content{Plain: true, Text: content.GetText()}
}

// Text opens plain content: its text, and whether it is plain and well formed.
func Text(c *eventv1.Sealed) (string, bool) {
	o := open(c)
	return o.Text, o.Plain
}
