# Headrace: `make` lists the verbs. Everything lives in .venv; nothing is installed elsewhere.
#
#   make PYTHON=python3.12 …    another interpreter (3.11 or newer)
#   make test ARGS='-k door'    hand arguments through
#   make test JOBS=0            in one process; each of more has a Kafka broker of its own

PYTHON ?= python3
ARGS ?=
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help demo demo-once test simulate alarms browser bench fast test-fast scan-proof isolation fanout-proof \
	recovery-proof chaos mel check sdk fmt schema clean

help: ## list these verbs
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1	\2/p' Makefile | expand -t 20

demo: .venv/.run-stamp ## run the main job on the embedded log, with real purchases
	@.venv/bin/python app.py demo $(ARGS)

demo-once: .venv/.run-stamp ## the same, once through; the last line on stdout is a JSON object
	@.venv/bin/python app.py demo --once $(ARGS)

test: .venv/.dev-stamp ## run the tests, in two processes
	@.venv/bin/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

simulate: .venv/.dev-stamp ## run thousands of seeded runs with crashes; SEEDS=5000, or SEED=n for one told in full
	@.venv/bin/python -m tests.simulation $(if $(SEED),--seed $(SEED) --tell,--seeds $(or $(SEEDS),5000)) $(ARGS)

bench: .venv/.dev-stamp ## measure the product beside stock Faust; ARGS='--help' lists the parts
	@.venv/bin/python -m tests.bench $(ARGS)

fast: .venv/.dev-stamp ## compile what runs for every event (needs a C compiler), prove it, use it from then on
	@.venv/bin/python -c 'import setuptools' 2>/dev/null || $(PIP) setuptools
	@.venv/bin/python -m tests.compiled

test-fast: .venv/.dev-stamp ## run the tests of rules and state on the compiled modules
	@.venv/bin/python -m pytest -p tests.compiled.plugin tests/streams tests/tables tests/channels/sinks $(ARGS)

scan-proof: .venv/.dev-stamp ## a definition over a million users, killed twice, held to an oracle
	@.venv/bin/python -m tests.bench.scan $(ARGS)

isolation: .venv/.dev-stamp ## how late events are while a scan over a million users runs and a provider hangs
	@.venv/bin/python -m tests.compiled.run tests.bench.isolation $(ARGS)

fanout-proof: .venv/.dev-stamp ## a campaign to a million users: times, a kill, a cancelling, events meanwhile; ARGS='--users N'
	@.venv/bin/python -m tests.compiled.run tests.bench.fanout $(ARGS)

recovery-proof: .venv/.dev-stamp ## two workers over a million users: planned restarts, and one killed; ARGS='--help'
	@.venv/bin/python -m tests.bench.recovery $(ARGS)

chaos: .venv/.dev-stamp ## kill the product at every crash point and verify what came out; QUICK=1 for the short run
	@.venv/bin/python -m tests.chaos $(if $(QUICK),--quick) $(ARGS)

mel: .venv/.dev-stamp ## one person's story through every layer, verified; TRANSPORT=kafka, CHAOS=1, SCREENSHOTS=folder
	@.venv/bin/python -m tests.mel $(if $(TRANSPORT),--transport $(TRANSPORT)) $(if $(CHAOS),--chaos $(CHAOS)) \
		$(if $(SCREENSHOTS),--screenshots $(SCREENSHOTS)) $(if $(STAY),--stay) $(ARGS)

alarms: .venv/.dev-stamp ## break a fleet under a real Prometheus: its alerts must fire then, and only then
	@.venv/bin/python -m tests.deploy.alarms $(ARGS)

browser: .venv/.dev-stamp ## the status page in Chromium, on three widths; SCREENSHOTS=folder keeps what was seen
	@$(if $(SCREENSHOTS),mkdir -p $(SCREENSHOTS) && SCREENSHOTS=$(SCREENSHOTS)) \
		.venv/bin/python -m pytest -n 0 tests/browser tests/broker/test_dead_worker_page.py $(ARGS)

sdk: ## build sdk/dist/headrace.js anew and test it (needs node and npm); the built file is committed
	@cd sdk && npm ci --no-audit --no-fund --silent && npm run --silent check && npm run --silent build && npm test

check: .venv/.dev-stamp ## lint, format, types, layers, dependencies, spelling
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo --no-cache
	.venv/bin/deptry .
	.venv/bin/codespell .

fmt: .venv/.dev-stamp ## format, and fix what can be fixed
	.venv/bin/ruff check --fix-only --show-fixes .
	.venv/bin/ruff format .

schema: .venv/.run-stamp ## write docs/definitions.schema.json anew
	@.venv/bin/python app.py definitions schema > docs/definitions.schema.json.new
	@mv docs/definitions.schema.json.new docs/definitions.schema.json

clean: ## remove the environment and the caches, never your data
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the environment: .made = the venv stands, .run-stamp = enough to run, .dev-stamp = enough to change

PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -c config/constraints.txt

# $(call requirements,["key"]["key"]): print that list of pyproject.toml, one requirement a line.
requirements = .venv/bin/python -c 'import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))$(1), sep="\n")'

# A venv whose interpreter is gone (a moved checkout, a removed Python) is made again.
$(shell test -x .venv/bin/python || rm -f .venv/.made)

.venv/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "headrace needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) -V 2>&1 || true)" >&2; \
		echo "If you have a newer one, name it: make PYTHON=python3.12 …" >&2; exit 1; }
	@rm -rf .venv
	@$(PYTHON) -m venv .venv >&2 || { \
		echo "headrace: $(PYTHON) cannot make a venv (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@touch $@

# While pip runs, .made stands aside: an interrupted installation is started afresh by the next make.
.venv/.run-stamp: .venv/.made pyproject.toml config/constraints.txt
	@echo 'headrace: installing what it needs into .venv (a minute, the first time)' >&2
	@mv .venv/.made .venv/.busy
	@$(call requirements,["project"]["dependencies"]) > .venv/run.txt
	@$(call requirements,["dependency-groups"]["data"]) > .venv/data.txt
	@$(PIP) -r .venv/run.txt >&2
	@$(PIP) --no-deps -r .venv/data.txt >&2
	@mv .venv/.busy .venv/.made
	@touch $@

.venv/.dev-stamp: .venv/.run-stamp
	@echo 'headrace: installing the tools for tests and checks into .venv' >&2
	@mv .venv/.made .venv/.busy
	@$(call requirements,["dependency-groups"]["dev"]) > .venv/dev.txt
	@$(call requirements,["dependency-groups"]["dev-data"]) > .venv/dev-data.txt
	@$(PIP) -r .venv/dev.txt >&2
	@$(PIP) --no-deps -r .venv/dev-data.txt >&2
	@mv .venv/.busy .venv/.made
	@touch $@
