#!/usr/bin/env bash
# pgo.sh: renews tools/helio/default.pgo, the profile by which `go build` lays helio out. It records the roles of a
# helio dev while `helio bench` loads it, and keeps of the profiles what says nothing of this machine.
#
#   pgo.sh ENGINES [SECONDS]    ENGINES is where `make engines` put them, SECONDS how long each part of the bench is
#                               measured; default 20
set -euo pipefail
HELIO_ENGINES=$(realpath "$1") && export HELIO_ENGINES
cd "$(dirname "$0")/../.." || exit 2
seconds=${2:-20}
work=$(mktemp -d /tmp/pgoXXXXXX) && chmod 755 "$work" # Postgres runs as another user
dev=""
trap '[ -z "$dev" ] || { kill "$dev" && wait "$dev"; } 2>/dev/null || true; rm -rf "$work"' EXIT

CGO_ENABLED=0 go build -trimpath -o "$work/helio" ./tools/helio
any=127.0.0.1:0
"$work/helio" dev --no-canary --data "$work/data" --listen $any --admin $any --pprof $any --kafka-listen $any \
	--postgres-listen $any --clickhouse-listen $any >"$work/out" 2>&1 &
dev=$!
pprof=""
for _ in $(seq 120); do
	pprof=$(sed -n 's/^ *"pprof": "\(.*\)",$/\1/p' "$work/data/dev.json" 2>/dev/null) && [ -n "$pprof" ] && break
	kill -0 "$dev" || { tail "$work/out" >&2 && exit 1; }
	sleep 1
done

# load PART...: runs a part of the bench, and records until it ends
profiles=0
load() {
	"$work/helio" bench "$@" --data "$work/data" --seconds "$seconds" &
	local bench=$!
	while kill -0 $bench 2>/dev/null; do
		profiles=$((profiles + 1))
		curl --fail --silent --show-error -o "$work/$profiles.prof" "http://$pprof/debug/pprof/profile?seconds=5"
	done
	wait $bench
}
load throughput
load latency
load fanout

# Merged, the name of the binary is all that is left of this machine: another of the same length takes its place.
go tool pprof -proto -output="$work/merged" "$work"/*.prof 2>/dev/null
name=heliograph/bin/helio
[ ${#name} = $(expr length "$work/helio") ]
gunzip <"$work/merged" | LC_ALL=C sed "s#$work/helio#$name#g" | gzip -9n >tools/helio/default.pgo
! gunzip <tools/helio/default.pgo | grep -aq "$work\|$PWD\|$HOME/" || { echo "pgo.sh: a path of this machine is left" >&2 && exit 1; }
ls -l tools/helio/default.pgo
