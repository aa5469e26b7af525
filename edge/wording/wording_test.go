package wording_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"heliograph/edge/wording"
	"heliograph/schemas/thread"
	"heliograph/schemas/user"
)

const (
	hindi    = "डॉक्टर लक्ष्मीनारायण त्रिपाठी शास्त्री"
	family   = "👨🏽‍👩🏽‍👧🏽‍👦🏽"
	scotland = "\U0001F3F4\U000E0067\U000E0062\U000E0073\U000E0063\U000E0074\U000E007F"
)

// Names as people have them, in any script, and what only looks like one.
func TestNames(t *testing.T) {
	for name, c := range map[string]struct {
		in, out string
		err     error
	}{
		"plain":                   {"Ann", "Ann", nil},
		"blanks around":           {"\u00a0 Ann Lee\u3000", "Ann Lee", nil},
		"Hindi, over 64 bytes":    {hindi, hindi, nil},
		"Thai, over 64 bytes":     {"สมเด็จพระเจ้าบรมวงศ์เธอ กรมพระยา", "สมเด็จพระเจ้าบรมวงศ์เธอ กรมพระยา", nil},
		"as many as may be":       {strings.Repeat("ป้", 64), strings.Repeat("ป้", 64), nil},
		"one more":                {strings.Repeat("ป้", 65), "", wording.ErrLong},
		"ASCII, one more":         {strings.Repeat("x", 65), "", wording.ErrLong},
		"too many bytes":          {strings.Repeat(family, 20), "", wording.ErrLong},
		"one character, all mark": {"a" + strings.Repeat("\u0301", 300), "", wording.ErrLong},
		"a flag with tags":        {"Ewan " + scotland, "Ewan " + scotland, nil},
		"two flags with tags":     {scotland + scotland, scotland + scotland, nil},
		"a tag behind a flag":     {scotland + "\U000E0061", "", wording.ErrCharacter},
		"a tag":                   {"Ann\U000E0041", "", wording.ErrCharacter},
		"tags that are no flag":   {"\U0001F3F4\U000E0067\U000E0062\U000E007F", "", wording.ErrCharacter},
		"isolates around":         {"\u2068Ann\u2069", "Ann", nil},
		"nested isolates":         {"\u2068\u2067Ann\u2069\u2069", "Ann", nil},
		"isolates side by side":   {"\u2068Ann\u2069 \u2068Lee\u2069", "Ann Lee", nil},
		"an isolate left open":    {"\u2068Ann", "", wording.ErrCharacter},
		"an isolate closed twice": {"\u2068Ann\u2069\u2069", "", wording.ErrCharacter},
		"closed before opened":    {"\u2069Ann\u2068", "", wording.ErrCharacter},
		"isolates and a NUL":      {"\u2068A\x00nn\u2069", "", wording.ErrCharacter},
		"an override":             {"Ann\u202egnp.exe", "", wording.ErrCharacter},
		"C0":                      {"Ann\x1b[2J", "", wording.ErrCharacter},
		"C1":                      {"Ann\u009b2J", "", wording.ErrCharacter},
		"a new line of C1":        {"Ann\u0085Bob", "", wording.ErrCharacter},
		"a separator of lines":    {"Ann\u2028Bob", "", wording.ErrCharacter},
		"of paragraphs":           {"Ann\u2029Bob", "", wording.ErrCharacter},
		"not UTF-8":               {"Ann\xff", "", wording.ErrCharacter},
		"a payload of selectors":  {"A\ufe01\ufe02\ufe03", "", wording.ErrCharacter},
		"a selector":              {"葛\U000E0100城", "葛\U000E0100城", nil},
		"empty":                   {"", "", wording.ErrBlank},
		"blank":                   {" \u00a0\u3000", "", wording.ErrBlank},
		"an empty isolate":        {"\u2068\u2069", "", wording.ErrBlank},
		"of no width":             {"\u200b\u200d\u2060\ufeff", "", wording.ErrBlank},
		"a Hangul filler":         {"\u3164", "", wording.ErrBlank},
		"half a filler":           {"\uffa0\u115f", "", wording.ErrBlank},
		"blank Braille":           {"\u2800\u2800", "", wording.ErrBlank},
		"a mark alone":            {"\u0301", "", wording.ErrBlank},
		"a hyphen that is soft":   {"\u00ad", "", wording.ErrBlank},
		"joined as Persian is":    {"می\u200cخواهم", "می\u200cخواهم", nil},
		"an emoji alone":          {family, family, nil},
		"an emoji of tomorrow":    {"\U0001FAFF", "\U0001FAFF", nil},
	} {
		got, err := wording.Name(c.in)
		if got != c.out || !errors.Is(err, c.err) {
			t.Errorf("%s: %q and %v, want %q and %v", name, got, err, c.out, c.err)
		}
	}
	if _, err := wording.Title(strings.Repeat("ป้", 128)); err != nil {
		t.Errorf("a title of 128 characters: %v", err)
	}
	if _, err := wording.Title(strings.Repeat("x", 129)); !errors.Is(err, wording.ErrLong) {
		t.Errorf("a title of 129 characters: %v", err)
	}
}

