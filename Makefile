# Two commands do everything on a fresh machine with Python 3.11 or later and a package index:
#   make demo    compares six activations on the digits data and writes a report to demo/
#   make test    runs every test but the slow ones, the contract on a sample of the parts
# The others: test-plan, test-all, check, check-all, bench, evidence, docs, clean.

PYTHON ?= python3
# What tests and bench need. [ray], [gpu] and the hub client of [data] are large and optional: make EXTRAS=bench,dev,ray test
EXTRAS ?= bench,dev
WORKERS ?= 2
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready
# One compute thread a worker: more would fight over the cores, and sums would depend on their number.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := test
.PHONY: demo test test-plan test-all check check-all bench evidence docs clean

$(READY): pyproject.toml constraints.txt
	@echo "== making .venv with [$(EXTRAS)] at the versions of constraints.txt"
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "netwright needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	$(BIN)/python -m netwright.show.stubs
	@touch $@

demo: $(READY)
	@echo "== comparing six activations on the digits data: 10 seeds, 5 trials each; the report goes to demo/"
	$(BIN)/netwright compare relu gelu silu mish golu snake --task digits --seeds 10 --tune 5 --out demo

test: $(READY)
	@echo "== every test but the slow ones (make test-all has those too), $(WORKERS) workers"
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

test-plan: $(READY)
	@echo "== what make test runs, and about what it costs; ARGS=--measure runs and measures it"
	$(BIN)/python tests/plan.py $(ARGS)

test-all: $(READY)
	@echo "== every test of every part, $(WORKERS) workers"
	NETWRIGHT_SAMPLE=all $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: $(READY)
	@echo "== lint, format, types, laws of the house, records of checks up to date"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(ONE_THREAD) $(BIN)/python -m pytest -q tests/test_house.py
	$(BIN)/python -m netwright.contract --fresh

check-all: $(READY)
	@echo "== every check of the parts that changed since they were last checked; results go to evidence/checks.json"
	$(ONE_THREAD) $(BIN)/python -m netwright.contract --all --stale --workers $(WORKERS) $(ARGS)

bench: $(READY)
	@for file in benchmarks/[!_]*.py; do echo "== $$file"; $(ONE_THREAD) $(BIN)/python $$file || exit 1; done

evidence: $(READY)
	@for file in evidence/commands/[!_]*.py; do echo "== $$file"; $(ONE_THREAD) $(BIN)/python $$file || exit 1; done

docs: $(READY)
	@echo "== the catalogue as pages; they go to site/"
	$(BIN)/python -m netwright.show.pages site

clean:
	rm -rf .venv build dist demo site .mypy_cache .pytest_cache .ruff_cache .hypothesis
