# Two commands do everything on a fresh machine: `make demo` and `make test`. Needed: a C++ compiler, Python >= 3.10, make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python tools/pip_install.py

# lm-evaluation-harness and LangChain bring a hundred packages: their tests have an environment of their own on top of $(VENV).
INTEGRATIONS      := .venv-integrations
RAY               := .venv-ray
INTEGRATION_TESTS := tests/integrations

# What the extension is made of: touching any of it builds anew.
SOURCES := pyproject.toml CMakeLists.txt $(wildcard cmake/* bindings/* bindings/*/* vendor/llama.cpp/*.* $(addprefix vendor/llama.cpp/,triattention/* kv3/* patches/*))

CPP_SOURCES = $(shell git ls-files 'bindings/*.cpp' 'bindings/*.h' 'vendor/llama.cpp/triattention/*.cpp' 'vendor/llama.cpp/triattention/*.h' 'vendor/llama.cpp/kv3/*')

.PHONY: help demo test test-fast test-server test-ray lint format stubs docs install clean

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-18s %s\n' "$$name" "$$what"; done

demo: $(VENV)/installed  ## build, fetch a small real model, calibrate it, generate far past the budget
	$(BIN)/python tools/demo.py

test: lint $(VENV)/developing $(INTEGRATIONS)/installed  ## format, lint, types and all tests
	$(BIN)/python -m pytest $(addprefix --ignore=,$(INTEGRATION_TESTS))
	$(INTEGRATIONS)/bin/python -m pytest $(INTEGRATION_TESTS)

test-fast: $(VENV)/developing  ## the tests that are quick: some two minutes
	$(BIN)/python -m pytest -m "not slow" $(addprefix --ignore=,$(INTEGRATION_TESTS))

test-server: $(VENV)/developing  ## llama.cpp's own server tests against pytriattn-server, without and with a budget
	@$(PIP) --group server-suite
	$(BIN)/python tools/server_suite/run.py --model "$$($(BIN)/python tools/fetch_models.py smollm2)"

test-ray: $(VENV)/developing  ## the examples for Ray on a cluster of two nodes, in an environment of its own
	$(BIN)/python -m venv --without-pip $(RAY)
	$(BIN)/python tools/layer_environment.py $(RAY)
	@$(RAY)/bin/python tools/pip_install.py --group ray
	$(RAY)/bin/python -m pytest tests/clusters

# The types of the integrations are checked too, so mypy runs where their packages are.
lint: $(VENV)/developing $(INTEGRATIONS)/installed  ## format, lint and types, nothing run
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES)
	$(INTEGRATIONS)/bin/python -m mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(VENV)/developing  ## format Python and C++ in place
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES)

stubs: $(VENV)/developing  ## write the types of the compiled module, after a change of its bindings
	$(BIN)/python tools/make_stubs.py

docs: $(VENV)/developing  ## build the documentation site; open site/index.html
	$(BIN)/mkdocs build --strict

install: $(VENV)/installed  ## build and install into .venv, nothing else

clean:  ## remove everything that was built
	rm -rf build dist site $(VENV) $(INTEGRATIONS) $(RAY)

# Each stamp stands for one state of an environment. `make demo` needs the first two: the package and what it depends on.

$(VENV)/tools: pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { echo "pytriattn cannot be built here: there is no $(PYTHON); install Python 3.10 or newer, or name one: make demo PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" tools/check_machine.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	@$(PIP) --quick --upgrade "pip>=25.1"
	@$(PIP) --group build
	@touch $@

# The build folder stays (no isolation), so that a second build compiles only what changed. What the package depends on is
# installed by a pip of its own: that one isolates whatever it should have to build.
$(VENV)/installed: $(VENV)/tools $(SOURCES)
	@$(PIP) -v --no-deps --no-build-isolation --editable . -C build-dir=build/dev
	@$(PIP) pytriattn
	@touch $@

$(VENV)/developing: $(VENV)/installed
	@$(PIP) --group dev
	@touch $@

$(INTEGRATIONS)/installed: $(VENV)/developing
	$(BIN)/python -m venv --without-pip $(INTEGRATIONS)
	$(BIN)/python tools/layer_environment.py $(INTEGRATIONS)
	@$(INTEGRATIONS)/bin/python tools/pip_install.py --group integrations
	@touch $@
