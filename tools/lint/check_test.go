package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImports(t *testing.T) {
	const kfake = "github.com/twmb/franz-go/pkg/kfake"
	for _, c := range []struct {
		name string
		pkg  pkg
		want []string // what is refused
	}{
		{"schemas among themselves", pkg{
			ImportPath: "heliograph/schemas/thread",
			Imports: []string{
				"heliograph/schemas/event/v1", "fmt", "crypto/sha256", "google.golang.org/protobuf/proto",
			},
		}, nil},
		{"schemas and a library", pkg{
			ImportPath: "heliograph/schemas/thread",
			Imports:    []string{"github.com/google/uuid"},
		}, []string{"github.com/google/uuid"}},
		{"schemas and a library in tests", pkg{
			ImportPath:  "heliograph/schemas/thread",
			TestImports: []string{"pgregory.net/rapid"},
		}, nil},
		{"schemas and infra, even in tests", pkg{
			ImportPath:   "heliograph/schemas/topic",
			XTestImports: []string{"heliograph/infra/kafka"},
		}, []string{"heliograph/infra/kafka"}},
		{"infra and schemas", pkg{
			ImportPath: "heliograph/infra/kafka",
			Imports:    []string{"heliograph/schemas/topic", "heliograph/infra/run"},
		}, nil},
		{"infra and a stage", pkg{
			ImportPath: "heliograph/infra/kafka",
			Imports:    []string{"heliograph/ingest"},
		}, []string{"heliograph/ingest"}},
		{"edge and ingest", pkg{
			ImportPath: "heliograph/edge/session",
			Imports:    []string{"heliograph/ingest", "heliograph/edge/auth"},
		}, nil},
		{
			"the replica and what stands on it",
			pkg{
				ImportPath: "heliograph/edge/replica",
				Imports:    []string{"heliograph/edge/fanout", "heliograph/edge/session"},
			},
			[]string{"heliograph/edge/fanout", "heliograph/edge/session"},
		},
		{
			"fanout and the replica",
			pkg{
				ImportPath:  "heliograph/edge/fanout",
				Imports:     []string{"heliograph/edge/replica"},
				TestImports: []string{"heliograph/edge/replica/replicatest"},
			},
			nil,
		},
		{
			"the replica's fakes in the product",
			pkg{ImportPath: "heliograph/edge", Imports: []string{"heliograph/edge/replica/replicatest"}},
			[]string{"heliograph/edge/replica/replicatest"},
		},
		{"edge and delivery", pkg{
			ImportPath: "heliograph/edge",
			Imports:    []string{"heliograph/delivery/link"},
		}, []string{"heliograph/delivery/link"}},
		{"ingest and edge", pkg{
			ImportPath: "heliograph/ingest",
			Imports:    []string{"heliograph/edge"},
		}, []string{"heliograph/edge"}},
		{"projector and ingest in tests", pkg{
			ImportPath:   "heliograph/projector/threads",
			TestImports:  []string{"heliograph/ingest"},
			XTestImports: []string{"heliograph/ingest"},
		}, []string{"heliograph/ingest"}},
		{"a folder whose name only begins alike", pkg{
			ImportPath: "heliograph/edge",
			Imports:    []string{"heliograph/deliveryman"},
		}, nil},
		{"tools and everything", pkg{
			ImportPath: "heliograph/tools/helio",
			Imports:    []string{"heliograph/edge", "heliograph/delivery", "heliograph/infra/embedded", "flag"},
		}, nil},
		{"a stage and tools", pkg{
			ImportPath: "heliograph/delivery",
			Imports:    []string{"heliograph/tools/load"},
		}, []string{"heliograph/tools/load"}},
		{"engines in a stage", pkg{
			ImportPath: "heliograph/projector",
			Imports:    []string{"heliograph/infra/embedded", kfake},
		}, []string{"heliograph/infra/embedded", kfake}},
		{"engines in a stage's tests", pkg{
			ImportPath:  "heliograph/projector",
			TestImports: []string{"heliograph/infra/embedded", kfake, "testing"},
		}, nil},
		{"engines where they live", pkg{
			ImportPath: "heliograph/infra/embedded/broker",
			Imports:    []string{kfake, "heliograph/infra/embedded/engine"},
		}, nil},
		{"flags in a stage", pkg{ImportPath: "heliograph/edge", Imports: []string{"flag"}}, []string{"flag"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, f := range checkImports(c.pkg) {
				_, rest, _ := strings.Cut(f, "imports ")
				path, _, _ := strings.Cut(strings.TrimPrefix(rest, "(in a test) "), ":")
				got = append(got, path)
			}
			if diff := cmp.Diff(got, c.want); diff != "" {
				t.Errorf("refused imports (-got +want):\n%s", diff)
			}
		})
	}
}

func TestEveryEdgeHasAReason(t *testing.T) {
	for _, e := range forbidden {
		if e.to == "" || e.reason == "" {
			t.Errorf("edge %q -> %q: no target or no reason", e.from, e.to)
		}
	}
}

