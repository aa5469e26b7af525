package secrets_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"heliograph/infra/link"
	linkv1 "heliograph/schemas/link/v1"
	"heliograph/tools/secrets"
)

// deliver brings the links' files of a directory to an end, as an operator does.
func deliver(t *testing.T, from, to string) {
	t.Helper()
	if err := secrets.CopyLinks(from, to); err != nil {
		t.Fatal(err)
	}
}

// dialing listens and dials with what two directories hold at the handshake, from one start for all steps.
func dialing(t *testing.T, delivery, edge string) (dial func() error, stranger func(dir string) error) {
	t.Helper()
	server, err := secrets.LinkTLS(delivery).Load()
	if err != nil {
		t.Fatal(err)
	}
	client, err := secrets.LinkTLS(edge).Load()
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.Listen("127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- l.Serve(ctx, func(ctx context.Context, end link.DeliveryEnd) error {
			for {
				if _, err := end.Recv(ctx); err != nil {
					return err
				}
				if err := end.SendWait(ctx, new(linkv1.ToEdge)); err != nil {
					return err
				}
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	over := func(d link.QUICDialer) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		end, err := d.Dial(ctx, link.Instance{Name: "d", Addr: l.Addr().String()})
		if err != nil {
			return err
		}
		defer end.Close()
		// In TLS 1.3 the client may learn of the refusal only after its own handshake is done.
		if err := end.Send(ctx, new(linkv1.ToDelivery)); err != nil {
			return err
		}
		_, err = end.Recv(ctx)
		return err
	}
	return func() error { return over(link.QUICDialer{TLS: client}) }, func(dir string) error {
		conf, err := secrets.LinkTLS(dir).Load()
		if err != nil {
			t.Fatal(err)
		}
		return over(link.QUICDialer{TLS: conf})
	}
}

// Whoever has the files of one step gets on with who has those of the step before or after it, and nobody restarts.
func TestRotateBreaksNoLink(t *testing.T) {
	at := t.TempDir()
	master, delivery, edge, old := at+"/master", at+"/delivery", at+"/edge", at+"/old"
	if err := secrets.Ensure(master); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{delivery, edge, old} {
		deliver(t, master, to)
	}
	dial, stranger := dialing(t, delivery, edge)
	before := read(t, old)
	for round, first := range []string{delivery, edge} {
		for _, want := range []secrets.Step{secrets.Trust, secrets.Show, secrets.Forget} {
			step, err := secrets.Rotate(master)
			if err != nil || step != want {
				t.Fatalf("got step %d, %v, want %d", step, err, want)
			}
			for _, to := range []string{first, map[string]string{delivery: edge, edge: delivery}[first]} {
				deliver(t, master, to)
				if err := dial(); err != nil {
					t.Fatalf("round %d, step %d, after %s has it: %v", round, step, filepath.Base(to), err)
				}
			}
		}
		if err := stranger(old); err == nil {
			t.Error("who has the files of before still gets in")
		}
		after := read(t, edge)
		for _, name := range []string{secrets.LinkCA, secrets.LinkCert, secrets.LinkKey} {
			if after[name] == before[name] {
				t.Errorf("%s is as it was", name)
			}
		}
		deliver(t, master, old)
		before = after
	}
	if diff := cmp.Diff([]string{secrets.LinkCA, secrets.LinkKey, secrets.LinkCert}, names(t, delivery)); diff != "" {
		t.Errorf("what a delivery instance gets (-want +got):\n%s", diff)
	}
	all := names(t, master)
	if err := secrets.Ensure(master); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, names(t, master)); diff != "" {
		t.Errorf("rotated secrets are not whole (-before +after):\n%s", diff)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// A pair of which only one half has come is passed over until the other has.
func TestHalfAPair(t *testing.T) {
	at := t.TempDir()
	master, delivery, edge := at+"/master", at+"/delivery", at+"/edge"
	if err := secrets.Ensure(master); err != nil {
		t.Fatal(err)
	}
	deliver(t, master, delivery)
	deliver(t, master, edge)
	dial, _ := dialing(t, delivery, edge)
	for range 2 {
		if _, err := secrets.Rotate(master); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{secrets.LinkCA, secrets.LinkKey, secrets.LinkCert} {
		b, err := os.ReadFile(filepath.Join(master, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{delivery, edge} {
			if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := dial(); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

// Rotate goes on from wherever a process died.
func TestRotateGoesOn(t *testing.T) {
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		dies func(t *testing.T, dir string)
		want []secrets.Step
	}{
		{"before the certificate waits", func(t *testing.T, dir string) {
			move(t, dir+"/next", dir+"/.new-next")
		}, []secrets.Step{secrets.Forget, secrets.Trust, secrets.Show, secrets.Forget}},
		{"between key and certificate", func(t *testing.T, dir string) {
			move(t, dir+"/next/link.key", dir+"/link.key")
		}, []secrets.Step{secrets.Show, secrets.Forget, secrets.Trust}},
		{"before the place where it waited is gone", func(t *testing.T, dir string) {
			move(t, dir+"/next/link.key", dir+"/link.key")
			move(t, dir+"/next/link.pem", dir+"/link.pem")
		}, []secrets.Step{secrets.Show, secrets.Forget, secrets.Trust}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := secrets.Ensure(dir); err != nil {
				t.Fatal(err)
			}
			if step, err := secrets.Rotate(dir); err != nil || step != secrets.Trust {
				t.Fatalf("got %d, %v", step, err)
			}
			tc.dies(t, dir)
			for _, want := range tc.want {
				step, err := secrets.Rotate(dir)
				if err != nil || step != want {
					t.Fatalf("got %d, %v, want %d", step, err, want)
				}
				if want == secrets.Trust || want == secrets.Forget {
					if _, err := secrets.LinkTLS(dir).Load(); err != nil {
						t.Errorf("after step %d: %v", step, err)
					}
				}
			}
		})
	}
	if _, err := secrets.Rotate(t.TempDir()); err == nil {
		t.Error("nothing was rotated")
	}
}
