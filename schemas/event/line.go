package event

import "unicode/utf8"

// OneLine judges what is shown on one line as folds do: UTF-8 without controls. Since rules 3 those of C1 and the
// separators of lines and paragraphs count as such (separators set). The ranges are written out, so that no verdict
// changes with the tables of a Unicode version; what else makes a line unfit is for whoever writes the event.
func OneLine(t string, separators bool) bool {
	if !utf8.ValidString(t) {
		return false
	}
	for _, r := range t {
		if r < ' ' || r == 0x7f || separators && (r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029) {
			return false
		}
	}
	return true
}
