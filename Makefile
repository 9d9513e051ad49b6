# Every target works from a fresh clone with Python 3.11 or later, and sets up what it needs first.
# Another interpreter: make PYTHON=python3.13 …

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Tests of one xdist_group stay together. One at a time, with a debugger: ARGS="-n 0 --pdb".
PYTEST := $(BIN)/python -m pytest -n auto --dist loadgroup
NPM_DIR := tests/end_to_end
NPM_INSTALLED := $(NPM_DIR)/node_modules/.installed
SANITIZED := build/sanitized
SECONDS := 60
SEED :=
# Tests that run both implementations themselves, or have to do with neither.
NOT_PURE := $(addprefix tests/test_,benchmarks.py budget.py docs.py docs_commands.py layers.py hints.py hostile.py need.py \
		out_of_memory.py packaging.py implementations.py) \
	$(addprefix tests/forwarder/test_,config.py config_file.py statsd_import.py javascript.py aggregator_hostile.py \
		aggregator_implementations.py aggregator_new_keys.py aggregator_routes.py)
PURE_TESTS := $(filter-out $(NOT_PURE),$(wildcard tests/test_*.py tests/instruments/test_*.py tests/forwarder/test_*.py)) \
	tests/conformance/test_conformance.py
SANITIZED_TESTS := tests/instruments $(addprefix tests/test_,implementations.py sketch.py decorators.py decorators_calls.py exactness.py \
		fork.py hostile.py) \
	$(addprefix tests/forwarder/test_,aggregator.py aggregator_implementations.py aggregator_hostile.py listeners_udp.py)
WITH_SANITIZERS = METRICSLIB_PURE=0 PYTHONMALLOC=malloc PYTHONHASHSEED=0 ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)"
C_SOURCES := $(wildcard metricslib/native/*.[ch] forwarder/native/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help setup run screenshots test test-pure coverage faults matrix sanitized sanitize fuzz fuzz-types hostile soak lint format docs bench clean npm-packages

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(INSTALLED)  ## make .venv and install the project and its tools in it

run: $(INSTALLED)  ## start the example shop, with its metrics page
	$(BIN)/python -m examples.shop $(ARGS)

screenshots: $(INSTALLED)  ## take the pictures of README and documentation anew, from an hour of the example shop
	$(BIN)/python -m examples.shop.screenshots docs/_static

test: $(INSTALLED) npm-packages  ## run all tests, one more at a time than there are processors, for most of them wait for something; ARGS="-k name" goes to pytest
	$(PYTEST) -n $$(($$(nproc) + 1)) $(ARGS)

coverage: $(INSTALLED) npm-packages  ## run all tests, one at a time, and show which lines and branches they miss
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

test-pure: $(INSTALLED) npm-packages  ## run the tests of what is implemented in C, too once more, without C
	METRICSLIB_PURE=1 $(PYTEST) $(PURE_TESTS) $(ARGS)

faults: $(INSTALLED)  ## run the fault suite, with the runs that take minutes
	$(BIN)/python -m pytest -m "faults or not faults" tests/faults tests/delivery/test_faults.py $(ARGS)

matrix: $(INSTALLED)  ## send requests to every server in every way to run it, and read them back from a real carbon
	$(PYTEST) -m "matrix or not matrix" tests/matrix tests/end_to_end/test_mounted.py $(ARGS)

# A copy of the packages, built for the sanitizers, is what the tests find first. Python itself leaks at its end, and
# greenlets copy stacks, which the sanitizer cannot know to be right.
sanitized: $(INSTALLED)
	METRICSLIB_BUILD=require METRICSLIB_CFLAGS="-Werror -O1 -g -fsanitize=address,undefined -fno-sanitize-recover" \
		$(BIN)/python setup.py --quiet build --build-base $(SANITIZED)/objects --build-lib $(SANITIZED)/lib

sanitize: sanitized  ## run the C implementation under the address, undefined-behaviour and thread sanitizers
	$(WITH_SANITIZERS) $(PYTEST) -o pythonpath="$(SANITIZED)/lib ." -p no:cacheprovider -k "not greenlet and not gevent" \
		$(SANITIZED_TESTS) $(ARGS)
	for part in cell table; do for sanitizer in thread address,undefined; do \
		$(CC) -std=c11 -O1 -g -Wall -Wextra -Werror -Wno-maybe-uninitialized -fsanitize=$$sanitizer -fno-sanitize-recover \
			-pthread -DCELL_ATOMIC -Imetricslib/native -Iforwarder/native tests/c/stress_$$part.c -lm \
			-o $(SANITIZED)/stress_$$part && $(SANITIZED)/stress_$$part || exit 1; \
	done; done

fuzz: $(INSTALLED)  ## feed both implementations of the aggregator the same for SECONDS=60, from chance or SEED=1 on, and compare
	$(BIN)/python -m tests.fuzz.aggregator $(SECONDS) $(SEED)

fuzz-types: sanitized  ## call all that the C types have, under the sanitizers, for SECONDS=60, from chance or SEED=1 on
	$(WITH_SANITIZERS) PYTHONPATH="$(SANITIZED)/lib:." $(BIN)/python -P -m tests.fuzz.types $(SECONDS) $(SEED)

hostile: $(INSTALLED)  ## send hostile traffic beside 200,000 good lines a second for SECONDS=600, and count what is lost
	$(BIN)/python -m tests.hostile $(if $(filter file,$(origin SECONDS)),600,$(SECONDS)) $(or $(RATE),200000)

soak: $(INSTALLED)  ## let everything go wrong for an hour (SECONDS=600: ten minutes), as root, and account for every increment
	$(BIN)/python -m tests.soak $(if $(filter file,$(origin SECONDS)),3600,$(SECONDS)) $(SEED)

lint: $(INSTALLED)  ## check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

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
	@echo "setting up $(VENV): this takes a minute or two"
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
