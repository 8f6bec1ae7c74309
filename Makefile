# Two commands are the whole set-up: `make demo` and `make test`. Both make .venv and install into it first.
PYTHON ?= python3
BIN := .venv/bin
# Each keeps what it found as it goes, so one that fails takes nothing else away.
BENCH := online offline windows memory_sync memory_build orchestration

.PHONY: help demo dagster test test-all check format docs bench bench-large bench-quick bench-report screenshots clean

help:  ## Show what there is to make.
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/demo  ## Build features from real transactions, put them online, read them back.
	cd examples/transactions && ../../$(BIN)/python demo.py

dagster: .venv/dev  ## Open the example in Dagster, on http://localhost:3000.
	mkdir -p examples/transactions/dagster_home
	DAGSTER_HOME=$(CURDIR)/examples/transactions/dagster_home $(BIN)/dagster dev --workspace workspace.yaml

test: check  ## Lint, types, layers, and the tests with their coverage.
	$(BIN)/pytest -q -m "not slow" --numprocesses auto --dist loadscope --cov --cov-report=term:skip-covered

test-all: .venv/dev  ## The tests that take minutes or need Debian packages.
	$(BIN)/pytest -q -m slow

check: .venv/dev  ## Lint, types and layers only.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev  ## Format the code and mend what the linter can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/dev  ## Build the documentation into build/site, with warnings as errors.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

bench: .venv/dev  ## Measure beside work by hand, Feast and mlforge-sdk, for docs/benchmarks.md: about 35 minutes.
	status=0; for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py || status=1; done; \
	$(BIN)/python benchmarks/report.py && exit $$status

bench-large: .venv/dev  ## What takes about 20 minutes more: 100 million events, and another memory limit.
	status=0; for name in 'memory_build.py large' 'memory_sync.py 2GB'; do $(BIN)/python benchmarks/$$name || status=1; done; \
	$(BIN)/python benchmarks/report.py && exit $$status

bench-quick: .venv/dev  ## See that all of that works, with few rows, into build/bench-quick: some minutes.
	status=0; for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py --quick || status=1; done; \
	$(BIN)/python benchmarks/report.py --results build/bench-quick --kept build/bench-quick/kept/results.json \
		--docs build/bench-quick && exit $$status

bench-report: .venv/dev  ## Make docs/benchmarks.md anew from what was measured.
	$(BIN)/python benchmarks/report.py

screenshots: .venv/dev  ## Make the pictures of docs/ anew; needs Debian's chromium.
	$(BIN)/pytest -q tests/test_dagster_dev.py
	for name in graph online; do cp build/screenshots/$$name.png docs/images/dagster-$$name.png; done
	$(BIN)/python docs/pictures.py docs/images

clean:  ## Remove the environment and what tests and examples have made.
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	rm -rf examples/*/feature_store examples/*/online_store examples/*/dagster_home

# The marker files say what is installed; a change of the requirements installs again.
.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'

.venv/demo: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[embedded]' --group demo
	@touch $@

.venv/dev: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[embedded]' --group dev
	@touch $@ .venv/demo
