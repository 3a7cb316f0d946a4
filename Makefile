PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench evidence tools clean

demo: $(STAMP)  ## set everything up, then run the main job
	$(BIN)/serried gap Qwen/Qwen3-32B --fleet zhenwu-810e:8 --rival h20:8 --serve 512/128@64

test: $(STAMP) check  ## set everything up, then pass the tests
	$(BIN)/python -m pytest -n 2

check: $(STAMP)  ## style, types, import law
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)  ## speed, beside a machine-speed reference
	$(BIN)/python -m benchmarks

evidence: $(STAMP)  ## recompute docs/evidence.md and the table of the README
	$(BIN)/python -m serried.evidence.page

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

TOOLS := .venv-tools

tools: $(TOOLS)/.installed  ## the real tools' own parsers, against which what we emit is tested (2.5 GB, CPU only)

$(TOOLS)/.installed: constraints-tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints-tools.txt torch==2.13.0 torchtitan==0.3.0 triton
	touch $@

clean:
	rm -rf $(VENV) $(TOOLS) build dist .pytest_cache .mypy_cache .ruff_cache
