# Flash Studio: `make` lists what can be done. Needs Python 3.11 or newer with venv; everything else is installed.

PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do command -v $$name && break; done)
VENV ?= .venv
# Installed first, so that one may choose another build. Must fit requirements.txt.
TORCH ?= torch==2.13.0
ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --disable-pip-version-check --progress-bar off --quiet
IN_VENV := PATH="$(abspath $(VENV))/bin:$$PATH"
FIND_CHROMIUM := for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name && break; done
# Tells the program after it where that is.
WITH_CHROMIUM = chromium="$${CHROMIUM:-$$($(FIND_CHROMIUM))}"; if [ -n "$$chromium" ]; then export CHROMIUM="$$chromium"; fi;

.DEFAULT_GOAL := help
.PHONY: help run test check format bench chromium

help: ## list what can be done
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo '  ARGS="..." is handed on, as in: make run ARGS="--port 7861"; make test ARGS="-k seed"'

run: $(VENV)/.runs ## set up what is missing, then open the page
	@$(PY) app.py $(ARGS)

test: $(VENV)/.tests chromium ## run every test, with those in a browser
	@$(WITH_CHROMIUM) \
	$(IN_VENV) $(PY) -m pytest $(ARGS)

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
