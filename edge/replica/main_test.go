package replica

import (
	"testing"

	"heliograph/infra/embedded/enginetest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }
