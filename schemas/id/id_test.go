package id

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"
)

func TestGoldenVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/ids.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Key   string
		Users []struct {
			Phone      string
			Generation uint32
			User       UserID
			PhoneHash  UserID `json:"phone_hash"`
		}
		DirectThreads []struct {
			A, B   UserID
			Thread ThreadID
		} `json:"direct_threads"`
	}
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString(v.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range v.Users {
		if got := User(key, c.Phone, c.Generation); got != c.User {
			t.Errorf("User(%s, %d) = %v, want %v", c.Phone, c.Generation, got, c.User)
		}
		if got := UserID(PhoneHash(key, c.Phone)); got != c.PhoneHash {
			t.Errorf("PhoneHash(%s) = %v, want %v", c.Phone, got, c.PhoneHash)
		}
	}
	for _, c := range v.DirectThreads {
		if got := DirectThread(c.A, c.B); got != c.Thread || !got.IsDirect() || got.IsGroup() {
			t.Errorf("DirectThread(%v, %v) = %v, want %v", c.A, c.B, got, c.Thread)
		}
	}
	if len(v.Users) == 0 || len(v.DirectThreads) == 0 {
		t.Error("no vectors")
	}
}

func TestFreshIDs(t *testing.T) {
	if m := NewMessage(); !m.Valid() || m.IsZero() {
		t.Errorf("message id %v", m)
	}
	if g := NewGroup(); !g.IsGroup() || g.IsDirect() {
		t.Errorf("group id %v", g)
	}
	if d := NewDevice(); !d.Valid() {
		t.Errorf("device id %v", d)
	}
	if a, b := NewMessage(), NewMessage(); a == b {
		t.Error("the same id twice")
	}
}

func TestMessageTime(t *testing.T) {
	m, err := Parse[MessageID]("017f22e2-79b0-7cc3-98c4-dc0c0c07398f") // RFC 9562, appendix A.6
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.Time(), time.Date(2022, 2, 22, 19, 22, 22, 0, time.UTC); !got.Equal(want) {
		t.Errorf("made at %v, want %v", got, want)
	}
}

func TestOneCanonicalForm(t *testing.T) {
	for _, s := range []string{
		"", "0", "00000000-0000-0000-0000-00000000000", "00000000-0000-0000-0000-0000000000000",
		"0000000000000000000000000000000000000",
		"ABCDEFAB-0000-0000-0000-000000000000", "{0000000-0000-0000-0000-00000000000}",
		"00000000_0000-0000-0000-000000000000", "0000000g-0000-0000-0000-000000000000",
	} {
		if _, err := Parse[UserID](s); !errors.Is(err, ErrMalformed) {
			t.Errorf("Parse(%q) gave %v, want ErrMalformed", s, err)
		}
	}
	for n := range 40 {
		_, err := From[UserID](make([]byte, n))
		if (err == nil) != (n == Size) {
			t.Errorf("From of %d bytes gave %v", n, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("0189d8e4-7b1c-7e5f-8000-000000000001")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := Parse[MessageID](s)
		if err == nil && v.String() != s {
			t.Errorf("%q parses to %v", s, v)
		}
	})
}

// Most events leave fields empty that every reader of them tries.
func TestAnAbsentIdentifierCostsNothing(t *testing.T) {
	n := testing.AllocsPerRun(100, func() {
		if _, err := From[UserID](nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("From of nothing gave %v", err)
		}
	})
	if n != 0 {
		t.Errorf("From of nothing makes %v objects", n)
	}
	_, err := From[UserID](make([]byte, 5))
	if got, want := err.Error(), "malformed identifier: 5 bytes instead of 16"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
