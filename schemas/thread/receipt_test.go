package thread_test

import (
	"testing"

	"heliograph/schemas/event"
	eventv1 "heliograph/schemas/event/v1"
	"heliograph/schemas/id"
	"heliograph/schemas/thread"
	"heliograph/schemas/topic"
)

func TestReceipt(t *testing.T) {
	th, d, u, eve := id.NewGroup(), id.NewDevice(), user(1), user(2)
	moved := eventv1.WatermarksMoved_builder{DeliveredPosition: 9, ReadPosition: -4}.Build()
	said := event.Of(eventv1.Event_builder{UserId: u[:], DeviceId: d[:], WatermarksMoved: moved}.Build())
	old := event.ReceiptKey(th, d, u)[:2*id.Size]
	other := id.NewDevice()
	for name, c := range map[string]struct {
		key  []byte
		want bool
	}{
		"its own":                          {event.ReceiptKey(th, d, u), true},
		"a key of thread and device alone": {old, true},
		"another user's key":               {event.ReceiptKey(th, d, eve), false},
		"another device's key":             {event.ReceiptKey(th, other, u), false},
	} {
		k, err := event.ParseKey(topic.Receipts, c.key)
		if err != nil {
			t.Fatal(err)
		}
		who, w, ok := thread.Receipt(k, said)
		if ok != c.want || ok && (who != u || w != thread.Watermark{DeliveredPosition: 9}) {
			t.Errorf("%s: %v %+v %v", name, who, w, ok)
		}
	}
	ofNobody := event.Of(eventv1.Event_builder{DeviceId: d[:], WatermarksMoved: moved}.Build())
	if _, _, ok := thread.Receipt(event.Key{Device: d}, ofNobody); ok {
		t.Error("took a receipt of nobody")
	}
	if _, err := event.ParseKey(topic.Receipts, old[:id.Size]); err == nil {
		t.Error("took a key without a device")
	}
	if _, err := event.ParseKey(topic.Threads, old); err == nil {
		t.Error("took a key of two ids for a thread's")
	}
}
