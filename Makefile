# Everything runs from .venv in this directory: nothing to activate, nothing on PATH.
# `make help` lists the targets.

VENV       := .venv
ORACLES    := .venv-oracles
PY         := $(VENV)/bin/python
DEMO       := boards.demo
UV_VERSION := 0.13.9

# The tests of `make test`. The last -m counts: PYTEST_ARGS='-n 0 -m icarus -k lif' works.
FAST        := not slow and not oracle
PYTEST_ARGS ?= -n 2 --dist worksteal

# torch's CPU build (CPython 3.11, Linux x86_64) is published apart from the default builds:
# `make lock` adds this line by hand, and pip has to be shown the wheel in its configuration
# (extra-index-url or find-links).
TORCH_CPU := torch==2.13.0+cpu ; sys_platform == 'linux' and platform_machine == 'x86_64'
TORCH_CPU_HASH := 6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help env oracles lint test test-all demo bitstreams bench table lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

# Is the environment $(1) what the lock $(2) says? Its stamp is a copy of the lock, and of
# the directory it was made in: scripts in an environment hold their absolute path.
stamp   = { echo '$(CURDIR)'; cat $(2); }
current = { $(call stamp,$(1),$(2)) | cmp -s - $(1)/.installed && [ -x $(1)/bin/python ]; }

