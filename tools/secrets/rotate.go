package secrets

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"heliograph/infra/link"
)

// Step is what a call of Rotate has done. In this order they replace the links' authority and certificate while all
// goes on: between two of them the directory is brought to every edge and delivery instance.
type Step int

// The steps, and none.
const (
	// Trust: ca.pem holds a new authority beside the old one. The certificate that it signed waits in the directory
	// next.
	Trust Step = iota + 1
	// Show: link.pem and link.key are the new ones. Whoever has not had Trust refuses them.
	Show
	// Forget: ca.pem holds the new authority alone. Whoever has not had Show is refused.
	Forget
)

// next is where a certificate waits until everybody trusts its authority.
const next = "next"

// Rotate does the next step of replacing what the links are made with. Which one that is, is seen from the files, so it
// goes on after a crash.
func Rotate(dir string) (Step, error) {
	unlock, err := lock(dir)
	if err != nil {
		return 0, err
	}
	defer unlock()
	waiting := filepath.Join(dir, next)
	if _, err := os.Lstat(waiting); err == nil {
		return Show, show(dir, waiting)
	} else if !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("secrets: %w", err)
	}
	if !all(dir, []string{LinkCA, LinkCert, LinkKey}) {
		return 0, fmt.Errorf("secrets: %s has no certificates of the links to replace: 'helio secrets' makes them", dir)
	}
	authorities, err := certificates(filepath.Join(dir, LinkCA))
	if err != nil {
		return 0, err
	}
	shown, err := certificates(filepath.Join(dir, LinkCert))
	if err != nil {
		return 0, err
	}
	var kept []byte
	kinds := 0
	for _, a := range authorities {
		pool := x509.NewCertPool()
		pool.AddCert(a)
		if _, err := shown[0].Verify(x509.VerifyOptions{
			Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, CurrentTime: shown[0].NotBefore,
		}); err == nil {
			kept = append(kept, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Raw})...)
			kinds++
		}
	}
	switch {
	case kinds == 0:
		return 0, fmt.Errorf("secrets: no authority in %s has signed %s: put the right ones there", LinkCA, LinkCert)
	case kinds < len(authorities):
		return Forget, replace(dir, LinkCA, kept)
	default:
		return Trust, trust(dir, waiting)
	}
}

// trust makes an authority with a certificate. The authority comes first: without a certificate that waits, the next
// call forgets it again.
func trust(dir, waiting string) error {
	made, err := links()
	if err != nil {
		return err
	}
	old, err := os.ReadFile(filepath.Join(dir, LinkCA))
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	if err := replace(dir, LinkCA, append(append(bytes.TrimSpace(old), '\n'), made[LinkCA]...)); err != nil {
		return err
	}
	stage := filepath.Join(dir, staged+next)
	err = os.RemoveAll(stage)
	if err == nil {
		err = os.Mkdir(stage, 0o700)
	}
	for _, name := range []string{LinkCert, LinkKey} {
		if err == nil {
			err = write(filepath.Join(stage, name), made[name])
		}
	}
	if err == nil {
		err = os.Rename(stage, waiting)
	}
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

// show gives what waits its names. Between the two renames certificate and key do not belong together: roles that run
// keep those that they have, and the next call goes on.
func show(dir, waiting string) error {
	var names []string
	for _, name := range []string{LinkKey, LinkCert} {
		if _, err := os.Lstat(filepath.Join(waiting, name)); err == nil {
			names = append(names, name)
		}
	}
	return place(dir, waiting, names)
}

// replace gives a file other bytes, all at once.
func replace(dir, name string, b []byte) error {
	stage := filepath.Join(dir, staged+name)
	err := os.RemoveAll(stage)
	if err == nil {
		err = write(stage, b)
	}
	if err == nil {
		err = os.Rename(stage, filepath.Join(dir, name))
	}
	if err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	return nil
}

func certificates(file string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("secrets: %w", err)
	}
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("secrets: %s: %w", file, err)
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("secrets: %s holds no certificate", file)
	}
	return out, nil
}

// CopyLinks brings what a delivery instance needs, the links' files and nothing else, into a directory of its own.
func CopyLinks(dir, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("secrets: %w", err)
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	for _, name := range []string{LinkCA, LinkKey, LinkCert} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("secrets: %w", err)
		}
		if err := replace(to, name, b); err != nil {
			return err
		}
	}
	return nil
}

// LinkTLS names the links' files in a directory of secrets.
func LinkTLS(dir string) link.TLS {
	return link.TLS{
		CAFile:   filepath.Join(dir, LinkCA),
		CertFile: filepath.Join(dir, LinkCert),
		KeyFile:  filepath.Join(dir, LinkKey),
	}
}
