# Everything runs in one virtual environment, made if it is absent. Needs Python 3.11 or newer and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
BENCHMARKS := $(patsubst benchmarks/%.py,benchmarks.%,$(sort $(wildcard benchmarks/bench_*.py)))

.DEFAULT_GOAL := help
.PHONY: help install sweep study test bench docs lint ui

help: ## List the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

install: $(VENV)/.installed ## Make the environment

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: Python 3.11 or newer is needed, got $$($(PYTHON) --version). Use make PYTHON=python3.11 …" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[orchestrator,test,lint,docs]'
	@touch $@

sweep: install ## The default depth sweep on MovieLens-100K; ARGS="smoke --set seeds=3" for another
	$(BIN)/python orchestrator/sweep.py $(ARGS)

test: install ## All tests but those that need CUDA
	$(BIN)/python -m pytest -m 'not gpu' -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

study: install ## The redundancy study; TIER=1|2|3, ARGS="--set data.path=…"; goes on where it was stopped
	$(BIN)/python -m orchestrator.study --tier $(or $(TIER),1) $(ARGS)

bench: install ## Every figure of speed, short form; benchmarks/README.md has the long one
	@for script in $(BENCHMARKS); do $(BIN)/python -m $$script --size short || exit 1; echo; done

docs: install ## The documentation site, into site/; every warning is an error
	$(BIN)/mkdocs build --strict $(ARGS)

lint: install ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ui: install ## The MLflow UI of the default storage, on 127.0.0.1 alone
	$(BIN)/mlflow ui --host 127.0.0.1 $(ARGS) \
		--backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$${SLMREC_STORAGE:-$$HOME/slmrec-runs}/mlflow.db}"
