# The only interface to this repository; .ci/run calls the same targets.
GO      ?= go
TOOL    := $(GO) tool -modfile=$(CURDIR)/tools/lint/tools.mod
ENGINES ?= .helio/engines
KAFKA   ?= .helio/kafka
ARGS    ?=

# What ships is built without cgo, so the same is tested; only -race needs cgo.
# PARALLEL bounds the packages tested at once: several start real engines, and wait for them most of the time.
# The end-to-end suite kills processes at random points, so it runs alone. PACKAGES names some packages in place of all.
CGO_ENABLED ?= 0
PARALLEL    ?= 3
PACKAGES    ?=
E2E         := ./tools/e2e
FUZZTIME    ?= 10s
export CGO_ENABLED
# Where the tests and bin/helio find what was fetched.
export HELIO_ENGINES    := $(abspath $(ENGINES))
export HELIO_KAFKA_JARS := $(abspath $(KAFKA))

.DEFAULT_GOAL := help
.PHONY: help run demo build check check-quick check-tools test test-fast test-e2e race fuzz bench pgo gen engines kafka clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: engines build ## fetch the engines, build, and run everything in one place with data under .helio/
	exec bin/helio dev $(ARGS)

demo: engines build ## play a conversation with failures on the way and check where every message went
	exec bin/helio demo $(ARGS)

build: ## build bin/helio
	$(GO) build -o bin/helio ./tools/helio

test: engines ## run all tests with the real Postgres and ClickHouse engines (after `make kafka` infra/kafka also on Apache Kafka; HELIO_E2E_LOG=kafka: tools/e2e on it)
ifneq ($(PACKAGES),)
	$(GO) test -p $(PARALLEL) -timeout 20m $(ARGS) $(PACKAGES)
else
	@$(MAKE) --no-print-directory test-fast; fast=$$?; $(MAKE) --no-print-directory test-e2e && exit $$fast
endif

test-fast: engines ## the inner loop: all tests but the end-to-end suite, in under 4 minutes on two cores
	$(GO) test -p $(PARALLEL) -timeout 10m $(ARGS) $$($(GO) list ./... | grep -v '$(E2E:.%=%)$$')

test-e2e: engines ## the end-to-end suite: whole deployments, faults and kills
	$(GO) test -timeout 20m $(ARGS) $(E2E)

race: engines ## the same tests under the race detector
	CGO_ENABLED=1 $(GO) test -race -p $(PARALLEL) -timeout 40m $(ARGS) $(or $(PACKAGES),./...)

fuzz: ## run every fuzz target for FUZZTIME (10s)
	@GO="$(GO)" tools/lint/fuzz.sh $(FUZZTIME)

mutate: engines ## plant known faults one by one and tell which no test notices (ARGS="history zombie" for some)
	@$(GO) run ./tools/lint mutate $(ARGS)

bench: engines build ## measure throughput, latency, fan-out and connections
	exec bin/helio bench $(ARGS)

pgo: engines ## renew tools/helio/default.pgo, by which `make build` optimizes, from a load on this machine: after a change to the hot paths, then commit it
	@tools/helio/pgo.sh $(ENGINES)

check: ## everything that is checked without running tests (STEPS="fmt vet" for some)
	@GO="$(GO)" tools/lint/check.sh $(STEPS)

check-quick: ## the checks that take seconds
	@GO="$(GO)" tools/lint/check.sh fmt vet layers proto breaking gen alerts kubernetes compose

check-tools: ## fetch what `make check` validates the Kubernetes manifests with (needs Python 3 and its venv; promtool is Debian's package prometheus)
	@python3 -m venv .helio/checks && .helio/checks/bin/pip install --quiet --disable-pip-version-check -r tools/lint/requirements.txt

gen: ## regenerate the Go code of the protobufs beside them
	cd schemas && $(TOOL) buf generate

engines: ## fetch the embedded Postgres and ClickHouse
	@infra/embedded/fetch.sh $(ENGINES)

kafka: ## fetch a real Apache Kafka for the tests of infra/kafka, and of tools/e2e with HELIO_E2E_LOG=kafka or CI=true (needs Java 17 and Maven)
	@infra/kafka/real/kafka.sh fetch $(KAFKA)

clean: ## remove what was built (data and engines stay; they are in .helio/)
	rm -rf bin
	$(GO) clean -testcache
