package demo

import "time"

// Step is one thing that happened.
type Step struct {
	// Chapter that it belongs to.
	Chapter string `json:"chapter"`
	// Name says what was done.
	Name string `json:"name"`
	// AtMS is when it was done, since the demo began, and TookMS how long it took; both in milliseconds.
	AtMS   float64 `json:"at_ms"`
	TookMS float64 `json:"took_ms"`
	// Notes tell what was seen.
	Notes []string `json:"notes,omitempty"`
	// Query is SQL that was asked, Table what it answered.
	Query string `json:"query,omitempty"`
	Table *Table `json:"table,omitempty"`
	// Error is why the step failed; the demo ends with it.
	Error string `json:"error,omitempty"`
}

// Table is an answer in columns.
type Table struct {
	Header []string   `json:"header"`
	Rows   [][]string `json:"rows"`
}

// Result of a demo.
type Result struct {
	Steps       []Step           `json:"steps"`
	Views       []ViewComparison `json:"views"`
	Comparisons []Comparison     `json:"comparisons"` // of what was said, and of each device
	// OK tells whether every step was played, no process ended unasked and no place differs from the log.
	OK      bool   `json:"ok"`
	Verdict string `json:"verdict"`
	// TookMS is how long all of it took, in milliseconds.
	TookMS float64 `json:"took_ms"`
}

func millis(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}
