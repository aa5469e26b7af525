package history

import (
	"errors"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"

	"heliograph/infra/kafka"
	"heliograph/projector"
)

// TestDamageNamesItsWayOut: a damaged part stops the slot for good, with the view and the command that rebuilds it.
func TestDamageNamesItsWayOut(t *testing.T) {
	err := (&store{}).Classify(&clickhouse.Exception{Code: 40, Message: "Checksum does not match"})
	var d *projector.DamagedError
	if !kafka.IsPermanent(err) || !errors.As(err, &d) || !strings.Contains(err.Error(), "helio replay clickhouse") ||
		!strings.Contains(err.Error(), "Checksum") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if err := (&store{}).Classify(&clickhouse.Exception{Code: 60}); !kafka.IsPermanent(err) || errors.As(err, &d) {
		t.Errorf("another failure: %v", err)
	}
}
