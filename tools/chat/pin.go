package chat

import (
	"strings"

	"heliograph/edge/phone"
)

// pinDigits is how many digits a PIN has.
const pinDigits = 6

// pinIn finds the PIN in an SMS that was pasted as a whole: the only number of six digits in it. Between two digits may
// stand one blank or dash. Anything else goes to the server as it is: it takes digits however they are set, says what
// is wrong with the rest, and counts that as no try.
func pinIn(s string) string {
	if _, err := phone.Digits(s); err == nil {
		return s
	}
	var found []string
	run, gap := "", 0 // digits, and what has come since the last one
	end := func() {
		if len(run) == pinDigits {
			found = append(found, run)
		}
		run, gap = "", 0
	}
	for _, r := range s {
		// With a digit before it: what stands between digits is none of a number by itself.
		switch digits, err := phone.Digits("0" + string(r)); {
		case err != nil || strings.ContainsRune(".,/", r):
			end()
		case len(digits) == 1:
			if gap++; gap > 1 {
				end()
			}
		default:
			run, gap = run+digits[1:], 0
		}
	}
	end()
	if len(found) != 1 {
		return s
	}
	return found[0]
}
