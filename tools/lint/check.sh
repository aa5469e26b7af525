#!/usr/bin/env bash
# check.sh [STEP ...]: all that is checked without running tests, or only the steps
# named. Every step runs, whatever the others found; the last lines name those that
# failed, and those that had nothing to check with. Nothing in the tree is changed.
set -u
cd "$(dirname "$0")/../.." || exit 2
go=${GO:-go}
tool() { "$go" tool -modfile="$PWD/tools/lint/tools.mod" "$@"; }
buf() { (cd schemas && "$go" tool -modfile=../tools/lint/tools.mod buf "$@"); }
unchecked=77 # what a step returns that could not check
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT

gofiles() { find . -path './.*' -prune -o -name node_modules -prune -o -name '*.go' -print; }

step_fmt() { # gofmt
	local unformatted
	unformatted=$(gofiles | xargs gofmt -l -s) || return 1
	[ -z "$unformatted" ] || { echo "$unformatted"; echo "run: gofmt -s -w on the files above"; return 1; }
}
step_vet() { "$go" vet ./...; }           # go vet
step_static() { tool staticcheck ./...; } # staticcheck
step_lint() { tool golangci-lint run --allow-parallel-runners; } # golangci-lint
step_layers() { "$go" run ./tools/lint; } # imports between the stages, names, comments, where the stores are asked
step_proto() { buf lint; }                # buf lint

# The contract is what clients and logs out there hold: the last release. Before the first
# release it is the commit where this branch left main, or, on main, the previous commit.
base() {
	local main head
	if [ -n "${BREAKING_BASE:-}" ]; then
		echo "$BREAKING_BASE"
		return
	fi
	git describe --tags --abbrev=0 2>/dev/null && return
	head=$(git rev-parse -q --verify HEAD 2>/dev/null) || return 1
	main=$(git merge-base HEAD origin/main 2>/dev/null || git merge-base HEAD main 2>/dev/null)
	if [ -n "$main" ] && [ "$main" != "$head" ]; then
		echo "$main"
		return
	fi
	git rev-parse -q --verify HEAD^ 2>/dev/null
}
step_breaking() { # buf breaking against the last release, main or the previous commit
	local base
	if ! base=$(base); then
		echo "no earlier commit is here (a new or shallow clone): nothing to compare with"
		return $unchecked
	fi
	if ! git cat-file -e "$base^{commit}" 2>/dev/null; then
		echo "$base is not a commit of this clone"
		return 1
	fi
	if ! git cat-file -e "$base:schemas/buf.yaml" 2>/dev/null; then
		echo "$base has no schemas yet: nothing to compare with"
		return 0
	fi
	mkdir -p "$work/base" && git archive "$base" schemas | tar -x -C "$work/base" || return 1
	if ! find "$work/base" -name '*.proto' | grep -q .; then
		echo "$base has no schemas yet: nothing to compare with"
		return 0
	fi
	buf breaking --against "$work/base/schemas" || { echo "compared with $base"; return 1; }
}
step_gen() { # generated code is current
	local out="$work/gen" stale=0 file
	mkdir -p "$out" && buf generate --output "$out" || return 1
	while read -r file; do
		cmp -s "schemas/$file" "$out/$file" || { echo "schemas/$file is stale, or its .proto is gone"; stale=1; }
	done < <({ (cd schemas && find . -name '*.pb.go'); (cd "$out" && find . -name '*.pb.go'); } | sed 's|^\./||' | sort -u)
	[ $stale = 0 ] || { echo "run: make gen"; return 1; }
}
step_mod() { # go.mod and go.sum are tidy
	"$go" mod verify && "$go" mod tidy -diff
}
step_alerts() { # the alert rules, and what they do on series
	if ! command -v promtool >/dev/null; then
		echo "promtool is not here (Debian: apt-get install prometheus): the alert rules were not tried on series"
		return $unchecked
	fi
	{ promtool check rules infra/deploy/alerts.yaml && promtool test rules infra/deploy/alerts_test.yaml; } >"$work/promtool" 2>&1 ||
		{ cat "$work/promtool"; return 1; }
}
step_kubernetes() { # the manifests against Kubernetes' own schemas
	local validate="${HELIO_CHECKS:-.helio/checks}/bin/kubernetes-validate"
	[ -x "$validate" ] || validate=$(command -v kubernetes-validate) || {
		echo "kubernetes-validate is not here (make check-tools takes it from PyPI): the manifests were not validated"
		return $unchecked
	}
	"$validate" --strict infra/deploy/kubernetes.yaml >"$work/kubernetes" 2>&1 || { grep -v '^INFO' "$work/kubernetes"; return 1; }
}
step_compose() { # the compose file, as docker compose loads it
	tool github.com/compose-spec/compose-go/v2/cmd infra/deploy/compose.yaml >"$work/compose" 2>&1 || { cat "$work/compose"; return 1; }
}
step_vuln() { # known vulnerabilities, when the database can be reached
	local status
	tool govulncheck ./... >"$work/vuln" 2>&1
	status=$?
	if [ $status != 0 ] && grep -qE 'fetching vulnerabilities|no such host|dial tcp|HTTP GET' "$work/vuln"; then
		echo "the vulnerability database cannot be reached from here: no known vulnerability was looked for"
		grep -m1 -E 'fetching vulnerabilities|no such host|dial tcp|HTTP GET' "$work/vuln"
		return $unchecked
	fi
	cat "$work/vuln"
	[ $status = 0 ] || return 1
}

all="fmt vet layers proto breaking gen mod alerts kubernetes compose static lint vuln"
failed="" without=""
for step in ${*:-$all}; do
	if ! declare -F "step_$step" >/dev/null; then
		echo "check.sh: no step '$step'; there are: $all" >&2
		exit 2
	fi
	SECONDS=0
	"step_$step" >"$work/out" 2>&1
	case $? in
	0) printf 'ok    %-9s %4ds\n' "$step" $SECONDS ;;
	"$unchecked")
		printf 'none  %-9s %4ds\n' "$step" $SECONDS
		without="$without $step"
		;;
	*)
		printf 'FAIL  %-9s %4ds\n' "$step" $SECONDS
		failed="$failed $step"
		;;
	esac
	sed 's/^/      /' "$work/out"
done
[ -z "$without" ] || echo "check: not checked:$without"
if [ -n "$failed" ]; then
	echo "check: failed:$failed" >&2
	exit 1
fi
echo "check: passed"
