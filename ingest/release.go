package ingest

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"heliograph/infra/kafka"
	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/topic"
)

// releaseTime bounds one release, with all that it asks of the log.
const releaseTime = 20 * time.Second

// Release is what an operator decides of an event that is in quarantine.
type Release struct {
	// Topic, Slot and Position are those of the event, and Subject is its subject; zero when its key has none.
	Topic    topic.Topic
	Slot     topic.Slot
	Position topic.Position
	Subject  topic.Subject
	Release  eventv1.Release
	// Note says why; a drop must.
	Note string
	// Who decides it, at most event.MaxProducer bytes: it is the event's producer.
	Who string
}

// Append appends the release and waits for the log. It is for a tool that says one thing and ends: it has a connection
// of its own, and no part in an Ingest. cfg has the number of partitions. Its error is *event.Invalid (permanent), or
// any other: the log may have it all the same, and it can be said again, since that it was said twice means nothing.
func (r Release) Append(ctx context.Context, cfg kafka.Config) (Receipt, error) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	value, err := r.encode()
	if err != nil {
		return Receipt{}, err
	}
	if int(r.Slot) >= cfg.Partitions {
		return Receipt{}, event.Invalidf("slot", "%d is not one of %d", r.Slot, cfg.Partitions)
	}
	cl, err := kafka.Dial(cfg, kafka.ProducerOpts(kafka.ProducerConfig{DeliveryTimeout: releaseTime / 2})...)
	if err != nil {
		return Receipt{}, fmt.Errorf("ingest: %w", err)
	}
	defer cl.Close()
	bases, err := kafka.LoadBases(ctx, cl, cfg, []topic.Topic{topic.Quarantine}, cfg.Partitions)
	if err != nil {
		return Receipt{}, fmt.Errorf("ingest: %w", err)
	}
	rec, err := cl.ProduceSync(ctx, cfg.NewRecord(topic.Quarantine, r.Slot, r.Subject[:], value)).First()
	if err != nil {
		return Receipt{}, fmt.Errorf("ingest: append to %s/%d: %w", topic.Quarantine, r.Slot, err)
	}
	return Receipt{
		Topic: topic.Quarantine, Slot: r.Slot, Position: bases.Position(rec), LogTime: rec.Timestamp,
	}, nil
}

// encode judges a release and returns its bytes in the log.
func (r Release) encode() ([]byte, error) {
	e := event.Of(eventv1.Event_builder{
		ActorKind: eventv1.ActorKind_ACTOR_KIND_OPERATOR, Producer: r.Who, Rules: event.WrittenRules,
		QuarantineReleased: eventv1.QuarantineReleased_builder{
			Topic: r.Topic.Number(), Slot: int32(r.Slot), Position: int64(r.Position), Release: r.Release, Note: r.Note,
		}.Build(),
	}.Build())
	if err := event.First(event.Check(e), event.CheckReleased(e.GetQuarantineReleased()), r.checkNote()); err != nil {
		return nil, err
	}
	value, err := encode(e, nil)
	if err != nil {
		return nil, event.Invalidf("event", "cannot be encoded: %v", err)
	}
	return value, nil
}

func (r Release) checkNote() error {
	switch {
	case len(r.Note) > event.MaxNote:
		return event.Invalidf("note", "has %d bytes, at most %d", len(r.Note), event.MaxNote)
	case !utf8.ValidString(r.Note):
		return event.Invalidf("note", "is not UTF-8")
	case r.Release == eventv1.Release_RELEASE_DROPPED && strings.TrimSpace(r.Note) == "":
		return event.Invalidf("note", "is empty: a drop says why")
	}
	return nil
}
