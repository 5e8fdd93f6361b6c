# Everything from a bare Python 3.11+: `make demo`, `make test`, `make lab9`. The environment lives in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo lab9 test slow lint bench audit clean

demo: $(READY)  ## all of Lab 9 on the embedded digits, and its page
	$(BIN)/fanin run lab9 --data digits --out runs/demo
	@echo "Open runs/demo/report.html"

lab9: $(READY)  ## the full job on MNIST
	$(BIN)/fanin run lab9 --data mnist --out runs/lab9-mnist
	@echo "Open runs/lab9-mnist/report.html"

test: $(READY)  ## all tests but the slow ones
	$(BIN)/python -m pytest -m 'not slow'

slow: $(READY)  ## on Ray and Dask clusters of this machine, whose workers and machines are killed, and other crashes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray,dask]'
	$(BIN)/python -c 'import ray, distributed'  # without them pytest would skip, and look green
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

bench: $(READY)  ## the CPU benchmark beside JAX, Keras, Lightning and others: some twenty minutes
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/cpu.py

audit:  ## known vulnerabilities of the pinned versions; asks the vulnerability database, and fails for what it does not know
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10'
	$(VENV)/audit/bin/pip-audit --strict --disable-pip --no-deps --progress-spinner off -r constraints.txt

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fanin needs Python 3.11 or newer; set PYTHON=python3.x")'
	@echo "Setting up $(VENV): torch and a few others, a few hundred megabytes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]'
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
