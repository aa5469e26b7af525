#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target of the module for TIME (10s, 1m), one after
# the other. A find is written to the package's testdata: commit it with the fix.
# Shortening an input gets a second instead of a minute: the logs that some targets
# begin with are long, and they would spend all of TIME on the first new one.
set -u
cd "$(dirname "$0")/../.." || exit 2
time=${1:-10s}
failed=()
count=0
while IFS=: read -r file target; do
	count=$((count + 1))
	echo "== $target in $(dirname "$file") for $time"
	"${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 1s "./$(dirname "$file")" || failed+=("$target in $(dirname "$file")")
done < <(grep -rEo --include='*_test.go' --exclude-dir='.*' --exclude-dir=node_modules '^func Fuzz[A-Za-z0-9_]*' \
	schemas infra ingest edge projector delivery tools | sed 's/func //' | sort)
if [ ${#failed[@]} -gt 0 ]; then
	printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
echo "fuzz: $count targets, nothing found"
