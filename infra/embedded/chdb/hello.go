package chdb

import (
	"encoding/binary"
	"strings"
)

// helloQuery is the first thing that clickhouse-go asks on a connection over HTTP.
const helloQuery = "SELECT displayName(), version(), revision(), timezone()"

func isHello(sql string) bool { return strings.TrimSpace(sql) == helloQuery }

// helloBlock is the answer to helloQuery: one Native block as revision 54460 has it (block information in front, and a
// byte of serialisation kind in each column), whose revision() is 0 so that the client expects plain blocks from then
// on.
func helloBlock(name, version, timezone string) []byte {
	b := []byte{1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0} // is_overflows = 0, bucket_num = -1, end
	b = binary.AppendUvarint(b, 4)                  // columns
	b = binary.AppendUvarint(b, 1)                  // rows
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	column := func(name, typ string) {
		str(name)
		str(typ)
		b = append(b, 0) // no custom serialisation
	}
	column("displayName()", "String")
	str(name)
	column("version()", "String")
	str(version)
	column("revision()", "UInt32")
	b = binary.LittleEndian.AppendUint32(b, 0)
	column("timezone()", "String")
	str(timezone)
	return b
}
