package chdb

import (
	"bytes"
	"strings"
)

// statementKind is how a statement is run.
type statementKind uint8

const (
	stmtOther        statementKind = iota // run as it stands, result in memory
	stmtSelect                            // result through a pipe
	stmtInsertData                        // data follows the statement, in the format named
	stmtInsert                            // INSERT ... SELECT, run as it stands
	stmtInsertValues                      // INSERT ... VALUES with its values, run as it stands
	stmtKill                              // KILL QUERY
)

var kindNames = [...]string{"other", "select", "insert_data", "insert", "insert_values", "kill"}

// statement is what the front needs to know of a statement before it hands it to the engine.
type statement struct {
	kind   statementKind
	format string // of the FORMAT clause, or empty
	splice int    // where INTO OUTFILE or FROM INFILE belongs
	end    int    // where the statement ends: before a last semicolon, or where the inserted data begins
	tail   string // for stmtInsertData without a FORMAT clause, the format to take
}

// asks reports whether a statement begins as one that only asks. The engine's own mode for readers refuses what changes
// rows or tables, and neither KILL nor SYSTEM.
func asks(text []byte) bool {
	l := &lexer{src: text}
	first := l.next()
	for _, word := range []string{"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"} {
		if is(text, first, word) {
			return true
		}
	}
	return first.kind == tokenPunct && text[first.start] == '('
}

// parseStatement looks at the head of a request's text. complete says that text is all of it; if it is not, only an
// INSERT with data can be recognised and more is true when more text is needed.
func parseStatement(text []byte, complete bool) (st statement, more bool, err *exception) {
	l := &lexer{src: text}
	first := l.next()
	if first.kind == tokenEnd {
		if !complete {
			return st, true, nil
		}
		return st, false, exceptionf(codeSyntaxError, "Empty query")
	}
	if is(text, first, "INSERT") {
		st, done, err := parseInsert(l)
		if done || err != nil {
			return st, false, err
		}
	}
	if !complete {
		return st, true, nil
	}
	return parseWhole(text, first)
}

// parseInsert reads an INSERT up to its data. done is false for INSERT ... VALUES and INSERT ... SELECT, which are read
// as a whole.
func parseInsert(l *lexer) (st statement, done bool, err *exception) {
	st.kind = stmtInsertData
	t := l.next()
	if is(l.src, t, "INTO") {
		t = l.next()
	}
	if is(l.src, t, "TABLE") {
		t = l.next()
	}
	if is(l.src, t, "FUNCTION") {
		t = l.next()
	}
	settings := -1
	// The table's name may look like a keyword: pass it first.
	for t.kind == tokenWord || t.kind == tokenQuoted {
		t = l.next()
		if !punct(l.src, t, '.') {
			break
		}
		t = l.next()
	}
	for ; t.kind != tokenEnd; t = l.next() {
		if t.depth != 0 || t.kind != tokenWord {
			continue
		}
		switch {
		case is(l.src, t, "VALUES"), is(l.src, t, "SELECT"), is(l.src, t, "WITH"):
			return st, false, nil
		case is(l.src, t, "INFILE"):
			return st, false, exceptionf(codeUnknownType, "Query has infile and was sent directly to the server")
		case is(l.src, t, "SETTINGS"):
			settings = t.start
		case is(l.src, t, "FORMAT"):
			name := l.next()
			if name.kind != tokenWord {
				return st, true, exceptionf(codeSyntaxError, "FORMAT is not followed by the name of a format")
			}
			st.end = name.end
			st.format = string(l.src[name.start:name.end])
			st.splice = t.start
			if settings >= 0 {
				st.splice = settings
			}
			return st, true, nil
		}
	}
	return st, false, nil
}

