# Flash Studio: `make` lists what can be done. Needs Python 3.11 or newer with venv; everything else is installed.

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do command -v $$name && break; done)
VENV ?= .venv
# Installed first, so that one may choose another build. Must fit requirements.txt.
TORCH ?= torch==2.13.0
ARGS ?=
# Tests run in so many processes, each with a core of its own.
WORKERS ?= 2

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --progress-bar off --quiet
IN_VENV := PATH="$(abspath $(VENV))/bin:$$PATH"
FIND_CHROMIUM := for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name && break; done
# Tells the program after it where that is.
WITH_CHROMIUM = chromium="$${CHROMIUM:-$$($(FIND_CHROMIUM))}"; if [ -n "$$chromium" ]; then export CHROMIUM="$$chromium"; fi;

.DEFAULT_GOAL := help
.PHONY: help run test test-full test-long check format bench chromium postgres

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile
	@echo '  ARGS="..." is handed on, as in: make run ARGS="--port 7861"; make test ARGS="-k seed"'

run: $(VENV)/.runs ## set up what is missing, then open the page
	@$(PY) app.py $(ARGS)

# Those in a browser come last and by themselves: a page that shares its machine is too slow for them now and then.
test: $(VENV)/.tests chromium postgres ## run every test, with those in a browser
ifeq ($(ARGS),)
	@status=0; \
	OMP_NUM_THREADS=1 $(IN_VENV) $(PY) -m pytest -n $(WORKERS) --dist loadgroup --ignore tests/browser $(TIER) || status=1; \
	$(WITH_CHROMIUM) \
	$(IN_VENV) $(PY) -m pytest tests/browser $(TIER) || status=1; \
	exit $$status
else
	@$(WITH_CHROMIUM) \
	OMP_NUM_THREADS=1 $(IN_VENV) $(PY) -m pytest -n $(WORKERS) --dist loadgroup $(TIER) $(ARGS)
endif

test-full: TIER := -m 'not long'
test-full: test ## run that and more: many faults and inputs, for up to 20 minutes

test-long: TIER := -m ''
test-long: test ## run all: a million inputs, hundreds of kills, ten minutes of visitors

check: $(VENV)/.tests ## check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(IN_VENV) $(PY) -m pyright --pythonpath $(PY)

format: $(VENV)/.tests ## put the code into shape
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(VENV)/.tests chromium ## measure speed and accuracy on this machine
	$(PY) bench/generation_vs_diffusers.py
	@$(WITH_CHROMIUM) \
	$(PY) bench/page.py
	$(PY) bench/formats.py
	$(PY) bench/pocket_accuracy.py
	$(PY) -m bench.checker_accuracy

# Debian's own Chromium, where we may install it.
chromium:
	@if [ -z "$$CHROMIUM" ] && [ -z "$$($(FIND_CHROMIUM))" ]; then \
		if [ "$$(id -u)" = 0 ] && grep -qs '^ID=debian' /etc/os-release; then \
			echo "Installing Chromium"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
				--no-install-recommends chromium fonts-dejavu-core >/dev/null </dev/null || true; \
		fi; \
		[ -n "$$($(FIND_CHROMIUM))" ] || echo "No Chromium: the tests in a browser are skipped." \
			"Install Chromium or Chrome, or set CHROMIUM to its path."; \
	fi

# Debian's own PostgreSQL, where we may install it: the ledger promises the same in it.
postgres:
	@if [ "$$(id -u)" = 0 ] && grep -qs '^ID=debian' /etc/os-release && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
		echo "Installing PostgreSQL"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
			--no-install-recommends postgresql >/dev/null </dev/null || true; \
	fi

# A folder without pip is what a Python without venv leaves; it is tried again.
$(PY):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON to its path."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version) is too old; set PYTHON to the path of 3.11 or newer."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runs: requirements.txt | $(PY)
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing what the studio runs on, for a few minutes"
	$(PIP) $(TORCH)
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.tests: requirements-dev.txt $(VENV)/.runs
	@echo "Installing what the tests need"
	$(PIP) -r requirements-dev.txt
	@touch $@
