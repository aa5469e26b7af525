package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"heliograph/schemas/wire"
	wirev1 "heliograph/schemas/wire/v1"
)

// TestStrangersTriesLockNobodyOut: whatever others ask and try for a number, from anywhere, the device that its owner
// asked with registers.
func TestStrangersTriesLockNobodyOut(t *testing.T) {
	w := newWorld(t, Config{PinInterval: time.Nanosecond})
	owner := newApplicant(t)
	if _, err := w.RequestPin(t.Context(), owner.asks(number), here); err != nil {
		t.Fatal(err)
	}
	pin := w.pins[number]
	for k := range 8 {
		there := netip.AddrFrom4([4]byte{198, 51, byte(k), 1})
		stranger := newApplicant(t)
		for _, ask := range []*wirev1.RequestPin{stranger.asks(number), asking(number)} {
			if _, err := w.RequestPin(t.Context(), ask, there); err != nil {
				t.Fatal(err)
			}
		}
		for range 6 {
			_, err := w.Register(
				t.Context(), stranger.registers(number, wrong(w.pins[number])), nonce, exporter, there,
			)
			wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
		}
		// the owner's PIN is nothing to another's key
		_, err := w.Register(t.Context(), stranger.registers(number, pin), nonce, exporter, there)
		wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
	}
	if _, err := w.Register(t.Context(), owner.registers(number, pin), nonce, exporter, here); err != nil {
		t.Errorf("the owner, after strangers' tries: %v", err)
	}
}

// TestStrangersUseUpNoSMSOfHome: a number's owner gets a PIN in a network from which he registered it, when strangers
// have used up all that others may ask for it.
func TestStrangersUseUpNoSMSOfHome(t *testing.T) {
	w := newWorld(t, Config{PinInterval: time.Nanosecond, PerNumber: Rate{4, time.Hour}, PerRange: Rate{6, time.Hour}})
	owner := newApplicant(t)
	if _, err := w.RequestPin(t.Context(), owner.asks(number), here); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Register(
		t.Context(), owner.registers(number, w.pins[number]), nonce, exporter, here,
	); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for k := range 8 {
		_, err := w.RequestPin(t.Context(), newApplicant(t).asks(number), netip.AddrFrom4([4]byte{198, 51, byte(k), 1}))
		if errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_RATE_LIMITED}) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused != 5 {
		t.Errorf("%d of 8 strangers' requests were refused, want 5", refused)
	}
	if _, err := w.RequestPin(t.Context(), newApplicant(t).asks(number), here); err != nil {
		t.Errorf("the owner at home: %v", err)
	}
	_, err := w.RequestPin(t.Context(), newApplicant(t).asks("+4915112345679"), here)
	if err != nil {
		t.Errorf("a number whose home this is not is not judged by its own budgets: %v", err)
	}
}

// TestGuessesAtANumber: a number at which is guessed from everywhere gives each PIN one try, and its owner, who has the
// PIN, needs no more.
func TestGuessesAtANumber(t *testing.T) {
	w := newWorld(t, Config{PinInterval: time.Nanosecond, guesses: Rate{3, time.Hour}})
	for k := range 4 {
		there, stranger := netip.AddrFrom4([4]byte{198, 51, byte(k), 1}), newApplicant(t)
		if _, err := w.RequestPin(t.Context(), stranger.asks(number), there); err != nil {
			t.Fatal(err)
		}
		_, err := w.Register(t.Context(), stranger.registers(number, wrong(w.pins[number])), nonce, exporter, there)
		wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
		if k < 3 {
			continue
		}
		_, err = w.Register(t.Context(), stranger.registers(number, w.pins[number]), nonce, exporter, there)
		wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
	}
	owner := newApplicant(t)
	if _, err := w.RequestPin(t.Context(), owner.asks(number), here); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Register(
		t.Context(), owner.registers(number, w.pins[number]), nonce, exporter, here,
	); err != nil {
		t.Errorf("the owner: %v", err)
	}
}

// TestAddresses: wrong tries and PINs count by address, and in IPv6 by the /64 and the /48; right PINs cost no try.
func TestAddresses(t *testing.T) {
	w := newWorld(t, Config{WrongPins: Rate{3, time.Hour}})
	for name, c := range map[string]struct {
		address func(k int) string
		tries   int // that may be wrong
	}{
		"one address":         {func(int) string { return "198.51.100.7" }, 3},
		"one address, mapped": {func(int) string { return "::ffff:198.51.100.7" }, 3},
		"neighbours":          {func(k int) string { return fmt.Sprintf("198.51.100.%d", k) }, 14},
		"one /64":             {func(k int) string { return fmt.Sprintf("2001:db8:1:2::%x", k) }, 3},
		"one /48":             {func(k int) string { return fmt.Sprintf("2001:db8:1:%x::1", k) }, 3 * networkShare},
		"many /48":            {func(k int) string { return fmt.Sprintf("2001:db8:%x::1", k) }, 14},
		"zones":               {func(k int) string { return fmt.Sprintf("fe80::1%%eth%d", k) }, 3},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := w.pool.Exec(t.Context(), `TRUNCATE limits, device_pins, homes`); err != nil {
				t.Fatal(err)
			}
			got := 0
			for k := range 14 {
				there := netip.MustParseAddr(c.address(k + 1))
				if k < 5 {
					me, other := newApplicant(t), fmt.Sprintf("+4915112345%d00", k+1)
					if _, err := w.RequestPin(t.Context(), me.asks(other), there); err != nil {
						t.Fatal(err)
					}
					if _, err := w.Register(
						t.Context(), me.registers(other, w.pins[other]), nonce, exporter, there,
					); err != nil && got < c.tries {
						t.Fatal(err)
					}
				}
				_, err := w.Register(t.Context(), registration(t, number, "123456"), nonce, exporter, there)
				if errors.Is(err, &wire.Error{Code: wirev1.Code_CODE_AUTHENTICATION_FAILED}) {
					got++
				}
			}
			if got != c.tries {
				t.Errorf("%d wrong tries were judged, want %d", got, c.tries)
			}
		})
	}
}

