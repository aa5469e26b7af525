package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/jedib0t/go-pretty/v6/table"
)

// outputFlags choose between a table and JSON.
type outputFlags struct {
	Output string `short:"o" help:"table or json." enum:"table,json" default:"table"`
}

// print writes rows as a table, or value as one JSON document.
func (f outputFlags) print(value any, header table.Row, rows []table.Row) error {
	if f.Output == "json" {
		return printJSON(os.Stdout, value)
	}
	writeTable(os.Stdout, header, rows)
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write json: %w", err)
	}
	return nil
}
