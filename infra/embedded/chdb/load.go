//go:build !static

package chdb

import (
	"os"

	"github.com/ebitengine/purego"

	"heliograph/infra/embedded/engine"
)

// load opens the library and keeps Go's signal handlers in place.
func load(path string) (*library, error) {
	if st, err := os.Stat(path); err != nil || st.IsDir() {
		return nil, engine.Missingf(engine.ClickHouse, "no library at %s", path)
	}
	l := &library{}
	defer l.keepSignals()()
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, &engine.Error{
			Engine: engine.ClickHouse, Fault: engine.Missing, Reason: "cannot load " + path, Err: err,
			Mend: "run 'make engines' or say where the engines are with --engines DIR",
		}
	}
	for _, f := range []struct {
		name string
		ptr  any
	}{
		{"chdb_set_signal_handlers_enabled", &l.setSignalHandlers},
		{"chdb_connect", &l.connect},
		{"chdb_close_conn", &l.closeConn},
		{"chdb_query_n", &l.query},
		{"chdb_query_with_params_n", &l.queryParams},
		{"chdb_destroy_query_result", &l.destroy},
		{"chdb_result_buffer", &l.buffer},
		{"chdb_result_length", &l.length},
		{"chdb_result_elapsed", &l.elapsed},
		{"chdb_result_rows_read", &l.rowsRead},
		{"chdb_result_bytes_read", &l.bytesRead},
		{"chdb_result_storage_rows_read", &l.storageRows},
		{"chdb_result_storage_bytes_read", &l.storageBytes},
		{"chdb_result_rows_written", &l.rowsWritten},
		{"chdb_result_bytes_written", &l.bytesWritten},
		{"chdb_result_error", &l.failure},
	} {
		sym, err := purego.Dlsym(h, f.name)
		if err != nil {
			return nil, engine.Missingf(
				engine.ClickHouse, "%s is not a libchdb of version 26 (it has no %s)", path, f.name,
			)
		}
		purego.RegisterFunc(f.ptr, sym)
	}
	l.setSignalHandlers(0)
	return l, nil
}
