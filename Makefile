# Every target works from a fresh clone with Python 3.11 or later, and sets up what it needs first.
# Another interpreter: make PYTHON=python3.13 …

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
NPM_DIR := tests/end_to_end
NPM_INSTALLED := $(NPM_DIR)/node_modules/.installed
C_SOURCES := $(wildcard metricslib/*.c metricslib/*.h forwarder/*.c forwarder/*.h)

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format docs bench clean npm-packages

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED)  ## make .venv and install the project and its tools in it

run: $(INSTALLED)  ## start the example shop, with its metrics page
	$(BIN)/python -m examples.shop $(ARGS)

test: $(INSTALLED) npm-packages  ## run all tests with coverage; ARGS="-k name" goes to pytest
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

lint: $(INSTALLED)  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict

format: $(INSTALLED)  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## build the documentation into build/docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "the documentation is in build/docs/index.html"

bench: $(INSTALLED) npm-packages  ## measure calls and lines beside their peers; ARGS="--full", ARGS="calls"
	$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove everything that these commands made
	rm -rf $(VENV) build dist *.egg-info $(NPM_DIR)/node_modules htmlcov .coverage .coverage.*
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f metricslib/*.so forwarder/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is written last: an installation that was interrupted starts over.
$(INSTALLED): setup.cfg setup.py pyproject.toml $(C_SOURCES)
	@command -v $(PYTHON) >/dev/null || { echo "metricslib needs Python 3.11 or later; '$(PYTHON)' was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"metricslib needs Python 3.11 or later; \"$(PYTHON)\" is %d.%d. Try: make PYTHON=python3.11" % sys.version_info[:2])'
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || \
		{ echo "could not make $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[all]'
	@touch $@

# Clients written in JavaScript, for the end-to-end tests. Without npm those tests are skipped (and fail where CI=true).
npm-packages: $(NPM_INSTALLED)

$(NPM_INSTALLED): $(NPM_DIR)/package.json
	@if ! command -v npm >/dev/null; then \
		echo "npm was not found: the tests that need it will be skipped"; \
	elif npm install --prefix $(NPM_DIR) --no-package-lock --no-audit --no-fund --loglevel=error; then \
		touch $@; \
	else \
		echo "npm install failed: the tests that need its packages will be skipped" >&2; test "$$CI" != true; \
	fi
