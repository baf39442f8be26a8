# The commands of the project; CONTRIBUTING.md explains them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 2000
BENCH ?=

.PHONY: install up test test-browser screenshots lint proto proto-check simulate nemesis mutants bench wheel-check format clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.py requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

up: install
	$(BIN)/twstock up --data var

test: install
	$(BIN)/python tests/run.py

# The console in headless Chromium; tells what to install when that is missing.
test-browser: install
	tests/browser/run.sh

# What docs/console.md shows, taken from a cluster that trades.
screenshots: install
	tests/browser/run.sh screenshots

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The generator is pinned: its code refuses a protobuf runtime older than 6.31.
proto: install
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=. --pyi_out=. --grpc_python_out=. proto/twstock/pb/*.proto

proto-check: proto
	git diff --exit-code -- twstock/pb
	@new=$$(git ls-files --others --exclude-standard -- twstock/pb) && \
	    test -z "$$new" || { printf '%s\n' "$$new" >&2; exit 1; }

# The wheel in a clean environment, with the runtime requirements alone.
wheel-check:
	PYTHON=$(PYTHON) .ci/wheel_check.sh

simulate: install
	$(BIN)/python -m tests.simulate --seeds $(SEEDS)

nemesis: install
	$(BIN)/python -m tests.nemesis

mutants: install
	$(BIN)/python -m tests.mutants

# Without these packages the benchmark goes on, and its rows say what is missing.
bench: install
	@cmp -s requirements-bench.txt $(VENV)/.installed-bench \
	    || { $(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt \
	        && cp requirements-bench.txt $(VENV)/.installed-bench; } || true
	$(BIN)/python -m bench $(BENCH)

clean:
	rm -rf $(VENV) build *.egg-info
