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
.PHONY: help demo test coverage test-aarch64 test-engines test-python313 lint format docs man dist audit bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/runtime ## Publish sample images into ./demo and explain the result (no root, no registry)
	@$(BIN)/python -m docs.demo

test: lint ## Run all checks and all tests; tests that cannot run name what is missing
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

# Not with every run of the tests: it makes them take a third longer.
coverage: .venv/development ## Print which share of each room the fast tests execute
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not system" --cov=publisher --cov-report= $(ARGS)

test-python313: .venv/development ## Run the fast tests on the Python 3.13 of Debian 13 (root; installs it into a folder)
	tests/python313.sh

test-aarch64: .venv/development ## Run the tests of confined workers on an emulated aarch64 (root; needs qemu-system-arm)
	tests/aarch64.sh $(ARGS)

test-engines: .venv/development ## Run the tests of today's container engines (root; installs a Debian into a folder)
	tests/engines.sh $(ARGS)

lint: .venv/development docs ## Check format, style, types, imports between rooms, unused names, complexity, and build the docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/complexipy --quiet

docs: .venv/development ## Build the documentation site in build/docs/html; a broken link is an error
	$(BIN)/python -m docs.handbook html

man: .venv/development ## Build the man pages, one for each command, in build/docs/man
	$(BIN)/python -m docs.handbook man

# The versions of what builds are those of constraints.txt, so that the same commit gives the same files.
dist: .venv/development ## Build the wheel, with man pages and completion scripts, and the source archive, in dist
	$(BIN)/python -m docs.handbook share
	rm -rf dist
	$(BIN)/python -m hatchling build

format: .venv/development ## Format the code, and correct what ruff can correct
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: .venv/development ## Look up the versions in constraints.txt in a database of advisories (network)
	$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip $(ARGS)

bench: .venv/development ## Measure the publisher beside the programs that do parts of its work
	$(BIN)/python -m bench

clean: ## Remove what these commands made
	rm -rf .venv demo build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
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
	$(INSTALL) '.[dev,deploy-tests,docs]'
	@touch $@ .venv/runtime
