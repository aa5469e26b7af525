package chdb

import (
	"bytes"
	"strings"
)

// tokenKind is what a token of SQL is.
type tokenKind uint8

const (
	tokenEnd    tokenKind = iota
	tokenWord             // keyword, bare identifier or number
	tokenQuoted           // quoted identifier
	tokenString           // string literal
	tokenPunct            // one byte of anything else
)

// token is a piece of SQL. Brackets are reported at the depth outside them.
type token struct {
	kind       tokenKind
	start, end int
	depth      int
}

// lexer splits SQL into tokens as far as the front needs it: it never fails, and what it does not know is punctuation.
type lexer struct {
	src   []byte
	pos   int
	depth int
}

func (l *lexer) next() token {
	l.skip()
	if l.pos >= len(l.src) {
		return token{kind: tokenEnd, start: len(l.src), end: len(l.src), depth: l.depth}
	}
	t := token{start: l.pos, depth: l.depth}
	switch c := l.src[l.pos]; {
	case c == '\'':
		t.kind = tokenString
		l.quoted(c)
	case c == '"' || c == '`':
		t.kind = tokenQuoted
		l.quoted(c)
	case c == '$' && l.heredoc():
		t.kind = tokenString
	case wordByte(c):
		t.kind = tokenWord
		for l.pos < len(l.src) && wordByte(l.src[l.pos]) {
			l.pos++
		}
	default:
		t.kind = tokenPunct
		l.pos++
		switch c {
		case '(', '[', '{':
			l.depth++
		case ')', ']', '}':
			l.depth--
			t.depth = l.depth
		}
	}
	t.end = l.pos
	return t
}

// skip passes white space and comments.
func (l *lexer) skip() {
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		switch {
		case strings.IndexByte(" \t\r\n\f\v\x00", rest[0]) >= 0:
			l.pos++
		case bytes.HasPrefix(rest, []byte("--")),
			bytes.HasPrefix(rest, []byte("//")),
			bytes.HasPrefix(rest, []byte("#!")),
			bytes.HasPrefix(rest, []byte("# ")):
			l.upTo(rest, "\n")
		case bytes.HasPrefix(rest, []byte("/*")):
			l.nested(rest)
		default:
			return
		}
	}
}

func (l *lexer) upTo(rest []byte, end string) {
	if i := bytes.Index(rest, []byte(end)); i >= 0 {
		l.pos += i + len(end)
	} else {
		l.pos = len(l.src)
	}
}

// nested passes a comment, which may hold others.
func (l *lexer) nested(rest []byte) {
	depth := 0
	for i := 0; i+1 < len(rest); i++ {
		switch string(rest[i : i+2]) {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			l.pos += i + 1
			return
		}
	}
	l.pos = len(l.src)
}

func (l *lexer) quoted(q byte) {
	for l.pos++; l.pos < len(l.src); l.pos++ {
		switch l.src[l.pos] {
		case '\\':
			l.pos++
		case q:
			if l.pos+1 < len(l.src) && l.src[l.pos+1] == q {
				l.pos++
				continue
			}
			l.pos++
			return
		}
	}
	l.pos = len(l.src)
}

// heredoc passes $tag$ ... $tag$ and reports whether one stood there.
func (l *lexer) heredoc() bool {
	rest := l.src[l.pos:]
	i := 1
	for i < len(rest) && rest[i] != '$' && wordByte(rest[i]) {
		i++
	}
	if i >= len(rest) || rest[i] != '$' {
		return false
	}
	tag := rest[:i+1]
	end := bytes.Index(rest[len(tag):], tag)
	if end < 0 {
		return false
	}
	l.pos += len(tag) + end + len(tag)
	return true
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
