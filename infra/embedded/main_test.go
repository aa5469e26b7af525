package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"testing"

	"heliograph/infra/embedded"
	"heliograph/infra/embedded/enginetest"
)

// parentEnv makes this test binary a parent that starts the engines under a directory and then waits to be killed.
const parentEnv = "HELIO_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" && os.Getenv("HELIO_ENGINE_CHILD") == "" {
		os.Exit(parent(dir))
	}
	enginetest.Main(m)
}

func parent(dir string) int {
	engines, err := enginetest.FindEngines()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	e, err := embedded.Start(context.Background(), embedded.Options{Dir: dir, EnginesDir: engines})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("pids", e.Pid(embedded.Kafka), e.Pid(embedded.Postgres), e.Pid(embedded.ClickHouse))
	// Until killed, or until the test is gone.
	bufio.NewScanner(os.Stdin).Scan()
	return 0
}
