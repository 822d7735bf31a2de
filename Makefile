PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: demo test mutants lint clean

demo: $(VENV)/.installed  ## pre-train briefly, fine-tune the shipped checkpoint and from scratch, compare, make a map
	$(BIN)/python -m benchmarks.demo

test: $(VENV)/.installed  ## the whole test suite, in WORKERS processes
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

mutants: $(VENV)/.installed  ## break training and mapping one line at a time and see a test fail for each: takes hours
	$(BIN)/python -m tests.mutants $(addprefix --file ,$(FILES))

lint: $(VENV)/.installed
	$(BIN)/python -m ruff check .

$(VENV)/.installed: requirements.txt requirements-geo.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
