# Everything that is done with this checkout. Each target makes what it needs first: a virtual
# environment in .venv, with the versions that constraints.txt names.
#
#   PYTHON   the Python to start from, 3.11 or later        make demo PYTHON=python3.12
#   ARGS     more words for pytest                          make test ARGS='-k wishlist -x'

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
SOURCES := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/runtime ## Publish sample images into ./demo and show what comes of it (no root, no network)
	@$(BIN)/python -m docs.demo

test: lint ## Check everything, then run all tests; they say what they miss
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: .venv/development ## Check format, style, types and who imports whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/development ## Format the code, and correct what can be corrected by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/development ## Measure the publisher against what one would use instead
	$(BIN)/python -m bench

clean: ## Remove what these commands made
	rm -rf .venv demo build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# PIP_CONSTRAINT, unlike --constraint, holds for what pip needs to build the package as well.
INSTALL := PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install -qq \
	--disable-pip-version-check --no-input --editable

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is not Python 3.11 or later: name one with make PYTHON=…" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime: $(SOURCES) | .venv/bin/python
	$(INSTALL) .
	@touch $@

.venv/development: $(SOURCES) | .venv/bin/python
	$(INSTALL) '.[dev]'
	@touch $@ .venv/runtime
