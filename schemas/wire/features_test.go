package wire

import (
	"fmt"
	"strings"
	"testing"
)

func TestValidFeatures(t *testing.T) {
	if !ValidFeatures(Features) {
		t.Errorf("our own are not valid: %q", Features)
	}
	many := make([]string, MaxFeatures+1)
	for i := range many {
		many[i] = fmt.Sprintf("f%03d", i)
	}
	for name, c := range map[string]struct {
		words []string
		want  bool
	}{
		"none":       {nil, true},
		"unknown":    {[]string{"a.1", "b-2"}, true},
		"as many":    {many[1:], true},
		"too many":   {many, false},
		"twice":      {[]string{"a", "a"}, false},
		"not sorted": {[]string{"b", "a"}, false},
		"empty":      {[]string{""}, false},
		"long":       {[]string{strings.Repeat("a", MaxFeature+1)}, false},
		"upper case": {[]string{"A"}, false},
		"blank":      {[]string{"a b"}, false},
	} {
		if got := ValidFeatures(c.words); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
