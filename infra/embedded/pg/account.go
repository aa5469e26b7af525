package pg

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"heliograph/infra/embedded/engine"
)

// account is the user as which the server runs. The zero value is the user of this process.
type account struct {
	name     string
	uid, gid uint32
}

// serverAccount is this process's user, or as root the first of the users postgres and nobody that exists.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil && uid != 0 {
			return account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return account{}, &engine.Error{
		Engine: engine.Postgres, Fault: engine.Failed,
		Reason: "PostgreSQL refuses to run as root and there is no user postgres or nobody to run it as",
		Mend:   "run helio as an ordinary user, or create one with 'useradd --system postgres'",
	}
}

// RunsAs is the user that the server runs as where that is another than ours: it refuses to be root.
func RunsAs() string {
	a, err := serverAccount()
	if err != nil {
		return "" // Run tells it
	}
	return a.name
}

// other says whether the server runs as another user than this process.
func (a account) other() bool { return a.name != "" }

func (a account) credential() *syscall.Credential {
	if !a.other() {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid}
}

// reaches checks that the account can pass through dir and every directory above it.
func (a account) reaches(dir string) error {
	if !a.other() {
		return nil
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return engine.DiskError(engine.Postgres, dir, err)
	}
	for d := real; ; d = filepath.Dir(d) {
		info, err := os.Stat(d)
		if err != nil {
			return engine.DiskError(engine.Postgres, d, err)
		}
		if !a.passes(info) {
			return &engine.Error{
				Engine: engine.Postgres, Fault: engine.Unreachable,
				Reason: fmt.Sprintf("PostgreSQL refuses to run as root, and the user %s cannot pass through %s to %s",
					a.name, d, dir),
				Mend: fmt.Sprintf("run 'chmod o+x %s', run helio as an ordinary user, "+
					"or choose other places with --data DIR and --engines DIR", d),
			}
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

func (a account) passes(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	switch {
	case st.Uid == a.uid:
		return info.Mode()&0o100 != 0
	case st.Gid == a.gid:
		return info.Mode()&0o010 != 0
	default:
		return info.Mode()&0o001 != 0
	}
}

// own gives the directory tree to the account, as far as it does not have it already.
func (a account) own(dir string) error {
	if !a.other() {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == a.uid && st.Gid == a.gid {
			return nil
		}
		return os.Lchown(path, int(a.uid), int(a.gid))
	})
}
