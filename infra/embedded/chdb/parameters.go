package chdb

import (
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// notSettings are the URL parameters that are the interface's own; every other one is a setting.
var notSettings = map[string]bool{
	"query": true, "query_id": true, "database": true, "default_format": true, "user": true, "password": true,
	"quota_key": true, "compress": true, "decompress": true, "client_protocol_version": true, "stacktrace": true,
	"buffer_size": true, "wait_end_of_query": true, "log_comment": true, "role": true,
	"session_id": true, "session_timeout": true, "session_check": true, "close_session": true,
}

// notServed are the parameters and settings that ask something of the interface that this one does not do. Those that
// are switches may be sent as off.
var notServed = map[string]string{
	"role":                         "there are no roles",
	"session_check":                "there are no sessions",
	"quota_key":                    "there are no quotas",
	"stacktrace":                   "errors carry no stack trace",
	"profile":                      "a user has one",
	"replace_running_query":        "end the other query with KILL QUERY first",
	"http_response_headers":        "the answer's headers are fixed",
	"add_http_cors_header":         "pages of other sites are not served",
	"allow_get_client_http_header": "queries do not see the request's headers",
	"http_write_exception_in_output_format": "an error after the first bytes comes in the frame that " +
		"X-ClickHouse-Exception-Tag announces",
}

// readParameters reads what the URL and the headers say.
func (q *query) readParameters(user string) *exception {
	for name, why := range notServed {
		if q.enabled(name) {
			return exceptionf(codeNotImplemented, "The embedded engine does not serve %s: %s", name, why)
		}
	}
	q.id = q.values.Get("query_id")
	if q.id == "" {
		q.id = q.r.Header.Get("X-ClickHouse-Query-Id")
	}
	if q.id == "" {
		q.id = uuid.NewString()
	}
	if len(q.id) > maxQueryID || strings.ContainsAny(q.id, " \t\r\n\x00") {
		return exceptionf(codeBadArguments, "query_id must be at most %d characters without spaces", maxQueryID)
	}
	q.job = job{
		queryID: q.id, comment: q.values.Get("log_comment"),
		database: first(q.values.Get("database"), q.r.Header.Get("X-ClickHouse-Database")),
		format:   first(q.values.Get("default_format"), q.r.Header.Get("X-ClickHouse-Format"), defaultText),
		readonly: q.r.Method != http.MethodPost || user == Reader,
		reader:   user == Reader,
	}
	for name, vs := range q.values {
		value := vs[len(vs)-1]
		switch {
		case strings.HasPrefix(name, "param_"):
			q.job.params = append(q.job.params, param{strings.TrimPrefix(name, "param_"), value})
		case notSettings[name]:
		case !settingName.MatchString(name):
			return exceptionf(codeBadArguments, "%q is no name of a setting", name)
		case name == "readonly" && q.job.readonly && value != "1" && value != "2":
			return exceptionf(
				codeReadonly,
				"Cannot modify 'readonly' setting in readonly mode: a GET and the user "+Reader+" only read",
			)
		case slices.Contains(expressions, name):
			return exceptionf(codeNotImplemented, "The embedded engine does not serve %s", name)
		default:
			q.job.settings = append(q.job.settings, param{name, value})
		}
	}
	return nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// enabled reports whether a boolean URL parameter is on.
func (q *query) enabled(name string) bool {
	switch strings.ToLower(q.values.Get(name)) {
	case "", "0", "false":
		return false
	}
	return true
}
