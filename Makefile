PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := src lab/src tests lab/tests benchmarks examples docs

.PHONY: demo test lint golden bench survey pages docs test-slow test-real clean

demo: $(READY)
	$(BIN)/prefero demo --output demo

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy

# make golden FILES="a.json b.json": any file of the vectors' form; without FILES, the ones in the repository.
golden: $(READY)
	$(BIN)/python -m tests.golden $(FILES)

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

test-real: $(READY)
	$(BIN)/python -m pytest -m real

bench: $(READY)
	$(BIN)/pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python -m benchmarks

# Every paper measured again, on as many processes as there are cores; the results are data of the repository.
survey: $(READY)
	$(BIN)/prefero reproduce --all --fresh --report --record lab/measured.json

$(READY): pyproject.toml lab/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]" -e lab
	touch $@

# Every page of docs/ that follows from the code.
pages: $(READY)
	$(BIN)/python -m docs.generate

# The site, in site/; a link that leads nowhere is an error.
docs: pages
	$(BIN)/pip install -q -c constraints.txt -e ".[docs]"
	$(BIN)/zensical build --clean --strict

clean:
	rm -rf $(VENV) demo runs site
