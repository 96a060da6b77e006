# Two commands do everything on a fresh machine: `make demo` and `make test`. Needed: a C++ compiler, Python >= 3.10, make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check

# What the extension is made of: touching any of it builds anew.
SOURCES := pyproject.toml CMakeLists.txt $(wildcard cmake/*.cmake bindings/* vendor/llama.cpp/*.* vendor/llama.cpp/triattention/*)

.PHONY: demo test lint stubs docs install clean

demo: $(VENV)/installed
	$(BIN)/python tools/demo.py

test: $(VENV)/installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

# The types of the compiled module, after a change of its bindings.
stubs: $(VENV)/installed
	$(BIN)/python tools/make_stubs.py

# The documentation site; open site/index.html.
docs: $(VENV)/installed
	$(BIN)/mkdocs build --strict

install: $(VENV)/installed

$(VENV)/tools: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install "scikit-build-core>=0.10" "pybind11>=3.1,<3.2" "cmake>=3.18" ninja
	@touch $@

# An editable install without build isolation: the build folder stays, and a second build compiles only what changed.
$(VENV)/installed: $(VENV)/tools $(SOURCES)
	$(PIP) install --no-build-isolation --editable ".[dev]" -C build-dir=build/dev
	@touch $@

clean:
	rm -rf build dist site $(VENV)
