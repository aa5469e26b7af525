package chat

import (
	"testing"

	tea "charm.land/bubbletea/v2"

	"heliograph/schemas/id"
)

// A PIN is found in what people paste: with what stands between its digits, in every script, and in a whole SMS.
func TestPinIn(t *testing.T) {
	for _, c := range []struct{ pasted, want string }{
		{"123456", "123456"},
		{"Your code is 123-456", "123456"},
		{"Your Heliograph code is 123456. Never pass it on.", "123456"},
		{"Your Heliograph code is 123456.\r\nIt is valid for 5 minutes, until 12:35.", "123456"},
		{"<#> code: 12 34 56 FA+9qCX9VSu", "123456"},
		{"रमज़ १२३४५६ है", "123456"},
		{"الرمز ١٢٣ ٤٥٦", "123456"},
		{"コード：１２３‐４５６", "123456"},
		// not to be guessed at: the server says so
		{" 123 456\n", " 123 456\n"},
		{"12345", "12345"},
		{"code 12345O", "code 12345O"},
		{"123456 or 654321", "123456 or 654321"},
		{"code 1234567", "code 1234567"},
		{"call +49 151 23456789", "call +49 151 23456789"},
		{"", ""},
	} {
		if got := pinIn(c.pasted); got != c.want {
			t.Errorf("pinIn(%q) = %q, want %q", c.pasted, got, c.want)
		}
	}
}

// The field takes a whole SMS.
func TestPinIsPasted(t *testing.T) {
	f := newFake()
	f.me = id.UserID{}
	s := newScreen(t, f, 80, 24)
	s.keys("+49 151 00000001", "enter", "enter")
	s.send(tea.PasteMsg{
		Content: "Never pass this code on, to nobody:\rYour Heliograph code is 123-456. It is valid for 5 minutes.",
	})
	s.fits()
	s.keys("enter")
	if last := f.calls[len(f.calls)-1]; last != "register +4915100000001 123456" {
		t.Errorf("got %q", last)
	}
}
