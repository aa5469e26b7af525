package threads

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// column is one column's values for the rows of a statement.
type column interface {
	array() any // for unnest
	value(i int) any
	len() int
}

// vec is a column whose array and values are what pgx takes.
type vec[T any] []T

func (v *vec[T]) add(x T)         { *v = append(*v, x) }
func (v *vec[T]) array() any      { return pgtype.FlatArray[T](*v) } // pgx reads a slice of most types by reflection
func (v *vec[T]) value(i int) any { return (*v)[i] }
func (v *vec[T]) len() int        { return len(*v) }

// uuids is a column of uuid values.
type uuids []pgtype.UUID

func (u *uuids) add(x pgtype.UUID) { *u = append(*u, x) }
func (u *uuids) array() any        { return uuidArray(*u) }
func (u *uuids) value(i int) any   { return (*u)[i] }
func (u *uuids) len() int          { return len(*u) }

// uuidArray implements pgtype.ArrayGetter. It gives its elements by reference: as values each would be an object.
type uuidArray []pgtype.UUID

// Dimensions implements pgtype.ArrayGetter.
func (a uuidArray) Dimensions() []pgtype.ArrayDimension {
	return pgtype.FlatArray[pgtype.UUID](a).Dimensions()
}

// Index implements pgtype.ArrayGetter.
func (a uuidArray) Index(i int) any { return &a[i] }

// IndexType implements pgtype.ArrayGetter.
func (a uuidArray) IndexType() any { return &pgtype.UUID{} }

// lists is a column of bigint[] values. Arrays of arrays must be rectangular, so for unnest they go as text.
type lists [][]int64

func (l *lists) add(x []int64)   { *l = append(*l, x) }
func (l *lists) value(i int) any { return (*l)[i] }
func (l *lists) len() int        { return len(*l) }
func (l *lists) array() any {
	out := make([]string, len(*l))
	for i, row := range *l {
		b := []byte{'{'}
		for j, n := range row {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, n, 10)
		}
		out[i] = string(append(b, '}'))
	}
	return out
}

// optionalLists is lists in which nil is NULL.
type optionalLists [][]int64

func (l *optionalLists) add(x []int64)   { *l = append(*l, x) }
func (l *optionalLists) value(i int) any { return (*l)[i] }
func (l *optionalLists) len() int        { return len(*l) }
func (l *optionalLists) array() any {
	texts := (*lists)(l).array().([]string)
	out := make([]*string, len(texts))
	for i := range texts {
		if (*l)[i] != nil {
			out[i] = &texts[i]
		}
	}
	return out
}

// table is how rows get into a table.
type table struct {
	name     string
	columns  []string
	unnest   string // the whole statement
	stage    string // makes the temporary table that COPY fills
	unstage  string // moves the rows from there
	stageTab pgx.Identifier
}

// newTable describes a table: columns as "name type", and what to do with a row that is there already.
func newTable(name, conflict string, columns ...string) *table {
	t := &table{name: name, stageTab: pgx.Identifier{"stage_" + name}}
	var params, picks []string
	for i, c := range columns {
		col, typ, _ := strings.Cut(c, " ")
		t.columns = append(t.columns, col)
		if typ == "bigint[]" {
			params = append(params, fmt.Sprintf("$%d::text[]", i+1))
			picks = append(picks, "r."+col+"::bigint[]")
			continue
		}
		params = append(params, fmt.Sprintf("$%d::%s[]", i+1, typ))
		picks = append(picks, "r."+col)
	}
	cols := strings.Join(t.columns, ", ")
	t.unnest = fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM unnest(%s) AS r (%s) %s",
		name, cols, strings.Join(picks, ", "), strings.Join(params, ", "), cols, conflict)
	t.stage = fmt.Sprintf("CREATE TEMP TABLE IF NOT EXISTS stage_%s (LIKE %s) ON COMMIT DELETE ROWS", name, name)
	t.unstage = fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM stage_%s %s", name, cols, cols, name, conflict)
	return t
}

// rows are a table's rows, by column in the order of the table's columns and sorted by primary key.
type rows struct {
	table *table
	cols  []column
}

func (r rows) len() int { return r.cols[0].len() }

func (r rows) arrays() []any {
	out := make([]any, len(r.cols))
	for i, c := range r.cols {
		out[i] = c.array()
	}
	return out
}

// source feeds COPY.
func (r rows) source() pgx.CopyFromSource {
	row := make([]any, len(r.cols))
	return pgx.CopyFromSlice(r.len(), func(i int) ([]any, error) {
		for j, c := range r.cols {
			row[j] = c.value(i)
		}
		return row, nil
	})
}

// overwrite is the clause that replaces a row.
func overwrite(key string, columns ...string) string {
	sets := make([]string, len(columns))
	for i, c := range columns {
		sets[i] = c + " = excluded." + c
	}
	return "ON CONFLICT (" + key + ") DO UPDATE SET " + strings.Join(sets, ", ")
}

// raise is the clause that keeps the higher of two numbers, column by column.
func raise(key, name string, columns ...string) string {
	sets := make([]string, len(columns))
	for i, c := range columns {
		sets[i] = fmt.Sprintf("%s = greatest(%s.%s, excluded.%s)", c, name, c, c)
	}
	return "ON CONFLICT (" + key + ") DO UPDATE SET " + strings.Join(sets, ", ")
}