// What is clean is taken as it is, and fits the fold's bounds.
func TestCleanIsClean(t *testing.T) {
	parts := rapid.SampledFrom([]string{
		"a", " ", "é", "é", "ป้", "क्षि", family, scotland, "🇩🇪", "\u2068", "\u2069", "\u200d", "\u202e", "\u0085",
		"\U000E0041", "\ufe0f", "\x00", "\xff", "각",
	})
	rapid.Check(t, func(t *rapid.T) {
		in := strings.Join(rapid.SliceOfN(parts, 0, 80).Draw(t, "parts"), "")
		once, err := wording.Name(in)
		if err != nil {
			return
		}
		again, err := wording.Name(once)
		if err != nil || again != once || len(once) > user.MaxName || wording.Blank(once) {
			t.Fatalf("%q became %q, then %q: %v", in, once, again, err)
		}
	})
}

// A preview ends between two characters of those that people see.
func TestPreviewsEndBetweenCharacters(t *testing.T) {
	for name, c := range map[string]string{
		"family": family, "flag": "🇩🇪", "flag with tags": scotland, "skin tone": "👍🏽", "Hindi": "क्षि",
		"Hangul": "각", "Thai": "ป้", "accents": "é", "keycap": "1️⃣", "ASCII": "x",
	} {
		for ahead := range len(c) { // so that the bound falls anywhere within
			s := strings.Repeat("x", ahead) + strings.Repeat(c, thread.MaxPreview/len(c)+1)
			got := wording.Preview(s)
			rest := strings.TrimLeft(got, "x")
			if c == "x" {
				rest = ""
			}
			if len(got) > wording.PreviewBytes || len(got) <= wording.PreviewBytes-len(c) || len(rest)%len(c) != 0 ||
				!strings.HasPrefix(s, got) {
				t.Errorf("%s, %d ahead: %d bytes: %+q", name, ahead, len(got), got)
			}
		}
	}
	if s := strings.Repeat("x", wording.PreviewBytes); wording.Preview(s) != s {
		t.Error("a text that fits was cut")
	}
	got := wording.Preview("é" + strings.Repeat("\u0301", 200))
	if len(got) != wording.PreviewBytes || !utf8.ValidString(got) {
		t.Errorf("one endless character: %d bytes", len(got))
	}
}

func TestBlankTexts(t *testing.T) {
	for in, want := range map[string]bool{
		"": true, " \n\t\u2003": true, "\u200b\ufeff": true, "\u3164": true, "\u2800": true, "\x00": true,
		".": false, "\u0301": false, " 👍🏽": false, "क्": false, "\ufffd": false,
	} {
		if wording.Blank(in) != want {
			t.Errorf("Blank(%+q) is %v", in, !want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("\u2068Ann\u2069 " + scotland)
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := wording.Name(s); err == nil {
			if again, err := wording.Name(got); err != nil || again != got {
				t.Fatalf("%q, then %q: %v", got, again, err)
			}
		}
		if p := wording.Preview(s); utf8.ValidString(s) && !utf8.ValidString(p) || !strings.HasPrefix(s, p) {
			t.Fatalf("preview %q of %q", p, s)
		}
	})
}
