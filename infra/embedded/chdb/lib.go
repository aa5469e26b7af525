package chdb

import (
	"fmt"
	"runtime"
	"sync"
	"unsafe"
)

// library is the part of libchdb's C interface that is used here. Its functions may be called from any goroutine; a
// connection runs one statement at a time.
type library struct {
	setSignalHandlers func(enabled int32)
	connect           func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	closeConn         func(conn unsafe.Pointer)
	query             func(conn, sql unsafe.Pointer, sqlLen uint64,
		format unsafe.Pointer, formatLen uint64) unsafe.Pointer
	queryParams func(conn, sql unsafe.Pointer, sqlLen uint64, format unsafe.Pointer, formatLen uint64,
		names, nameLens, values, valueLens unsafe.Pointer, count uint64) unsafe.Pointer
	destroy      func(result unsafe.Pointer)
	buffer       func(result unsafe.Pointer) unsafe.Pointer
	length       func(result unsafe.Pointer) uint64
	elapsed      func(result unsafe.Pointer) float64
	rowsRead     func(result unsafe.Pointer) uint64
	bytesRead    func(result unsafe.Pointer) uint64
	storageRows  func(result unsafe.Pointer) uint64
	storageBytes func(result unsafe.Pointer) uint64
	rowsWritten  func(result unsafe.Pointer) uint64
	bytesWritten func(result unsafe.Pointer) uint64
	failure      func(result unsafe.Pointer) unsafe.Pointer

	signals sync.Mutex // serialises save and restore of the signal handlers
}

// conn is one connection: one session with its own settings. It belongs to one goroutine at a time.
type conn struct {
	lib *library
	ptr unsafe.Pointer // chdb_connection *
}

// open makes a connection with the engine's arguments. The first one of the process boots the engine.
func (l *library) open(args []string) (*conn, error) {
	cstrings := make([][]byte, 0, len(args)+1)
	argv := make([]unsafe.Pointer, 0, len(args)+1)
	var pin runtime.Pinner
	defer pin.Unpin()
	for _, a := range append([]string{"chdb"}, args...) {
		b := append([]byte(a), 0)
		pin.Pin(&b[0])
		cstrings = append(cstrings, b)
		argv = append(argv, unsafe.Pointer(&b[0]))
	}
	pin.Pin(&argv[0])
	restore := l.keepSignals()
	p := l.connect(int32(len(argv)), unsafe.Pointer(&argv[0]))
	restore()
	runtime.KeepAlive(cstrings)
	if p == nil || *(*unsafe.Pointer)(p) == nil {
		return nil, fmt.Errorf("chdb_connect refused")
	}
	return &conn{lib: l, ptr: p}, nil
}

func (c *conn) close() { c.lib.closeConn(c.ptr) }

// param is one query parameter, its value in ClickHouse's escaped form as the HTTP interface has it.
type param struct{ name, value string }

// result is what a statement returned. free must be called once.
type result struct {
	lib *library
	ptr unsafe.Pointer
}

// exec runs one statement to its end and returns its result, or the engine's exception.
func (c *conn) exec(sql, format string, params []param) (*result, error) {
	if sql == "" {
		return nil, &exception{code: codeSyntaxError, text: "Empty query"}
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	q, f := unsafe.Pointer(unsafe.StringData(sql)), unsafe.Pointer(unsafe.StringData(format))
	handle := *(*unsafe.Pointer)(c.ptr)
	var p unsafe.Pointer
	if len(params) == 0 {
		p = c.lib.query(handle, q, uint64(len(sql)), f, uint64(len(format)))
	} else {
		n := len(params)
		names, values := make([]unsafe.Pointer, n), make([]unsafe.Pointer, n)
		nameLens, valueLens := make([]uint64, n), make([]uint64, n)
		for i, a := range params {
			for _, s := range []struct {
				text string
				ptr  *unsafe.Pointer
				size *uint64
			}{{a.name, &names[i], &nameLens[i]}, {a.value, &values[i], &valueLens[i]}} {
				b := append([]byte(s.text), 0)
				pin.Pin(&b[0])
				*s.ptr, *s.size = unsafe.Pointer(&b[0]), uint64(len(s.text))
			}
		}
		pin.Pin(&names[0])
		pin.Pin(&values[0])
		pin.Pin(&nameLens[0])
		pin.Pin(&valueLens[0])
		p = c.lib.queryParams(handle, q, uint64(len(sql)), f, uint64(len(format)),
			unsafe.Pointer(&names[0]), unsafe.Pointer(&nameLens[0]),
			unsafe.Pointer(&values[0]), unsafe.Pointer(&valueLens[0]), uint64(n))
	}
	runtime.KeepAlive(sql)
	runtime.KeepAlive(format)
	if p == nil {
		return nil, &exception{code: codeAborted, text: "the engine gave no result"}
	}
	r := &result{lib: c.lib, ptr: p}
	if e := c.lib.failure(p); e != nil {
		if text := cString(e); text != "" {
			r.free()
			return nil, parseException(text)
		}
	}
	return r, nil
}

// bytes is the result's data, valid until free.
func (r *result) bytes() []byte {
	n := r.lib.length(r.ptr)
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(r.lib.buffer(r.ptr)), n)
}

// text is a copy of the result's data.
func (r *result) text() string { return string(r.bytes()) }

func (r *result) free() {
	if r.ptr != nil {
		r.lib.destroy(r.ptr)
		r.ptr = nil
	}
}

// stats are the counters of one statement.
type stats struct {
	readRows, readBytes, writtenRows, writtenBytes, resultRows, resultBytes uint64
	elapsedSeconds                                                          float64
}

func (r *result) stats() stats {
	return stats{
		readRows: r.lib.storageRows(r.ptr), readBytes: r.lib.storageBytes(r.ptr),
		writtenRows: r.lib.rowsWritten(r.ptr), writtenBytes: r.lib.bytesWritten(r.ptr),
		resultRows: r.lib.rowsRead(r.ptr), resultBytes: r.lib.bytesRead(r.ptr),
		elapsedSeconds: r.lib.elapsed(r.ptr),
	}
}

func cString(p unsafe.Pointer) string {
	n := 0
	for *(*byte)(unsafe.Add(p, n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(p), n))
}
