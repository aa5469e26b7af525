package topic

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"testing"
)

func TestSlotVectorsAreFrozen(t *testing.T) {
	raw, err := os.ReadFile("testdata/slots.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Vectors []struct {
			Subject string
			Slots   map[string]Slot
		}
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, c := range v.Vectors {
		b, err := hex.DecodeString(c.Subject)
		if err != nil || len(b) != 16 {
			t.Fatalf("subject %q: %v", c.Subject, err)
		}
		for p, want := range c.Slots {
			n, err := strconv.Atoi(p)
			if err != nil {
				t.Fatal(err)
			}
			if got := SlotOf(Subject(b), n); got != want {
				t.Errorf("SlotOf(%s, %d) = %d, want %d", c.Subject, n, got, want)
			}
			checked++
		}
	}
	if checked < 50 {
		t.Errorf("only %d vectors", checked)
	}
}

func TestSlotsAreEven(t *testing.T) {
	const p, n = 16, 16000
	var count [p]int
	for i := range n {
		var s Subject
		s[0], s[1], s[15] = byte(i), byte(i>>8), 0x80
		count[SlotOf(s, p)]++
	}
	for slot, c := range count {
		if c < n/p*8/10 || c > n/p*12/10 {
			t.Errorf("slot %d has %d of %d subjects", slot, c, n)
		}
	}
}

func TestNumbers(t *testing.T) {
	want := map[Topic]int32{Threads: 1, Receipts: 2, Users: 3, Presence: 4, Quarantine: 5}
	for _, tp := range All {
		if tp.Number() != want[tp] {
			t.Errorf("%s has number %d, want %d for ever", tp, tp.Number(), want[tp])
		}
		if back, err := FromNumber(tp.Number()); err != nil || back != tp {
			t.Errorf("FromNumber(%d) = %s, %v", tp.Number(), back, err)
		}
	}
	for _, n := range []int32{-1, 0, 6} {
		if _, err := FromNumber(n); err == nil {
			t.Errorf("FromNumber(%d) was accepted", n)
		}
	}
}

func TestParseBase(t *testing.T) {
	if p, err := ParseBase([]byte{0, 0, 0, 0, 0, 0, 1, 2}); err != nil || p != 258 {
		t.Errorf("got %d, %v", p, err)
	}
	for _, b := range [][]byte{nil, make([]byte, 7), {0xff, 0, 0, 0, 0, 0, 0, 0}} {
		if _, err := ParseBase(b); err == nil {
			t.Errorf("ParseBase(%x) was accepted", b)
		}
	}
}
