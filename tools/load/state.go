package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"heliograph/edge/client"
)

// saved is a user as it stands in the state file.
type saved struct {
	Phone    string          `json:"phone"`
	Identity client.Identity `json:"identity"`
}

// state is the file of registered users of one deployment; it holds their keys.
type state struct {
	// Base is the first phone number, drawn at random so that runs without a state file do not register each other's
	// numbers again.
	Base  int64   `json:"base"`
	Users []saved `json:"users"`
}

// phone returns the number of the i-th user: a German mobile number that may be assigned.
func (s *state) phone(i int) string { return fmt.Sprintf("+49151%08d", (s.Base+int64(i))%100_000_000) }

func loadState(path string) (*state, error) {
	fresh := &state{Base: rand.Int64N(100_000_000)}
	if path == "" {
		return fresh, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("state file %s is damaged (remove it to register anew): %w", path, err)
	}
	return &s, nil
}

func (s *state) save(path string) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
