package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// maxMarks is how many combining marks may stand on one character.
const maxMarks = 3

var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

// Clean makes a text that somebody else wrote safe to print: line feeds stay, a carriage return is one, as which most
// terminals paste them, tabs become blanks, every other control
// character becomes a picture of itself, and what reorders or hides text is left out. The result never holds a byte
// that a terminal acts upon, other than line feed.
func Clean(s string) string {
	s = lineEnds.Replace(s)
	var b strings.Builder
	b.Grow(len(s))
	marks := 0
	for _, r := range s {
		if unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r) {
			if marks++; marks > maxMarks && r != 0xfe0f {
				continue
			}
			b.WriteRune(r)
			continue
		}
		marks = 0
		switch {
		case r == '\n':
			b.WriteByte('\n')
		case r == '\t':
			b.WriteString("    ")
		case r < 0x20:
			b.WriteRune(0x2400 + r) // the control pictures
		case r == 0x7f:
			b.WriteRune(0x2421)
		case r >= 0x80 && r < 0xa0: // C1: some terminals act upon them even in UTF-8
			b.WriteRune(utf8.RuneError)
		case r == 0x2028 || r == 0x2029 || r == 0x85:
			b.WriteByte('\n')
		case r == 0x200d || r == 0x200c: // joins emoji, parts letters
			b.WriteRune(r)
		case unicode.Is(unicode.Cf, r): // bidirectional overrides, invisible characters, tags
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// CleanLine is Clean for what must stay on one line: titles, names, previews.
func CleanLine(s string) string {
	return strings.Join(strings.Fields(Clean(s)), " ")
}

// ruler measures and cuts text as the terminal does.
type ruler struct{ method ansi.Method }

func (r ruler) width(s string) int { return r.method.StringWidth(s) }

// cut shortens s to w columns, with an ellipsis where something is missing.
func (r ruler) cut(s string, w int) string {
	if w <= 0 {
		return ""
	}
	return r.method.Truncate(s, w, "…")
}

// fit makes s exactly w columns wide.
func (r ruler) fit(s string, w int) string {
	if r.width(s) > w {
		s = r.cut(s, w)
	}
	return s + strings.Repeat(" ", max(0, w-r.width(s)))
}

// between puts left and right at the ends of w columns; left gives way.
func (r ruler) between(left, right string, w int) string {
	rw := r.width(right)
	if rw >= w {
		return r.fit(right, w)
	}
	if right == "" {
		return r.fit(left, w)
	}
	return r.fit(left, w-rw-1) + " " + right
}

// wrap breaks s into lines of at most w columns, at words where it can.
func (r ruler) wrap(s string, w int) []string {
	w = max(2, w) // a wide character must find room
	lines := strings.Split(r.method.Wrap(s, w, ""), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return lines
}
