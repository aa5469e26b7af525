package phone_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"heliograph/edge/phone"
)

var refusals = map[string]error{
	"character": phone.ErrCharacter, "national": phone.ErrNational, "region": phone.ErrRegion,
	"not a number": phone.ErrNotANumber, "no messages": phone.ErrNoMessages,
}

type vector struct {
	Written, From         string
	Number, Region, Error string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/numbers.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestNumbers reads the vectors, which other clients share.
func TestNumbers(t *testing.T) {
	for _, v := range vectors(t) {
		got, err := phone.Parse(v.Written, v.From)
		if want, ok := refusals[v.Error]; v.Error != "" && (!ok || !errors.Is(err, want)) {
			t.Errorf("%q from %q: got %q, %v, want the refusal %q", v.Written, v.From, got.E164, err, v.Error)
		}
		if v.Error != "" {
			continue
		}
		if err != nil || got.E164 != v.Number || v.Region != "" && got.Region != v.Region {
			t.Errorf("%q from %q: got %+v, %v, want %s %s", v.Written, v.From, got, err, v.Number, v.Region)
		}
	}
}

func TestTooLong(t *testing.T) {
	long := "+4915123456789" + strings.Repeat(" ", phone.MaxSize)
	if got, err := phone.Parse(long, ""); !errors.Is(err, phone.ErrNotANumber) {
		t.Errorf("got %q, %v", got.E164, err)
	}
}

func TestShown(t *testing.T) {
	got, err := phone.Parse("004915123456789", "")
	if err != nil || got.Shown != "+49 1512 3456789" {
		t.Errorf("got %q, %v", got.Shown, err)
	}
}

// TestWritings: however a number is dressed up, it is the same number; and no writing of it with a letter is one.
func TestWritings(t *testing.T) {
	var numbers []string
	for _, v := range vectors(t) {
		if v.Number != "" {
			numbers = append(numbers, v.Number)
		}
	}
	zeros := []rune{'0', '٠', '۰', '०', '๐', '０', '𝟘', '𞥐'}
	fillers := []string{"", " ", "\u00a0", "-", "\u2011", "\u200e", "\u2068", "(", ")", ".", "/", "\u00ad"}
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SampledFrom(numbers).Draw(t, "number")
		zero := rapid.SampledFrom(zeros).Draw(t, "script")
		var b strings.Builder
		for _, r := range want {
			b.WriteString(rapid.SampledFrom(fillers).Draw(t, "before"))
			if unicode.IsDigit(r) {
				r = zero + r - '0'
			}
			b.WriteRune(r)
		}
		b.WriteString(rapid.SampledFrom(fillers).Draw(t, "after"))
		got, err := phone.Parse(b.String(), "")
		if err != nil || got.E164 != want {
			t.Fatalf("%q: got %q, %v, want %s", b.String(), got.E164, err, want)
		}
		letter := rapid.SampledFrom([]rune("OolIABxßΩжא")).Draw(t, "letter")
		at := rapid.IntRange(0, len([]rune(b.String()))).Draw(t, "at")
		runes := []rune(b.String())
		lettered := string(runes[:at]) + string(letter) + string(runes[at:])
		if got, err := phone.Parse(lettered, ""); err == nil {
			t.Fatalf("%q became %s", lettered, got.E164)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.Written, v.From)
	}
	f.Fuzz(func(t *testing.T, s, region string) {
		n, err := phone.Parse(s, region)
		if err != nil {
			if n != (phone.Number{}) {
				t.Errorf("%q from %q: %+v beside %v", s, region, n, err)
			}
			return
		}
		if again, err := phone.Parse(n.E164, ""); err != nil || again != n {
			t.Errorf("%q from %q became %+v, which became %+v, %v", s, region, n, again, err)
		}
		if shown, err := phone.Parse(n.Shown, ""); err != nil || shown != n {
			t.Errorf("%q from %q is shown as %q, which became %+v, %v", s, region, n.Shown, shown, err)
		}
	})
}
