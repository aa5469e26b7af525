package chdb

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// ClickHouse's error codes that the front itself raises or looks at.
const (
	codeBadArguments        = 36
	codeNotImplemented      = 48
	codeSyntaxError         = 62
	codeUnknownType         = 78
	codeUnknownCompression  = 89
	codeReadonly            = 164
	codeTooManyQueries      = 202
	codeNetwork             = 210
	codeSameQueryID         = 216
	codeTooLarge            = 229
	codeAborted             = 236
	codeNoSpace             = 243
	codeCannotDecompress    = 271
	codeOutfileNotAllowed   = 358
	codeCancelled           = 394
	codeResultTooLarge      = 396
	codeAccessDenied        = 497
	codeAuthenticationError = 516
)

var codeNames = map[int]string{
	codeBadArguments: "BAD_ARGUMENTS", codeNotImplemented: "NOT_IMPLEMENTED", codeSyntaxError: "SYNTAX_ERROR",
	codeUnknownType: "UNKNOWN_TYPE_OF_QUERY", codeUnknownCompression: "UNKNOWN_COMPRESSION_METHOD",
	codeTooManyQueries: "TOO_MANY_SIMULTANEOUS_QUERIES", codeNetwork: "NETWORK_ERROR",
	codeSameQueryID: "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", codeTooLarge: "QUERY_IS_TOO_LARGE",
	codeAborted: "ABORTED", codeNoSpace: "NOT_ENOUGH_SPACE", codeCannotDecompress: "CANNOT_DECOMPRESS",
	codeOutfileNotAllowed: "INTO_OUTFILE_NOT_ALLOWED", codeReadonly: "READONLY",
	codeCancelled:      "QUERY_WAS_CANCELLED",
	codeResultTooLarge: "TOO_MANY_ROWS_OR_BYTES", codeAccessDenied: "ACCESS_DENIED",
	codeAuthenticationError: "AUTHENTICATION_FAILED",
}

// exception is an error of the engine, or of the front in the engine's form.
type exception struct {
	code int
	text string // without the "Code: N. DB::Exception: " in front
}

func exceptionf(code int, format string, args ...any) *exception {
	return &exception{code: code, text: fmt.Sprintf(format, args...) + ". (" + codeNames[code] + ")"}
}

// Error returns the exception as ClickHouse prints it.
func (e *exception) Error() string { return fmt.Sprintf("Code: %d. DB::Exception: %s", e.code, e.text) }

var (
	exceptionHead = regexp.MustCompile(`^Code: (\d+)\. DB::[A-Za-z]*Exception: `)
	versionNote   = regexp.MustCompile(` \(version [0-9.]+[^()]*(\([^()]*\))?\)`)
)

// parseException reads the library's error text. It nests one exception in another's words; the innermost one's code
// counts.
func parseException(text string) *exception {
	e := &exception{code: 1001, text: strings.TrimSpace(text)} // STD_EXCEPTION
	for {
		m := exceptionHead.FindStringSubmatch(e.text)
		if m == nil {
			break
		}
		if n, err := strconv.Atoi(m[1]); err == nil && n > 0 {
			e.code = n
		}
		e.text = e.text[len(m[0]):]
	}
	e.text = versionNote.ReplaceAllString(e.text, "")
	return e
}

// status is the HTTP status that a ClickHouse server gives to an error code.
func (e *exception) status() int {
	switch e.code {
	case 194: // REQUIRED_PASSWORD
		return http.StatusUnauthorized
	case 192, 193, codeAccessDenied, codeAuthenticationError:
		return http.StatusForbidden
	case 6,
		25,
		26,
		27,
		32,
		33,
		codeBadArguments,
		38,
		41,
		53,
		72,
		codeSyntaxError,
		codeUnknownType,
		117,
		131,
		codeReadonly,
		167,
		427,
		456,
		457,
		485,
		486,
		489,
		codeCannotDecompress,
		codeUnknownCompression,
		codeOutfileNotAllowed,
		codeSameQueryID:
		return http.StatusBadRequest
	case 16, 46, 47, 50, 56, 60, 63, 73, 81, 115, 336:
		return http.StatusNotFound
	case codeTooLarge:
		return http.StatusRequestEntityTooLarge
	case codeNotImplemented:
		return http.StatusNotImplemented
	case 159: // TIMEOUT_EXCEEDED
		return http.StatusRequestTimeout
	case 76, codeTooManyQueries, 209, codeAborted, 439:
		return http.StatusServiceUnavailable
	case codeNoSpace:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}
