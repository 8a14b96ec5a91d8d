# make demo   the paper in two minutes, in an environment of its own
# make test   linter, type checker, tests
# make bench  speed and memory beside other tools, into the README; takes 40 GB of disk and most of an hour
# make docs   the pages as a site in docs/_build/html
# make clean  remove the environment and what the demo left

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test docs bench clean

demo: $(VENV)/.demo
	$(BIN)/wise demo wise-demo

test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

# The command reference, from --help (a test fails when it drifts), and the site.
docs: $(VENV)/.test
	$(BIN)/python docs/reference.py
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html

bench: $(VENV)/.test
	$(BIN)/python tests/benchmarks/bench.py --write

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# pip picks the ordinary builds of torch and torchvision that match each other, through open_clip_torch.
$(VENV)/.demo $(VENV)/.test: $(VENV)/.%: pyproject.toml setup.py mergekit_wise/merging/_native.c | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) wise-demo
