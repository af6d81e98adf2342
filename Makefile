# Everything a developer does, one word each. `make run` and `make test` need Python 3.11 or newer, and nothing else of ours.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PYTEST_ARGS ?=
# As many at a time as there are processors, up to four; `make test JOBS=0` runs one after the other.
JOBS   ?= $(shell nproc | awk '{ print $$1 < 4 ? $$1 : 4 }')

CODE := svcd tests benchmarks configs

.PHONY: help setup fmt lint type test test-core nightly bench docs check run clean

help:
	@echo "make run        set up and run configs/quickstart.yaml in the foreground (Ctrl-C drains)"
	@echo "make test       set up and run every test"
	@echo "make test-core  the pure core's tests alone"
	@echo "make nightly    the core against many more random worlds"
	@echo "make bench      the benchmarks, beside the bare primitives"
	@echo "make fmt lint type docs check setup clean"

# The virtual environment is made again only when pyproject.toml has changed. What `make run` needs is less than what
# the tests need: two stamps.

$(VENV)/.run-stamp: pyproject.toml
	@PYTHON="$(PYTHON)" sh .ci/make-venv "$(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev-stamp: $(VENV)/.run-stamp
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,stack]"
	@touch $@

setup: $(VENV)/.dev-stamp

run: $(VENV)/.run-stamp
	@exec $(BIN)/svcd start configs/quickstart.yaml

test: setup
	@$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

test-core: setup
	@$(BIN)/python -m pytest tests/core $(PYTEST_ARGS)

# The machine against a hundred times as many random worlds: about an hour.
nightly: setup
	@SVCD_HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest tests/core -n $(JOBS) $(PYTEST_ARGS)

bench: setup
	@$(BIN)/python -m benchmarks

fmt: setup
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix $(CODE)

lint: setup
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)

type: setup
	@$(BIN)/mypy

# Pages that are generated from the code; tests fail when they are stale.
docs: setup
	@$(BIN)/python -m svcd.protocol.reference > docs/protocol.md.new && mv docs/protocol.md.new docs/protocol.md
	@$(BIN)/python -m svcd.supervisor.core.diagram > docs/states.md.new && mv docs/states.md.new docs/states.md
	@$(BIN)/python -m svcd.supervisor.config.reference docs/configuration.md

# What CI runs. One after the other, whatever -j says: each one's output is read by people.
check:
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory type
	@$(MAKE) --no-print-directory test

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
