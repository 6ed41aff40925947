# Each target first sets up the environment that it needs, unless that is up to date.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8765
VENV := .venv
RUN := $(VENV)/bin

.PHONY: serve test screenshots cover lint types format clean

serve: $(VENV)/.server
	$(RUN)/rfc6455-server --host $(HOST) --port $(PORT)

# Tests run in one worker per core. Each worker starts with neighbouring tests, which share what their module sets up,
# such as a browser; an idle worker takes over tests of another. `make test PARALLEL=` runs them in one process.
PARALLEL ?= -n auto --dist worksteal
NODE := tests/node/node_modules/.installed tests/node/asyncapi/node_modules/.installed

test: $(VENV)/.dev $(NODE)
	$(RUN)/pytest $(PARALLEL) --cov --cov-report= $(ARGS)

# Runs the tests under `python -O`, the programs that they start included: no check may depend on `assert`.
.PHONY: test-optimized
test-optimized: $(VENV)/.dev $(NODE)
	PYTHONOPTIMIZE=1 $(RUN)/pytest $(PARALLEL) $(ARGS)

cover: $(VENV)/.dev $(NODE)
	$(RUN)/pytest $(PARALLEL) --cov --cov-report=term-missing --cov-report=html:build/coverage $(ARGS)

# Runs the tests on each supported Python that the machine has. nox reports the ones that are missing. It creates one
# environment per Python in .nox and reuses it; they are updated when pyproject.toml changes.
.PHONY: test-all build
test-all: .nox/.installed $(NODE)
	$(RUN)/nox --no-install -- $(ARGS)

.nox/.installed: pyproject.toml noxfile.py | $(VENV)/.dev
	$(RUN)/nox --install-only
	touch $@

# Builds the wheel and the source distribution in dist/. tests/test_package.py checks their contents.
build: $(VENV)/.dev
	rm -rf dist
	$(RUN)/python -m build --no-isolation

# The tests take the pictures of the README again.
screenshots: $(VENV)/.dev $(NODE)
	SCREENSHOTS=docs/screenshots $(RUN)/pytest -q tests/test_pages.py -k "image or chart or players"

lint: $(VENV)/.dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

types: $(VENV)/.dev
	$(RUN)/mypy

format: $(VENV)/.dev
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

clean:
	rm -rf $(VENV) .nox tests/node/node_modules tests/node/asyncapi/node_modules build dist

$(RUN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.server: pyproject.toml | $(RUN)/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(RUN)/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.server

# Without npm, the tests that need it are skipped, with that reason; in CI they fail.
tests/node/node_modules/.installed: tests/node/package-lock.json
	if command -v npm >/dev/null; then npm ci --prefix tests/node --no-audit --no-fund --loglevel=error; fi
	mkdir -p $(@D) && touch $@

# Without scripts: that of a package that the parser depends on would report each installation to its author.
tests/node/asyncapi/node_modules/.installed: tests/node/asyncapi/package-lock.json
	if command -v npm >/dev/null; then \
		npm ci --prefix tests/node/asyncapi --ignore-scripts --no-audit --no-fund --loglevel=error; fi
	mkdir -p $(@D) && touch $@

# Runs each target of tests/fuzz by Atheris, FUZZ_SECONDS long; stops at the first input that fails, which is then in
# build/fuzz/failed. `fuzz-quick` makes the same inputs each time, for CI. `make fuzz FUZZ=frames` runs one target.
FUZZ ?= requests responses extensions frames deflate messages packets payloads
FUZZ_SECONDS ?= 3600
.PHONY: fuzz fuzz-quick
fuzz: $(VENV)/.fuzz
	for target in $(FUZZ); do \
		$(RUN)/python -m tests.fuzz $$target -max_total_time=$(FUZZ_SECONDS) -timeout=20 || exit 1; done

fuzz-quick: $(VENV)/.fuzz
	for target in $(FUZZ); do \
		$(RUN)/python -m tests.fuzz $$target quick || exit 1; done

$(VENV)/.fuzz: pyproject.toml | $(VENV)/.dev
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	touch $@

# Tests the tests of rfc6455/, see tests/mutants.py: two hours or so. `make mutants MUTANTS="masking uri"` for some modules.
.PHONY: mutants
mutants: $(VENV)/.mutants
	CI=true $(RUN)/python -m tests.mutants $(MUTANTS)

$(VENV)/.mutants: pyproject.toml | $(VENV)/.dev
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[mutants]'
	touch $@

# Benchmarks of this project and its peers, in an environment of their own. `make bench-echo` runs one of them, and
# `make bench BENCH=--quick` runs all of them in a few minutes, with rough figures.
BENCHMARKS := masking codec path echo broadcast events socketio handshake memory drain soak siege
.PHONY: bench $(BENCHMARKS:%=bench-%)
bench: $(BENCHMARKS:%=bench-%)

$(BENCHMARKS:%=bench-%): bench-%: benchmarks/.venv/.installed
	benchmarks/.venv/bin/python -m benchmarks.$* $(BENCH)

benchmarks/.venv/.installed: benchmarks/requirements.txt benchmarks/node/package-lock.json
	$(PYTHON) -m venv benchmarks/.venv
	benchmarks/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt -e .
	if command -v npm >/dev/null; then npm ci --prefix benchmarks/node --no-audit --no-fund --loglevel=error; fi
	touch $@

# `conformance` runs every case for both roles: some 20 minutes on an idle machine. `conformance-quick` runs a sample,
# with numpy and without: some 5 minutes each.
.PHONY: conformance conformance-quick
conformance: $(VENV)/.dev
	$(RUN)/python -m conformance run

conformance-quick: $(VENV)/.dev
	$(RUN)/python -m conformance run --quick
	$(RUN)/python -m conformance run --quick --without-numpy