// parseWhole reads a statement that is complete and carries no foreign data.
func parseWhole(text []byte, first token) (st statement, more bool, err *exception) {
	var top []token // tokens outside all brackets
	l := &lexer{src: text}
	st.end = len(text)
	ended := false
	last := 0
	for t := l.next(); t.kind != tokenEnd; t = l.next() {
		if ended && !punct(text, t, ';') {
			return st, false, exceptionf(codeSyntaxError, "Multi-statements are not allowed")
		}
		if t.depth <= 0 && punct(text, t, ';') {
			ended = true
			continue
		}
		if t.depth <= 0 {
			top = append(top, t)
		}
		last = t.end
	}
	if last == 0 {
		return st, false, exceptionf(codeSyntaxError, "Empty query")
	}
	st.end, st.splice = last, last
	word := func(i int, w string) bool { return i >= 0 && i < len(top) && is(text, top[i], w) }
	for i := range top {
		if word(i, "OUTFILE") && word(i-1, "INTO") {
			return st, false, exceptionf(codeOutfileNotAllowed, "INTO OUTFILE is not allowed")
		}
	}
	for i := len(top) - 2; i > 0; i-- {
		if !word(i, "FORMAT") || top[i+1].kind != tokenWord || word(i-1, "AS") ||
			punct(text, top[i-1], '.') || punct(text, top[i-1], ',') {
			continue
		}
		if i+2 == len(top) || word(i+2, "SETTINGS") && i+4 < len(top) && punct(text, top[i+4], '=') {
			st.format = string(text[top[i+1].start:top[i+1].end])
			st.splice = top[i].start
		}
		break
	}
	switch {
	case is(text, first, "INSERT"):
		st.kind = insertKind(text, top)
		if len(top) > 2 && onlyTarget(text, top) {
			// No data clause at all: the data is in the body, as Values unless the request says otherwise.
			st.kind = stmtInsertData
			st.tail = "Values"
			for i := range top {
				if word(i, "SETTINGS") {
					st.splice = top[i].start
					break
				}
			}
		}
	case is(text, first, "KILL"):
		st.kind = stmtKill
	case is(text, first, "SELECT"), is(text, first, "FROM"), is(text, first, "WITH"), punct(text, first, '('):
		st.kind = stmtSelect
		for i := range top {
			if i > 0 && word(i, "INSERT") && word(i+1, "INTO") {
				st.kind = stmtOther
			}
		}
	case isClientCommand(text[first.start:last]):
		return st, false, exceptionf(codeSyntaxError, "Syntax error: %q is no statement", text[first.start:last])
	}
	return st, false, nil
}

// insertKind tells an INSERT that brings its values from one that asks for them.
func insertKind(text []byte, top []token) statementKind {
	for _, t := range top[min(3, len(top)):] { // after INSERT INTO and the table, which may be named like a keyword
		switch {
		case is(text, t, "VALUES"):
			return stmtInsertValues
		case is(text, t, "SELECT"), is(text, t, "WITH"):
			return stmtInsert
		}
	}
	return stmtInsert
}

// forLater reports whether a statement does nothing but for later ones of its session.
func forLater(text []byte) bool {
	l := &lexer{src: text}
	t := l.next()
	switch {
	case is(text, t, "SET"), is(text, t, "USE"):
		return true
	case !is(text, t, "CREATE"):
		return false
	}
	if t = l.next(); is(text, t, "OR") {
		l.next() // REPLACE
		t = l.next()
	}
	return is(text, t, "TEMPORARY")
}

// onlyTarget reports whether an INSERT names neither data nor a source of data.
func onlyTarget(text []byte, top []token) bool {
	for _, t := range top[2:] {
		if is(text, t, "VALUES") || is(text, t, "SELECT") || is(text, t, "WITH") || is(text, t, "FORMAT") {
			return false
		}
	}
	return true
}

// isClientCommand reports whether the library's client would take the text for a command to itself.
func isClientCommand(text []byte) bool {
	switch strings.ToLower(strings.TrimSpace(string(text))) {
	case "exit", "quit", "logout", "учше", "йгше", "дщпщге", "q", "й", "\\q", "\\й", ":q", "жй":
		return true
	}
	return false
}

// dataStart is where the data begins in text after the FORMAT clause ended at end: white space is passed up to and with
// the first line break.
func dataStart(text []byte, end int) int {
	for end < len(text) {
		switch text[end] {
		case ' ', '\t', '\f', '\v':
			end++
		case '\r':
			end++
		case '\n':
			return end + 1
		default:
			return end
		}
	}
	return end
}

// rewriteKill lets KILL QUERY find the ids that the clients chose.
func rewriteKill(text []byte) string {
	var b strings.Builder
	l := &lexer{src: text}
	pos := 0
	for t := l.next(); t.kind != tokenEnd; t = l.next() {
		name := bytes.Trim(text[t.start:t.end], "`\"")
		if t.kind != tokenWord && t.kind != tokenQuoted || !bytes.Equal(name, []byte("query_id")) {
			continue
		}
		b.Write(text[pos:t.start])
		b.WriteString(clientQueryID)
		pos = t.end
	}
	b.Write(text[pos:])
	return b.String()
}

// clientQueryID is the client's query_id as an expression over system.processes.
const clientQueryID = `if(Settings['log_comment'] = '', query_id, splitByChar(' ', Settings['log_comment'])[1])`

func is(text []byte, t token, word string) bool {
	return t.kind == tokenWord && t.end-t.start == len(word) && strings.EqualFold(string(text[t.start:t.end]), word)
}

func punct(text []byte, t token, c byte) bool { return t.kind == tokenPunct && text[t.start] == c }
