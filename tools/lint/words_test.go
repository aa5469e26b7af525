package main

import "testing"

func TestFiles(t *testing.T) {
	there := func(file string) bool { return file == "a/b.go" || file == "a/v1/c.proto" }
	for _, c := range []struct {
		name, text string
		want       int
	}{
		{"files that are there", "see a/b.go, and `a/v1/c.proto`", 0},
		{"one that is not", "see a/b.go and a/c.go", 1},
		{"named twice", "a/c.go, a/c.go", 1},
		{"a folder, an address, a command", "a/ and https://sms.example/send; bin/helio trace", 0},
	} {
		if got := checkFiles("README.md", c.text, there); len(got) != c.want {
			t.Errorf("%s: got %q, want %d findings", c.name, got, c.want)
		}
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		text string
		want int
	}{
		{"// the cr" + "ew is full\n// a Cr" + "ew", 2},
		{"the screw of cre" + "ws", 0},
		{"the operators' do" + "or", 1},
		{"next door", 0},
	} {
		if got := checkWords("a/b.go", c.text); len(got) != c.want {
			t.Errorf("%q: got %q, want %d findings", c.text, got, c.want)
		}
	}
}
