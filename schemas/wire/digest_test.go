package wire_test

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"testing"

	"heliograph/schemas/id"
	"heliograph/schemas/wire"
)

// What a device of any SDK says of the receipts that it has (wire 12.3).
func TestDigestOfReceipts(t *testing.T) {
	raw, err := os.ReadFile("testdata/vectors/receipts-digest.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name       string `json:"name"`
		Self       string `json:"self"`
		OwnOrdinal int64  `json:"own_ordinal"`
		Watermarks []struct {
			User      string `json:"user"`
			Delivered int64  `json:"delivered_ordinal"`
			Read      int64  `json:"read_ordinal"`
		} `json:"watermarks"`
		Digest string `json:"digest"`
	}
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		var sum wire.Digest
		for _, w := range c.Watermarks {
			b, err := hex.DecodeString(w.User)
			if err != nil {
				t.Fatal(err)
			}
			if w.User == c.Self {
				sum += wire.Of(id.UserID(b), 0, w.Read, 0)
			} else {
				sum += wire.Of(id.UserID(b), w.Delivered, w.Read, c.OwnOrdinal)
			}
		}
		if got := strconv.FormatUint(uint64(sum), 16); got != c.Digest {
			t.Errorf("%s: got %s, want %s", c.Name, got, c.Digest)
		}
	}
	if len(cases) < 5 {
		t.Errorf("%d examples", len(cases))
	}
}
