// Package phone reads phone numbers as people write them.
//
// Promise: a number that is accepted is one that a telephone network may assign, in the one form under which its owner
// is known, whatever the writing; what is not certainly a number is refused and never guessed at, since a PIN or a
// message that goes to a guessed number goes to a stranger. Parse is pure, and what it returns it takes again as it is.
//
// Non-obvious:
//   - Letters are refused. Read as a keypad or dropped, as libraries do, "23O45678" with the letter O is another's
//     number.
//   - Digits of every script count (Unicode category Nd), blanks of every kind separate, and marks that nobody sees
//     (category Cf, as a page that is copied from leaves them) count for nothing.
//   - Some countries' mobile numbers are written in two ways, and both reach the same telephone. One is the number:
//     Mexico without the 1 after +52 (dropped in 2019), Brazil with the ninth digit (added by 2016), Argentina with the
//     9 after +54 (as from abroad; the 15 of the national form says the same).
//   - Numbers that take no message are refused before one is paid for: emergency and short ones, free and premium
//     services, voice mail.
//   - What is valid is told by the numbering plans in the phonenumbers package (libphonenumber's); a plan that has
//     changed needs a newer version of it.
package phone

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nyaruka/phonenumbers/v2"
)

// MaxSize is the longest writing of a number that is read, in bytes: three of a script's digits per digit, and blanks.
const MaxSize = 128

// Why a writing is refused; told by errors.Is. The errors are for the one who wrote it and repeat nothing of it.
var (
	// ErrCharacter: it has a character that no number has, a letter above all.
	ErrCharacter = errors.New("a character that no phone number has")
	// ErrNational: it has no country code, and no region says which.
	ErrNational = errors.New("no country code: write + and the country code first")
	// ErrRegion: the region is not a country's two letters.
	ErrRegion = errors.New("an unknown region")
	// ErrNotANumber: no network assigns such a number: too short, too long, or outside the country's plan.
	ErrNotANumber = errors.New("not a phone number of its country")
	// ErrNoMessages: a service's number, which takes no messages.
	ErrNoMessages = errors.New("a number that takes no messages")
)

// Number is a phone number.
type Number struct {
	// E164 is the number as everything else takes it: + and digits (ITU-T E.164).
	E164 string
	// Shown is the number as its owner checks it, in groups: "+49 1512 3456789".
	Shown string
	// Region is the country's two letters (ISO 3166-1), or 001 for a number of no country.
	Region string
}

// Parse reads a number (wire 11.1, 11.2, 11.3). region, two letters (ISO 3166-1) or empty, says where a number without
// a country code is at home and which prefix leads abroad there; a number with + does not need it.
func Parse(s, region string) (Number, error) {
	digits, err := plain(s)
	if err != nil {
		return Number{}, err
	}
	region = strings.ToUpper(region)
	if region != "" && phonenumbers.GetCountryCodeForRegion(region) == 0 {
		return Number{}, ErrRegion
	}
	abroad, double0 := strings.CutPrefix(digits, "00")
	switch {
	case strings.HasPrefix(digits, "+"):
		return judge(digits, "")
	case region == "" && double0:
		return judge("+"+abroad, "")
	case region == "":
		return Number{}, ErrNational
	}
	n, err := judge(digits, region)
	if errors.Is(err, ErrNotANumber) && double0 {
		// written by somebody from where 00 leads abroad
		return judge("+"+abroad, "")
	}
	return n, err
}

// Digits returns the decimal digits of a writing, such as a PIN's, by the same rules: blanks, dashes and marks that
// nobody sees count for nothing, and anything else is ErrCharacter.
func Digits(s string) (string, error) {
	digits, err := plain(s)
	if err == nil && strings.HasPrefix(digits, "+") {
		err = ErrCharacter
	}
	if err != nil {
		return "", err
	}
	return digits, nil
}

