# Two commands do everything: `make demo` and `make test`. The rest are their parts.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check setup setup-dev clean

demo: setup  ## pictures from the shipped model, a short training, a reconstruction; all under outputs/demo
	$(BIN)/python -m scripts.demo

test: setup-dev  ## checks of style and types, then the test suite
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=15

setup: $(VENV)/.installed

setup-dev: $(VENV)/.installed-dev

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	$(PIP) --no-deps taming-transformers
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[test,web]'
	touch $@

clean:  ## remove the environment and every result
	rm -rf $(VENV) outputs logs
