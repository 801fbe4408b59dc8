# Every target sets up what it needs in .venv and is quick the second time.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test lint notebooks bench ci clean

help:
	@echo "make demo       index the demo gallery, ask it a few things, leave demo-output/demo.png"
	@echo "make test       run the tests"
	@echo "make lint       style, types and layers"
	@echo "make notebooks  run the notebooks"
	@echo "make bench      run the benchmarks, against the other libraries"
	@echo "make ci         all but the benchmarks"

setup: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

.venv/.installed-bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	touch $@

demo: setup
	$(BIN)/mmsearch demo --out demo-output

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

notebooks: setup
	@if ls notebooks/*.ipynb >/dev/null 2>&1; then $(BIN)/python -m pytest --nbmake notebooks; else echo "no notebooks yet"; fi

bench: .venv/.installed-bench
	$(BIN)/python benchmarks/encode.py
	$(BIN)/python benchmarks/cold_start.py
	$(BIN)/python benchmarks/index.py
	$(BIN)/python benchmarks/engine.py
	@if [ -d "$(QUALITY_DATA)" ]; then $(BIN)/python benchmarks/quality.py --data "$(QUALITY_DATA)"; \
	$(BIN)/python benchmarks/cascade.py --data "$(QUALITY_DATA)" --bank "$(BANK_DATA)" --cross; \
	else echo "quality: name a captioned dataset folder with QUALITY_DATA=..."; fi
	$(BIN)/python benchmarks/recommend_scale.py --items 100000 --users 10000
	$(BIN)/python benchmarks/recommend_engine.py --items 100000 --users 10000
	@if [ -d "$(FILMS_DATA)" ]; then $(BIN)/python benchmarks/recommend.py --data "$(FILMS_DATA)"; \
	else echo "recommend: name the folder of films and ratings with FILMS_DATA=..."; fi
	@if [ -d "$(FASHION_DATA)" ]; then $(BIN)/python benchmarks/item_to_item.py --data "$(FASHION_DATA)"; \
	else echo "item_to_item: name the fashion folder with FASHION_DATA=..."; fi
	@if [ -d "$(FASHION_DATA)" ]; then $(BIN)/python benchmarks/clusters.py --data "$(FASHION_DATA)"; \
	$(BIN)/python benchmarks/curation.py --data "$(dir $(FASHION_DATA))" --part labels outliers coverage looks; \
	else echo "clusters, curation: name the fashion folder with FASHION_DATA=..."; fi
	$(BIN)/python benchmarks/cluster_scale.py
	@if [ -d "$(BANK_DATA)" ]; then $(BIN)/python benchmarks/duplicates.py --data "$(BANK_DATA)"; \
	else echo "duplicates: name a folder of photographs with BANK_DATA=..."; fi

FILMS_DATA ?= ../shared/data/movielens-posters
FASHION_DATA ?= ../shared/data/fashion
QUALITY_DATA ?= ../shared/data/flickr8k-dev
BANK_DATA ?= ../shared/data/flickr8k-train

ci: test lint notebooks

clean:
	rm -rf .venv build dist demo-output .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
