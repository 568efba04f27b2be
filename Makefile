# Everything starts here. `make` alone lists what there is.
# Needs: make, and Python 3.11 or newer as `python3` (another one: make PYTHON=python3.12 ...).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
# Absolute, so that it holds wherever AIRFLOW_HOME is.
export AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE ?= $(CURDIR)/include/accounts.yaml

.DEFAULT_GOAL := help
.PHONY: help install demo up test test-system test-nightly simulate lint format types lock bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed ## Make .venv with airflow and balance-bridge in it

# uv installs in seconds what pip needs most of a minute for; where it cannot (an index that only pip is set up for), pip
# reads the same lock. Airflow starts several times faster from compiled files.
$(VENV)/installed: requirements.lock requirements-bootstrap.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bootstrap.lock
	@echo "Installing Airflow and the rest into $(VENV) ..."
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install --quiet --require-hashes --compile-bytecode -r requirements.lock \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install ## Three days of two accounts through a real Airflow and a sandbox of the APIs, one of them held and repaired
	$(BIN)/balance-bridge demo

up: install ## The same with Airflow's UI, until Ctrl-C
	$(BIN)/balance-bridge up

PYTEST := $(BIN)/python -m pytest -n 2

test: install ## All tests but those of the whole system (some: make test ARGS=tests/load)
	$(PYTEST) -m "not system" $(ARGS)

test-system: install ## The tests of the whole system: a real Airflow, real processes, some of them killed
	$(PYTEST) -m system $(ARGS)

test-nightly: install ## The same more thoroughly (20 kills instead of 5), and each fault at each step of a delivery
	KILLS=20 THOROUGH=1 $(PYTEST) -m system
	THOROUGH=1 $(PYTEST) tests/simulation

simulate: install ## Seeded days among faults, deaths and second copies (some: SEEDS=100 FIRST=0)
	PYTHONPATH=tests $(BIN)/python -m simulation.delivery_lives --seeds $(or $(SEEDS),10000) --first $(or $(FIRST),0)

lint: install ## Style and forbidden constructs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: install ## Put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: install ## Static types, strict
	$(BIN)/mypy

bench: install ## The figures: DAG parsing, extraction, transformation, delivery, the page
	$(BIN)/python benchmarks/dag_parsing.py
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/transform.py
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/page.py

lock: install ## Resolve the dependencies again; the locks hold hashes and no address
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip compile pyproject.toml --all-extras --group dev --universal --generate-hashes \
	  --no-emit-index-url --no-header --quiet --upgrade -o requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip compile requirements-bootstrap.in --universal --generate-hashes \
	  --no-emit-index-url --no-header --quiet --upgrade -o requirements-bootstrap.lock

clean: ## Remove everything that make and the demo made
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
