package operator_test

import (
	"testing"
	"time"

	"heliograph/infra/embedded/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// wait bounds every question of a test.
const wait = time.Minute