// plain returns the digits of a writing, with a + in front if it has one.
func plain(s string) (string, error) {
	if len(s) > MaxSize {
		return "", fmt.Errorf("%w: %d bytes", ErrNotANumber, len(s))
	}
	if len(s) > 4 && strings.EqualFold(s[:4], "tel:") { // RFC 3966
		s = s[4:]
	}
	var b strings.Builder
	at := 0 // in characters, for whoever looks for it
	for _, r := range s {
		at++
		d, ok := digit(r)
		switch {
		case r == utf8.RuneError:
			return "", fmt.Errorf("%w: the one at place %d", ErrCharacter, at)
		case ok:
			b.WriteByte('0' + d)
		case isPlus(r):
			if b.Len() > 0 {
				return "", fmt.Errorf("%w: the one at place %d", ErrCharacter, at)
			}
			b.WriteByte('+')
		case isFiller(r):
		default:
			return "", fmt.Errorf("%w: the one at place %d", ErrCharacter, at)
		}
	}
	return b.String(), nil
}

// digit returns the value of a decimal digit of any script. Those of category Nd come in runs of ten that begin with
// zero (Unicode Standard 4.6), so the place in the run is the value.
func digit(r rune) (byte, bool) {
	if '0' <= r && r <= '9' {
		return byte(r - '0'), true
	}
	for _, x := range unicode.Nd.R16 {
		if rune(x.Lo) <= r && r <= rune(x.Hi) {
			return byte((r - rune(x.Lo)) % 10), true
		}
	}
	for _, x := range unicode.Nd.R32 {
		if rune(x.Lo) <= r && r <= rune(x.Hi) {
			return byte((r - rune(x.Lo)) % 10), true
		}
	}
	return 0, false
}

// isPlus tells the plus signs: the usual, full width, small and superscript one, and that of Hebrew letters.
func isPlus(r rune) bool { return strings.ContainsRune("+＋﹢⁺﬩", r) }

// isFiller tells what stands between digits and means nothing: blanks, dashes, brackets, points, strokes, marks that
// nobody sees.
func isFiller(r rune) bool {
	return unicode.In(r, unicode.Zs, unicode.Pd, unicode.Cf) || strings.ContainsRune("\t\r\n()（）[]./．／·−", r)
}

// noRegion is what the plans call no country.
const noRegion = "ZZ"

// judge reads digits by the plan of their country.
func judge(digits, region string) (Number, error) {
	if strings.HasPrefix(digits, "+") {
		region = noRegion
	}
	n, err := phonenumbers.Parse(digits, region)
	if err != nil {
		return Number{}, ErrNotANumber
	}
	if n, err = one(n); err != nil {
		return Number{}, err
	}
	switch phonenumbers.GetNumberType(n) {
	case phonenumbers.PREMIUM_RATE, phonenumbers.TOLL_FREE, phonenumbers.SHARED_COST, phonenumbers.VOICEMAIL,
		phonenumbers.UAN, phonenumbers.PAGER:
		return Number{}, ErrNoMessages
	}
	return Number{
		E164:   phonenumbers.Format(n, phonenumbers.E164),
		Shown:  phonenumbers.Format(n, phonenumbers.INTERNATIONAL),
		Region: phonenumbers.GetRegionCodeForNumber(n),
	}, nil
}

// The country codes with two ways of writing a mobile number.
const (
	mexico    = 52
	argentina = 54
	brazil    = 55
)

// one returns the one form of a number that may be written in two; ErrNotANumber when none is valid.
func one(n *phonenumbers.PhoneNumber) (*phonenumbers.PhoneNumber, error) {
	national := phonenumbers.GetNationalSignificantNumber(n)
	other := ""
	switch n.GetCountryCode() {
	case mexico:
		if rest, ok := strings.CutPrefix(national, "1"); ok && len(rest) == 10 {
			other = rest
		}
	case brazil: // area (2), then eight digits of which a mobile's first is 6 to 9
		if len(national) == 10 && national[2] >= '6' {
			other = national[:2] + "9" + national[2:]
		}
	case argentina: // no line on land has the number of a mobile one
		if len(national) == 10 && national[0] != '9' {
			other = "9" + national
		}
	}
	if other != "" {
		m, err := phonenumbers.Parse(fmt.Sprintf("+%d%s", n.GetCountryCode(), other), noRegion)
		if err == nil && phonenumbers.IsValidNumber(m) {
			return m, nil
		}
	}
	if !phonenumbers.IsValidNumber(n) {
		return nil, ErrNotANumber
	}
	return n, nil
}
