// Package wording judges what people write where one line is shown beside others': names and titles; and what a message
// says at all.
//
// Promise: a name or title that is accepted has something to be seen, stays on its line, does not reorder or hide what
// stands around it or in it, and has at most so many characters as people count them (grapheme clusters, UAX 29), in
// every script alike. Clean forms are idempotent: what Name and Title return they take again as it is. The package is
// pure.
//
// Non-obvious:
//   - Folds know nothing of this. Their verdicts last for ever and must not change with the tables of a Unicode
//     version, so they judge bytes and fixed ranges (schemas/event, OneLine); whoever writes an event judges the rest,
//     here, before it is written.
//   - A character is up to some forty bytes long (a family with skin tones), and an ordinary one of Devanagari or Thai
//     six to twelve: a limit in bytes alone is a limit by script. The one in bytes stands beside it, far above.
//   - iOS puts isolates (U+2068, U+2069) around names that it hands on. Balanced ones have no effect outside, so they
//     are taken off; others are refused.
//   - Tags (U+E0000 and on) are seen by nobody and read by programs. They are refused but for the three flags that are
//     written with them: England, Scotland, Wales.
package wording

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/clipperhouse/uax29/v2/graphemes"

	"heliograph/schemas/thread"
	"heliograph/schemas/user"
)

// The most characters, as people count them.
const (
	// NameChars bounds the name of a user or a device.
	NameChars = 64
	// TitleChars bounds the title of a group.
	TitleChars = 128
)

// PreviewBytes is the most bytes of a message that a thread list shows.
const PreviewBytes = 160

// Why a name or title is refused; told by errors.Is. They are for the one who wrote it and repeat nothing of it.
var (
	// ErrLong: it has more characters or bytes than the limit.
	ErrLong = errors.New("too long")
	// ErrBlank: nothing of it would be seen.
	ErrBlank = errors.New("without a visible character")
	// ErrCharacter: it is not UTF-8, or has a control, a separator of lines, or what hides or reorders others.
	ErrCharacter = errors.New(
		"not one line of plain text: it has a control, a line break, or what hides or reorders others",
	)
)

// Name returns the clean form of a user's or device's name: 1 to NameChars characters and user.MaxName bytes.
func Name(s string) (string, error) { return line(s, NameChars, user.MaxName) }

// OptionalName is Name for one that may be empty.
func OptionalName(s string) (string, error) {
	if s == "" {
		return "", nil
	}
	return Name(s)
}

// Title returns the clean form of a group's title: 1 to TitleChars characters and thread.MaxTitle bytes.
func Title(s string) (string, error) { return line(s, TitleChars, thread.MaxTitle) }

func line(s string, chars, bytes int) (string, error) {
	if len(s) > 4*bytes { // before any work
		return "", ErrLong
	}
	if !utf8.ValidString(s) {
		return "", ErrCharacter
	}
	s = strings.TrimFunc(withoutIsolates(s), blank)
	seen := false
	var before rune
	for i, r := range s {
		switch {
		case refused(r), varies(r) && varies(before), tag(r) && !inFlag(s, i):
			return "", ErrCharacter
		}
		seen = seen || visible(r)
		before = r
	}
	if !seen {
		return "", ErrBlank
	}
	if len(s) > bytes {
		return "", ErrLong
	}
	for n, it := 0, graphemes.FromString(s); it.Next(); n++ {
		if n == chars {
			return "", ErrLong
		}
	}
	return s, nil
}

// Blank tells whether nothing of a message's text would be seen.
func Blank(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return visible(r) || unicode.IsMark(r) && !ignorable(r) })
}

// Preview cuts the beginning of a message between two characters, to at most PreviewBytes. A character that is longer
// is cut within.
func Preview(s string) string {
	if len(s) <= PreviewBytes {
		return s
	}
	end := 0
	for it := graphemes.FromString(s); it.Next() && it.End() <= PreviewBytes; {
		end = it.End()
	}
	if end > 0 {
		return s[:end]
	}
	for end = PreviewBytes; end > 0 && !utf8.RuneStart(s[end]); {
		end--
	}
	return s[:end]
}

const (
	popIsolate = 0x2069
	blackFlag  = "\U0001F3F4"
)

func isolate(r rune) bool { return r >= 0x2066 && r < popIsolate }

// withoutIsolates takes out the isolates that are closed.
func withoutIsolates(s string) string {
	if !strings.ContainsFunc(s, isolate) {
		return s
	}
	const size = 3 // bytes of each
	var open, out []int
	for i, r := range s {
		switch {
		case isolate(r):
			open = append(open, i)
		case r == popIsolate && len(open) > 0:
			out = append(out, open[len(open)-1], i)
			open = open[:len(open)-1]
		}
	}
	b := []byte(s)
	for _, i := range out {
		clear(b[i : i+size])
	}
	// What is cleared is 0 now; a 0 that was there before is still refused.
	if strings.ContainsRune(s, 0) {
		return s
	}
	return strings.ReplaceAll(string(b), "\x00", "")
}

func blank(r rune) bool { return unicode.Is(unicode.Zs, r) }

// refused tells whether no line has a character: controls (C0, C1), separators of lines, what reorders (UAX 9:
// embeddings, overrides, isolates), formats that are out of use or need a program, and what is no character.
func refused(r rune) bool {
	switch {
	case unicode.IsControl(r), r == 0x2028, r == 0x2029, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x206f,
		r >= 0xfff9 && r <= 0xfffb, r&0xfffe == 0xfffe, r >= 0xfdd0 && r <= 0xfdef:
		return true
	}
	return false
}

func tag(r rune) bool    { return r >= 0xe0000 && r <= 0xe007f }
func varies(r rune) bool { return unicode.Is(unicode.Variation_Selector, r) }

// flags are what follows the black flag in those that are written with tags (UTS 51, RGI_Emoji_Tag_Sequence).
var flags = [...]string{tags("gbeng"), tags("gbsct"), tags("gbwls")}

func tags(s string) string {
	return strings.Map(func(r rune) rune { return 0xe0000 + r }, s) + "\U000E007F"
}

// inFlag tells whether the tag at i belongs to a flag.
func inFlag(s string, i int) bool {
	at := strings.LastIndex(s[:i], blackFlag)
	if at < 0 {
		return false
	}
	at += len(blackFlag)
	for _, f := range flags {
		if strings.HasPrefix(s[at:], f) && i < at+len(f) {
			return true
		}
	}
	return false
}

// visible tells whether a character is seen by itself. What no table knows yet counts: it is a newer emoji.
func visible(r rune) bool {
	switch {
	case unicode.In(r, unicode.Z, unicode.Cc, unicode.Cf, unicode.Co, unicode.M), ignorable(r):
		return false
	case r == 0x2800, r == 0x1d159: // a blank pattern of Braille, a head of no note
		return false
	}
	return true
}

// ignorable tells whether a character is drawn as nothing (Default_Ignorable_Code_Point, UAX 44).
func ignorable(r rune) bool {
	return unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Cf)
}
