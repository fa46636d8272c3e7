# Two commands from a bare Python ≥ 3.11: `make demo` and `make test`. Each sets up what it needs in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Tests start hundreds of processes: each would compile anew where Python may not keep what it has compiled
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-kernels test-portable lint types clean

demo: $(VENV)/installed
	$(BIN)/infrec demo --out demo-output --overwrite

# Much of a test's time is waiting for processes to start: two at a time keep two cores busy
test: $(VENV)/installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 20 -rs

# Without Ray, on JAX's default device: for another Python, `make VENV=.venv-3.13 PYTHON=python3.13 test-kernels`
test-kernels: $(VENV)/installed
	$(BIN)/python -m pytest --confcutdir tests/kernels tests/kernels

# The same on processors of other kinds: other kernels of OpenBLAS, other instructions of XLA, down to the oldest
test-portable: $(VENV)/installed
	OPENBLAS_CORETYPE=Haswell $(MAKE) test
	XLA_FLAGS=--xla_cpu_max_isa=AVX2 $(MAKE) test
	OPENBLAS_CORETYPE=Haswell XLA_FLAGS=--xla_cpu_max_isa=AVX2 $(MAKE) test
	OPENBLAS_CORETYPE=Nehalem XLA_FLAGS=--xla_cpu_max_isa=SSE4_2 $(MAKE) test

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed
	$(BIN)/mypy

# Ranges are in pyproject.toml; constraints.txt pins one set that is known to work.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "infrec needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo-output build *.egg-info .mypy_cache .ruff_cache .pytest_cache
