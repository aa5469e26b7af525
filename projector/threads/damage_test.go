package threads

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"heliograph/infra/kafka"
	"heliograph/projector"
)

// TestDamageNamesItsWayOut: a damaged page stops the slot for good, with the view and the command that rebuilds it.
func TestDamageNamesItsWayOut(t *testing.T) {
	err := (&store{}).Classify(&pgconn.PgError{Code: "XX001", Message: "invalid page in block 0 of relation 1"})
	var d *projector.DamagedError
	if !kafka.IsPermanent(err) || !errors.As(err, &d) || !strings.Contains(err.Error(), "helio replay postgres") ||
		!strings.Contains(err.Error(), "invalid page") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if err := (&store{}).Classify(&pgconn.PgError{Code: "23505"}); !kafka.IsPermanent(err) || errors.As(err, &d) {
		t.Errorf("another failure: %v", err)
	}
}
