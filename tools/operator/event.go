package operator

import (
	"encoding/hex"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	logevent "heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
)

// Event is an event of the log as the tools show it.
type Event struct {
	Kind   string `json:"kind"`
	User   string `json:"user,omitempty"`
	Device string `json:"device,omitempty"`
	Envelope
	Fields map[string]any `json:"fields,omitempty"`
	Error  string         `json:"error,omitempty"`
}

// Show reads a record's value. One that this version does not know is shown as far as it is understood. Bodies are
// shown only when asked for, else their length.
func Show(raw []byte, bodies bool) Event {
	var ev eventv1.Event
	if err := proto.Unmarshal(raw, &ev); err != nil {
		return Event{Kind: "undecodable", Error: err.Error()}
	}
	out := Event{User: uuid(ev.GetUserId()), Device: uuid(ev.GetDeviceId()), Envelope: envelope(&ev)}
	m := ev.ProtoReflect()
	body := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	if body == nil {
		out.Kind = "unknown"
		return out
	}
	out.Kind = string(body.Name())
	out.Fields = fields(m.Get(body).Message(), bodies)
	return out
}

func fields(m protoreflect.Message, bodies bool) map[string]any {
	out := map[string]any{}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := string(fd.Name())
		if fd.IsList() {
			l := v.List()
			items := make([]any, l.Len())
			for i := range items {
				items[i] = scalar(fd, l.Get(i), bodies)
			}
			out[name] = items
			return true
		}
		out[name] = scalar(fd, v, bodies)
		return true
	})
	return out
}

func scalar(fd protoreflect.FieldDescriptor, v protoreflect.Value, bodies bool) any {
	switch fd.Kind() {
	case protoreflect.BytesKind:
		return uuid(v.Bytes())
	case protoreflect.EnumKind:
		if d := fd.Enum().Values().ByNumber(v.Enum()); d != nil {
			return strings.ToLower(string(d.Name()))
		}
		return int32(v.Enum())
	case protoreflect.MessageKind:
		if s, ok := v.Message().Interface().(*eventv1.Sealed); ok {
			return content(s, bodies)
		}
		return fields(v.Message(), bodies)
	default:
		return v.Interface()
	}
}

func content(s *eventv1.Sealed, bodies bool) any {
	text, plain := logevent.Text(s)
	switch {
	case plain && bodies:
		return text
	case plain:
		return fmt.Sprintf("%d bytes of text", len(text))
	default:
		return fmt.Sprintf("%d bytes under key %d", len(s.GetData()), s.GetKeyId())
	}
}

// uuid shows 16 bytes as the identifier they are, and anything else in hexadecimal.
func uuid(b []byte) string {
	if len(b) == id.Size {
		return id.ThreadID(b).String()
	}
	return hex.EncodeToString(b)
}
