# Two commands do everything on a fresh machine: `make demo` and `make test`. Needed: a C++ compiler, Python >= 3.10, make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python tools/pip_install.py

# lm-evaluation-harness and LangChain bring a hundred packages: their tests have an environment of their own on top of $(VENV).
INTEGRATIONS      := .venv-integrations
RAY               := .venv-ray
INTEGRATION_TESTS := tests/integrations

# Tests in several processes at a time. Each computes with one thread: threads of several processes wait for each other's
# CPUs, which takes longer by a factor. What needs threads or a quiet machine is marked `alone`.
WORKERS    ?= 2
IN_WORKERS := OMP_THREAD_LIMIT=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# What the extension is made of: touching any of it builds anew.
SOURCES := pyproject.toml CMakeLists.txt $(wildcard cmake/* bindings/* bindings/*/* vendor/llama.cpp/*.* $(addprefix vendor/llama.cpp/,triattention/* kv3/* patches/*))

CPP_SOURCES = $(shell git ls-files 'bindings/*.cpp' 'bindings/*.h' 'vendor/llama.cpp/triattention/*.cpp' 'vendor/llama.cpp/triattention/*.h' 'vendor/llama.cpp/kv3/*')

.PHONY: help demo test test-fast test-server test-ray test-asan test-tsan lint tidy fuzz format stubs docs install clean

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name what; do printf '%-18s %s\n' "$$name" "$$what"; done

demo: $(VENV)/installed  ## build, fetch a small real model, calibrate it, generate far past the budget
	$(BIN)/python tools/demo.py

test: lint $(VENV)/developing $(INTEGRATIONS)/installed  ## format, lint, types and all tests
	$(IN_WORKERS) -m "not alone" $(addprefix --ignore=,$(INTEGRATION_TESTS))
	$(BIN)/python -m pytest -m alone $(addprefix --ignore=,$(INTEGRATION_TESTS))
	$(INTEGRATIONS)/bin/python -m pytest $(INTEGRATION_TESTS)

test-fast: $(VENV)/developing  ## the tests that are quick: a minute and a half on two CPUs
	$(IN_WORKERS) -m "not slow and not alone" $(addprefix --ignore=,$(INTEGRATION_TESTS))

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

MINUTES ?= 10
fuzz: $(VENV)/developing  ## look for inputs that do harm, for MINUTES (10): see tools/fuzz
	-@$(PIP) atheris
	cd tools && ../$(BIN)/python -m fuzz --minutes $(MINUTES)

# One file at a time, and with all processors' code, so that the options are those of any machine; nothing is compiled.
tidy: $(VENV)/developing  ## look for mistakes in our C++ with clang-tidy, some ten minutes
	@$(PIP) --group tidy
	$(BIN)/cmake -S . -B build/tidy -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release \
	    -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DPYTRIATTN_UNITY=OFF \
	    -DPYTRIATTN_CPU=all -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	    -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir) >build/tidy.log
	$(BIN)/run-clang-tidy.py -clang-tidy-binary $(abspath $(BIN))/clang-tidy -quiet -p build/tidy -j $(WORKERS) \
	    '^$(CURDIR)/(bindings|vendor/llama.cpp/triattention)/.*\.cpp$$' 2>>build/tidy.log

test-asan: $(VENV)/developing  ## tests of engine and bindings with AddressSanitizer and UndefinedBehaviorSanitizer
	OMP_THREAD_LIMIT=1 OPENBLAS_NUM_THREADS=1 tools/sanitized_tests.sh asan tests/engine tests/unit tests/tools/test_fuzz_corpus.py

test-tsan: $(VENV)/developing  ## tests of threads with ThreadSanitizer
	tools/sanitized_tests.sh tsan -m "not slow and not alone" tests/unit/_util tests/unit/test_async_llama.py tests/unit/test_bad_input.py \
	    tests/unit/session/test_interrupt.py tests/engine/test_key_scores.py

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
