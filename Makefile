# make demo   the paper in two minutes, in an environment of its own
# make test   linter, type checker, tests
# make coverage  the tests, and the branches that none of them takes; fails where too few are taken
# make bench  speed and memory beside other tools, into the README; takes 40 GB of disk and most of an hour
# make docs   the pages as a site in docs/_build/html
# make dist   the wheel and the source archive in dist/, each tried in an environment of its own
# make clean  remove the environment and what the demo left

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUITE := -m pytest --numprocesses auto --maxprocesses 8 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test coverage docs bench dist clean

demo: $(VENV)/.demo
	$(BIN)/wise demo wise-demo

# The tests run the type checker, too, beside others (tests/test_api.py): alone, it would leave all cores but one idle.
test: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python $(SUITE)

# By its whole path: tests start processes in other folders, which write beside it.
coverage: export COVERAGE_FILE := $(CURDIR)/$(VENV)/coverage/data
coverage: $(VENV)/.test
	rm -rf $(VENV)/coverage
	$(BIN)/python $(SUITE) --cov --cov-report=term-missing:skip-covered --cov-report=json:$(VENV)/coverage/report.json
	$(BIN)/python tests/coverage_rooms.py $(VENV)/coverage/report.json

# The command reference, from --help (a test fails when it drifts), and the site.
docs: $(VENV)/.test
	$(BIN)/python docs/reference.py
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html

bench: $(VENV)/.test
	$(BIN)/python tests/benchmarks/bench.py --write

dist: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m build
	for file in dist/*; do rm -rf $(VENV)/smoke && $(PYTHON) -m venv $(VENV)/smoke && \
	  $(VENV)/smoke/bin/python -m pip install --quiet $$file && $(VENV)/smoke/bin/python tests/smoke.py || exit 1; done

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# pip picks the ordinary builds of torch and torchvision that match each other, through open_clip_torch.
$(VENV)/.demo $(VENV)/.test $(VENV)/.release: $(VENV)/.%: pyproject.toml setup.py mergekit_wise/merging/_native.c mergekit_wise/checkpoint/_guard.c mergekit_wise/models/_resample.c | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) wise-demo
