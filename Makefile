# Needs only Python >= 3.10 and make. Everything is installed into .venv; a second run installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EPOCHS ?= 30

.DELETE_ON_ERROR:
# Figures of asv_bench/peers/ that need no other library; OPTIONS=--help after one of them lists its options.
FIGURES := scaling alternation memory growth selection
.PHONY: help demo test lint bench peers overhead peak $(FIGURES) clean distclean

help:
	@echo "make demo    train LeNet-5 on handwritten digits into demo/ (about half a minute after installing)"
	@echo "make test    run the test suite"
	@echo "make lint    ruff and mypy"
	@echo "make bench   a quick run of the benchmarks (asv)"
	@echo "make peers   compare with PyTorch and ONNX Runtime (PEERS=--help for options), in .venv-peers"
	@echo "make peak, overhead, $(FIGURES): single figures, see CONTRIBUTING.md"
	@echo "make clean   delete what the above wrote, distclean deletes .venv too"

demo: $(VENV)/.train
	$(BIN)/fastconv train --model lenet5 --data digits --epochs $(EPOCHS) --out demo

test: $(VENV)/.test
	$(BIN)/pytest -n auto --maxprocesses 4

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	cd asv_bench && ../$(BIN)/asv machine --yes && ../$(BIN)/asv run --quick --show-stderr 'HEAD^!'

# The direct kernels' share of the measured multiply-add peak on the catalogue's large 3x3 layers.
peak: $(VENV)/.bench
	$(BIN)/fastconv bench --algorithm direct --layer 3x3 --layout NCHW $(OPTIONS)
	$(BIN)/fastconv bench --algorithm direct --layer 3x3 --layout NHWC $(OPTIONS)

$(FIGURES): $(VENV)/.bench
	$(BIN)/python asv_bench/peers/$@.py $(OPTIONS)

clean:
	rm -rf demo peers.json peers.png growth.png build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf asv_bench/env asv_bench/results asv_bench/html
	find fastconv src_kernels tests asv_bench -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-peers

# The installs are editable, so that a stamp depends on pyproject.toml alone and never on the sources.
$(VENV)/.train $(VENV)/.test $(VENV)/.dev $(VENV)/.bench: $(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "fastconv needs Python 3.10 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# For Linux, PyPI has PyTorch with CUDA's libraries only (gigabytes, of no effect here); its own index,
# which TORCH_INDEX can name, has the CPU builds.
PEER_LIBRARIES := torch==2.13.0 onnxruntime onnx matplotlib

peers: .venv-peers/.installed
	.venv-peers/bin/python asv_bench/peers/compare.py $(PEERS)

overhead: .venv-peers/.installed
	.venv-peers/bin/python asv_bench/peers/compare.py --overhead $(PEERS)

.venv-peers/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --editable . $(PEER_LIBRARIES) \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@
