# Two commands on a fresh machine: `make demo`, `make test`. Both begin with `make setup`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNELS := src/qwen2_audio/native/lib/libqwa.so

.PHONY: setup demo test test-all mutants test-oldest test-clients lint lint-kernels sanitize format release-check bench nano nano-eval clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed $(KERNELS)  ## a virtual environment with everything the tests need

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(KERNELS): $(wildcard csrc/*) | $(VENV)/.installed  # without a compiler torch computes; `qwen2-audio info` says so
	$(BIN)/python -m qwen2_audio.native.build || true

demo: setup  ## hear real clips with the bundled checkpoint: voice chat, analysis, batch
	$(BIN)/qwen2-audio demo

# A file's tests stay together, which share what they set up; tests/conftest.py puts the longest files first. One process
# more than there are processors, because tests wait for browsers and servers a third of their time.
PROCESSES = $$($(BIN)/python -c "import os; print((os.cpu_count() or 1) + 1)")
PYTEST = OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

test: setup  ## all tests
	$(PYTEST)

test-all: setup  ## and those that take long: 10,000 cases each, ten minutes of soak, 3000 examples of each property
	$(PYTEST) -m '' --hypothesis-profile exhaustive

MUTATION := cosmic-ray==8.7.0 parso==0.8.7 attrs==26.1.0  # of cosmic-ray only its operators, hence --no-deps

mutants: setup  ## small changes that break engine, loss mask, loss and inputs, one at a time: do the nearest tests notice?
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps $(MUTATION)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python tests/mutants.py

test-oldest: setup  ## the lowest versions that pyproject.toml admits, and no extras, in a fresh environment
	$(BIN)/python scripts/oldest_check.py

test-clients: setup  ## the clients that people have, in environments of their own, against a server
	$(BIN)/python scripts/clients_check.py

lint: setup  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

CSRC := $(wildcard csrc/*.h csrc/*.cpp csrc/check/*.cpp)

lint-kernels: $(VENV)/.installed  ## csrc/: clang-format, and no warning of g++ nor of clang++, as far as they are there
	! command -v clang-format >/dev/null || clang-format --dry-run --Werror $(CSRC)
	for compiler in g++ clang++; do ! command -v $$compiler >/dev/null || \
	    CXX=$$compiler QWEN2_AUDIO_WERROR=1 $(BIN)/python -m qwen2_audio.native.build build/$$compiler/libqwa.so || exit 1; done

sanitize: $(VENV)/.installed  ## csrc/ under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer
	$(BIN)/python scripts/sanitize_kernels.py

release-check: setup  ## source distribution -> wheel -> fresh environments -> the documented programs
	$(BIN)/python scripts/release_check.py

format: setup  ## let ruff and clang-format rewrite what they can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	! command -v clang-format >/dev/null || clang-format -i $(CSRC)

bench: setup  ## the kernels, then a random model of about 1 B parameters in int4 and fp32 next to transformers (16 GB, 30 minutes)
	$(BIN)/python -m benchmarks kernels --json bench-results/kernels.json --png bench-results/kernels.png
	$(BIN)/python -m benchmarks model --shape 1b --format int4,fp32 --json bench-results/model1b.json --png bench-results/model1b.png

nano: setup  ## train the bundled checkpoint from nothing
	$(BIN)/python -m recipes.nano

nano-eval: setup  ## what the bundled checkpoint hears, on sounds it never met
	$(BIN)/qwen2-audio eval run nano --bars --out runs/nano/report

clean:  ## the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .pytest_cache