func TestPackage(t *testing.T) {
	for _, c := range []struct {
		name string
		pkg  pkg
		want int
	}{
		{"fine", pkg{
			ImportPath: "heliograph/ingest", Name: "ingest", Doc: "Package ingest appends.", GoFiles: []string{"a.go"},
		}, 0},
		{"no comment", pkg{ImportPath: "heliograph/ingest", Name: "ingest", GoFiles: []string{"a.go"}}, 1},
		{"generated", pkg{
			ImportPath: "heliograph/schemas/event/v1", Name: "eventv1", GoFiles: []string{"event.pb.go"},
		}, 0},
		{"generated and written", pkg{
			ImportPath: "heliograph/schemas/event/v1", Name: "eventv1", GoFiles: []string{"event.pb.go", "class.go"},
		}, 1},
		{"tests alone need none", pkg{
			ImportPath: "heliograph/ingest", Name: "ingest", XTestGoFiles: []string{"a_test.go"},
		}, 0},
		{"vague name and no comment", pkg{
			ImportPath: "heliograph/infra/util", Name: "util", GoFiles: []string{"a.go"},
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := checkPackage(c.pkg); len(got) != c.want {
				t.Errorf("got %d findings %q, want %d", len(got), got, c.want)
			}
		})
	}
}

func TestTop(t *testing.T) {
	got := checkTop([]string{".git", ".ci", "Makefile", "ingest", "docs", "scripts", "bin"})
	if len(got) != 2 || !strings.HasPrefix(got[0], "docs:") || !strings.HasPrefix(got[1], "scripts:") {
		t.Errorf("got %q, want docs and scripts", got)
	}
}

func TestText(t *testing.T) {
	for _, word := range unfinished {
		if got := checkText("a/b.go", "package b\n// "+word+": later\n"); len(got) != 1 ||
			!strings.HasPrefix(got[0], "a/b.go:2: "+word) {
			t.Errorf("%s: got %q", word, got)
		}
		if got := checkText("a/b.go", "x"+word+"y "+strings.ToLower(word)); got != nil {
			t.Errorf("inside another word: got %q, want none", got)
		}
	}
}

func TestQueries(t *testing.T) {
	// the numbers are put together here so that this file is not found
	const kind, topic = "kind = ", "topic = "
	for _, c := range []struct {
		name, file, text string
		want             int
	}{
		{"a kind by its number", "a/b.go", "WHERE " + kind + "10", 1},
		{"a topic by its number, in a test", "a/b_test.go", "WHERE p." + topic + "1 AND slot = 2", 1},
		{"a kind by its name", "infra/views/b.go", "WHERE " + kind + "` + kindMessage", 0},
		{"a topic as a parameter", "a/b.go", "WHERE " + topic + "$1 AND " + topic + "?", 0},
		{"another than a number", "a/b.go", "WHERE kind" + " <> 10", 1},
		{"one of several numbers", "a/b.go", "WHERE kind" + " IN (1, 2)", 1},
		{"another word", "a/b.go", "man" + kind + "1", 0},
		{"a question", "edge/query/b.go", "`SELECT name FROM users WHERE user_id = $1`", 1},
		{"in a line of its own", "edge/query/b.go", "  FROM members m", 1},
		{"within another", "edge/query/b.go", "(SELECT 1 FROM messages)", 1},
		{"two of them", "tools/helio/b.go", "SELECT (SELECT max(next) FROM positions), x\nFROM receipts", 2},
		{"within one to another table", "edge/query/b.go", "SELECT (SELECT 1 FROM threads) FROM unnest($1) k", 1},
		{"joined", "edge/query/b.go", "  FROM unnest($1) k JOIN messages m USING (thread_id)", 1},
		{"with its schema", "edge/query/b.go", "SELECT 1 FROM views.messages", 1},
		{"of the history, in the views", "infra/views/b.go", "SELECT 1 FROM receipts", 1},
		{"where it belongs", "infra/views/b.go", "SELECT 1 FROM threads t", 0},
		{"a table of both", "infra/history/b.go", "SELECT 1 FROM messages FINAL", 0},
		{"in a test", "edge/query/b_test.go", "SELECT 1 FROM threads", 0},
		{"what is taken away", "edge/query/b.go", "DELETE FROM contacts WHERE user_id = $1", 0},
		{"other tables", "edge/auth/b.go", "SELECT 1 FROM registration.pins", 0},
		{"an analyst's", "tools/demo/ending.go", "SELECT 1 FROM messages", 0},
		{"beside it", "tools/demo/b.go", "SELECT 1 FROM messages", 1},
	} {
		if got := checkQueries(c.file, c.text); len(got) != c.want {
			t.Errorf("%s: got %d findings %q, want %d", c.name, len(got), got, c.want)
		}
	}
}

func TestDecode(t *testing.T) {
	got, err := decode(
		strings.NewReader(`{"ImportPath":"heliograph/a","GoFiles":["a.go"]}{"ImportPath":"heliograph/b"}`),
	)
	if err != nil || len(got) != 2 || got[0].path() != "a" || got[1].path() != "b" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{`{"ImportPath":`, `{"ImportPath":"heliograph/a","Error":{"Err":"no such file"}}`} {
		if got, err := decode(strings.NewReader(bad)); err == nil {
			t.Errorf("decode(%s) = %v, want an error", bad, got)
		}
	}
}
