package chdb

import "strings"

// contentType is the media type that a ClickHouse server gives to a format.
func contentType(format string) string {
	switch f := strings.ToLower(format); {
	case strings.HasPrefix(f, "jsoneachrow"),
		strings.HasPrefix(f, "jsoncompacteachrow"),
		strings.HasPrefix(f, "jsonstringseachrow"),
		strings.HasPrefix(f, "jsoncompactstringseachrow"),
		f == "ndjson",
		f == "jsonlines":
		return "application/x-ndjson; charset=UTF-8"
	case strings.HasPrefix(f, "json"):
		return "application/json; charset=UTF-8"
	case strings.HasPrefix(f, "csvwithnames"):
		return "text/csv; charset=UTF-8; header=present"
	case strings.HasPrefix(f, "csv"):
		return "text/csv; charset=UTF-8; header=absent"
	case strings.HasPrefix(f, "tab"), strings.HasPrefix(f, "tsv"):
		return "text/tab-separated-values; charset=UTF-8"
	case f == "xml":
		return "application/xml; charset=UTF-8"
	case f == "markdown":
		return "text/markdown; charset=UTF-8"
	case f == "native", f == "parquet", f == "arrow", f == "arrowstream", f == "orc", f == "avro", f == "msgpack",
		f == "npy", f == "capnproto", strings.HasPrefix(f, "rowbinary"), strings.HasPrefix(f, "protobuf"):
		return "application/octet-stream"
	default:
		return "text/plain; charset=UTF-8"
	}
}
