package main

import "testing"

func TestLocaleRegion(t *testing.T) {
	for locale, want := range map[string]string{
		"de_DE.UTF-8": "DE", "pt_BR": "BR", "ca_ES@valencia": "ES", "C.UTF-8": "", "POSIX": "", "": "", "es_419": "",
	} {
		if got := localeRegion(locale); got != want {
			t.Errorf("%q: got %q, want %q", locale, got, want)
		}
	}
}