// TestRefusedPinsTakeTheSameTime: a PIN that is wrong, dead, used, expired or was never sent is answered after the same
// time, so that time tells nothing of a number.
func TestRefusedPinsTakeTheSameTime(t *testing.T) {
	w := newWorld(t, Config{refusedAfter: time.Hour, WrongPins: Rate{1000, time.Hour}})
	var waited []time.Duration
	w.until = func(_ context.Context, moment time.Time) { waited = append(waited, time.Until(moment)) }
	me := newApplicant(t)
	if _, err := w.RequestPin(t.Context(), me.asks(number), here); err != nil {
		t.Fatal(err)
	}
	refusals := 0
	refuse := func(number, pin string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := w.Register(ctx, me.registers(number, pin), nonce, exporter, here)
		wantCode(t, err, wirev1.Code_CODE_AUTHENTICATION_FAILED)
		refusals++
	}
	refuse(number, wrong(w.pins[number]))
	refuse("+33612345678", "123456")
	if _, err := w.Register(t.Context(), me.registers(number, w.pins[number]), nonce, exporter, here); err != nil {
		t.Fatal(err)
	}
	refuse(number, w.pins[number]) // used, by another device
	if _, err := w.pool.Exec(t.Context(), `UPDATE device_pins SET expires = now(), used_by = NULL`); err != nil {
		t.Fatal(err)
	}
	refuse(number, w.pins[number])
	if len(waited) != refusals {
		t.Fatalf("%d of %d refusals waited", len(waited), refusals)
	}
	for _, d := range waited {
		if d < 59*time.Minute || d > time.Hour {
			t.Errorf("waited %v, want the rest of an hour", d)
		}
	}
}

// TestBudgetsAreSeen: what an alert watches is there before the first refusal, and says which country it was.
func TestBudgetsAreSeen(t *testing.T) {
	w := newWorld(t, Config{PerCountry: Rate{1, time.Hour}, PerDeployment: Rate{48, 48 * time.Hour}})
	reg := prometheus.NewRegistry()
	reg.MustRegister(w.metrics.refused, w.metrics.unpaid, w.metrics.budget)
	before := map[string]float64{
		"helio_auth_refusals_total limit_country":    0,
		"helio_auth_refusals_total limit_deployment": 0,
		"helio_auth_sms_budget":                      24,
	}
	series := func() map[string]float64 {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				if _, watched := before[name]; watched || value(m) != 0 { // others are there at 0 too
					out[name] = value(m)
				}
			}
		}
		return out
	}
	if diff := cmp.Diff(before, series()); diff != "" {
		t.Errorf("at the start: -want +got\n%s", diff)
	}
	for k := range 2 {
		_, err := w.RequestPin(t.Context(), asking(fmt.Sprintf("+4915112345%d00", k+1)), here)
		if (err != nil) != (k > 0) {
			t.Errorf("request %d: %v", k, err)
		}
	}
	before["helio_auth_refusals_total limit_country"] = 1
	before["helio_auth_sms_over_budget_total DE"] = 1
	if diff := cmp.Diff(before, series()); diff != "" {
		t.Errorf("after a refusal: -want +got\n%s", diff)
	}
}

func value(m *dto.Metric) float64 { return m.GetCounter().GetValue() + m.GetGauge().GetValue() }

// TestGateway: PINs and credentials never cross a network in the clear.
func TestGateway(t *testing.T) {
	for u, ok := range map[string]bool{
		"https://sms.example/send":      true,
		"http://127.0.0.1:8080/send":    true,
		"http://localhost/send":         true,
		"http://[::1]:8080/":            true,
		"http://127.9.9.9/":             true,
		"http://sms.example/send":       false,
		"http://10.0.0.1/send":          false,
		"http://localhost.example/":     false,
		"http://127.0.0.1.example/":     false,
		"http://user@sms.example/":      false,
		"http://localhost@sms.example/": false,
		"ftp://127.0.0.1/":              false,
		"https:///send":                 false,
		"sms.example":                   false,
		"":                              false,
	} {
		if _, err := NewGatewaySender(u, nil); (err == nil) != ok {
			t.Errorf("%q: %v", u, err)
		} else if err != nil && strings.Contains(err.Error(), "user@") {
			t.Errorf("%q: the error shows credentials: %v", u, err)
		}
	}
	srv := httptest.NewServer(http.RedirectHandler("http://sms.example/", http.StatusTemporaryRedirect))
	defer srv.Close()
	g, err := NewGatewaySender(srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Send(t.Context(), number, "text", "123456"); err == nil || !strings.Contains(err.Error(), "clear") &&
		!strings.Contains(err.Error(), "network") {
		t.Errorf("redirected to http elsewhere: %v", err)
	}
}
