package cluster_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"heliograph/edge/client"
	"heliograph/infra/embedded"
	"heliograph/infra/embedded/enginetest"
	"heliograph/tools/cluster"
)

// TestMain starts nothing: this package's processes are helio's.
func TestMain(m *testing.M) { enginetest.Main(m) }

// patience bounds everything, generously for a busy machine.
const patience = 3 * time.Minute

func build(ctx context.Context, t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "helio")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "heliograph/tools/helio").CombinedOutput()
	if err != nil {
		t.Fatalf("build helio: %v\n%s", err, out)
	}
	return bin
}

func TestCluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	engines, err := enginetest.FindEngines()
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(ctx, cluster.Options{
		Dir: enginetest.Dir(t), Helio: build(ctx, t), EnginesDir: engines, Edges: 1, Deliveries: 1, Partitions: 2,
	})
	if err != nil {
		enginetest.Absent(t, err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	ann := user(ctx, t, c, "+12025550101", "Ann")
	bob := user(ctx, t, c, "+12025550102", "Bob")
	say(ctx, t, ann, bob, "before")

	edge := c.Edge(0)
	pid, addr := edge.Pid(), edge.Addr
	if err := edge.Kill(); err != nil {
		t.Fatal(err)
	}
	if edge.Running() {
		t.Error("the edge runs after Kill")
	}
	if err := edge.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if edge.Pid() == pid || edge.Addr != addr {
		t.Errorf("after a restart: pid %d (was %d), address %s (was %s)", edge.Pid(), pid, edge.Addr, addr)
	}
	if err := c.Role(cluster.Delivery, 0).Restart(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Engine(embedded.Kafka).Kill(); err != nil {
		t.Error(err)
	}
	if err := c.Engine(embedded.Kafka).Restart(ctx); err != nil {
		t.Error(err)
	}
	say(ctx, t, ann, bob, "after")
	if got := c.Unasked(); len(got) > 0 {
		t.Errorf("ended by themselves: %v", got)
	}
}

func user(ctx context.Context, t *testing.T, c *cluster.Cluster, phone, name string) *cluster.User {
	t.Helper()
	u, err := cluster.NewUser(ctx, c, phone, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// say has one user write to the other and waits until it came.
func say(ctx context.Context, t *testing.T, from, to *cluster.User, text string) {
	t.Helper()
	thread, err := from.Direct(to.Me.User)
	if err != nil {
		t.Fatal(err)
	}
	m, err := from.Send(thread, text)
	if err != nil {
		t.Fatal(err)
	}
	for e := range to.Events(ctx) {
		if got, ok := e.(client.Message); ok && got.ID == m {
			return
		}
	}
	t.Fatalf("%q did not come: %v", text, ctx.Err())
}

func TestStartFails(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := cluster.Start(ctx, cluster.Options{Dir: t.TempDir(), Edges: -1}); err == nil {
		t.Error("a cluster of -1 edges without a binary was started")
	}
	_, err := cluster.Start(ctx, cluster.Options{Dir: enginetest.Dir(t), Helio: filepath.Join(t.TempDir(), "none")})
	if err == nil {
		t.Error("a cluster was started from a binary that does not exist")
	}
	if _, err := os.Stat("data"); err == nil {
		t.Error("data lies in the working directory")
	}
}