# Make the environment $(1) from the lock $(2), then run $(3). The stamp is written last,
# and what has none is made anew, so an interrupted installation is never taken for a whole
# one. flock (where there is one) keeps two makes in one directory apart.
define make_venv
if ! $(call current,$(1),$(2)); then \
	( set -e; \
	if command -v flock >/dev/null && ! flock -n 9; then \
	    echo "Waiting for another make that prepares $(1)"; flock 9; \
	fi; \
	if $(call current,$(1),$(2)); then exit 0; fi; \
	python=; \
	for p in $(PYTHON) python3.11 python3; do \
	    if "$$p" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
	        >/dev/null 2>&1; then python=$$p; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "error: no Python 3.11 or newer with venv: install python3 and python3-venv," \
	        "or say make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	for tool in g++ perl; do \
	    if ! command -v $$tool >/dev/null; then \
	        echo "error: $$tool is missing, and Verilator needs it: install $$tool" >&2; exit 1; \
	    fi; \
	done; \
	echo "Creating $(1) ($$("$$python" --version))"; \
	rm -rf $(1); \
	"$$python" -m venv $(1); \
	echo "Installing $$(grep -c == $(2)) packages from $(2)"; \
	$(1)/bin/python -m pip install -qq --disable-pip-version-check --no-input --no-deps \
	    --only-binary :all: --require-hashes -r $(2) </dev/null; \
	$(3); \
	$(call stamp,$(1),$(2)) >$(1)/.installed.new; \
	mv $(1)/.installed.new $(1)/.installed; \
	echo "$(1) is ready" \
	) 9>$(1).lock; \
fi
endef

# The first run of each of these compiles it, into a cache that is not safe to fill from
# two processes at once. icepack and icepll print their help with exit status 1.
define warm
$(PY) -m pip check --disable-pip-version-check >/dev/null || { $(PY) -m pip check; exit 1; }; \
echo "Preparing the synthesis tools (a minute or two the first time)"; \
for command in "yosys -V" "nextpnr-ice40 --version" "nextpnr-ecp5 --version" \
    "nextpnr-himbaechel-gowin --version" \
    "icepack -h" "icepll -h" "ecppack --help" "ecppll --help"; do \
    $(VENV)/bin/yowasp-$$command </dev/null >$(VENV)/warm.log 2>&1 || \
        grep -q '^Usage: yowasp-' $(VENV)/warm.log || { \
        cat $(VENV)/warm.log >&2; \
        echo "error: yowasp-$$command does not run" >&2; exit 1; \
    }; \
done
endef

define try_oracles
$(ORACLES)/bin/python -W ignore -c "import torch, snntorch; \
from spikingjelly.activation_based import neuron; \
x = torch.tensor([2.5, 0.5]); neuron.LIFNode()(x); snntorch.Leaky(beta=0.5)(x)" \
    >$(ORACLES)/try.log 2>&1 || { \
    cat $(ORACLES)/try.log >&2; echo "error: the oracles do not start" >&2; exit 1; \
}
endef

env: ## Make .venv: Python packages and tools, as locked
	@$(call make_venv,$(VENV),requirements.lock,$(warm))

oracles: ## Make .venv-oracles: torch and the reference implementations
	@$(call make_venv,$(ORACLES),requirements-oracles.lock,$(try_oracles))

lint: env ## Style, format and types
	@echo "Checking style, format and types"
	@$(PY) -m ruff check -q .
	@$(PY) -m ruff format -q --check . || { $(PY) -m ruff format --check .; exit 1; }
	@$(PY) -m mypy --no-error-summary

# Runs pytest on the tests that the marker expression $(1) takes.
define pytest
@marks='$(1)'; \
if ! command -v iverilog >/dev/null; then \
    echo "Icarus Verilog (iverilog) is missing: the tests marked 'icarus' are left out."; \
    echo "To run them: apt-get install iverilog (Debian, Ubuntu) or brew install icarus-verilog"; \
    marks="$${marks:+$$marks and }not icarus"; \
fi; \
echo "Running the tests"; \
$(PY) -m pytest -m "$$marks" $(PYTEST_ARGS)
endef

test: env lint ## The test suite (PYTEST_ARGS='-n 2 --dist worksteal' by default)
	$(call pytest,$(FAST))

test-all: env oracles lint ## Every test: also the slow ones and those against torch
	$(call pytest,)

demo: env ## Verilog of every top, RTL against golden, a bitstream, a report
	@$(PY) -m $(DEMO)

bitstreams: env ## Every top for every board; what is there already is kept
	@$(PY) -m boards.every

bench: env ## Measure sizes, clock rates, error and CPU times, and draw them
	@$(PY) -m bench
	@$(PY) -m bench.attention_error
	@$(PY) -m bench.cpu_attention
	@$(PY) -m bench.activity
	@$(PY) -m bench.energy
	@$(PY) -m bench.pareto
	@$(PY) -m bench.growth

table: env ## Write the tables of the READMEs from the measured results
	@$(PY) -m bench.table

# uv resolves for one Python and platform whatever runs it, and reads no pip configuration:
# the hashes are those of the public index.
lock: ## Resolve the requirements*.in files anew into *.lock
	@echo "Preparing uv $(UV_VERSION)"
	@set -e; python=; for p in $(PYTHON) python3.11 python3; do \
	    if "$$p" -c 'import venv' 2>/dev/null; then python=$$p; break; fi; done; \
	rm -rf build/lock; "$$python" -m venv build/lock; \
	build/lock/bin/python -m pip install -qq --disable-pip-version-check uv==$(UV_VERSION)
	@set -e; for name in requirements requirements-oracles; do \
	    echo "Resolving $$name.in"; \
	    if [ $$name = requirements ]; then \
	        flags="--python-platform x86_64-manylinux_2_28"; \
	    else \
	        flags="--no-deps --universal"; \
	    fi; \
	    build/lock/bin/uv pip compile -q --no-config --generate-hashes --upgrade $$flags \
	        --python-version 3.11 --custom-compile-command "make lock" \
	        -o build/lock/$$name.lock $$name.in; \
	done
	@printf '%s \\\n    --hash=sha256:%s\n    # the CPU build: see the Makefile\n' \
	    "$(TORCH_CPU)" $(TORCH_CPU_HASH) >>build/lock/requirements-oracles.lock
	@mv build/lock/requirements.lock build/lock/requirements-oracles.lock .
	@echo "Wrote requirements.lock and requirements-oracles.lock"

clean: ## Remove what was made, the environments too
	@rm -rf $(VENV) $(ORACLES) $(VENV).lock $(ORACLES).lock build sim_build results.xml \
	    .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
