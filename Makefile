# One way to run each thing. Needs Python 3.11 or newer and the package registries, nothing else.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
HOME_DIR ?= .npq

export DAGSTER_DISABLE_TELEMETRY = 1
export DBT_SEND_ANONYMOUS_USAGE_STATS = false
export DO_NOT_TRACK = 1

.PHONY: setup demo test dev docs lint bench clean

# The environment: locked dependencies, the npq command, the dbt project parsed once.
setup: $(VENV)/.ready

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q $(VENV)/lib npq_assets || true
	$(BIN)/python -m npq_assets.warehouse
	touch $@

# The sample company through the whole graph, from landed files to priced decisions.
demo: setup
	$(BIN)/npq demo --home $(HOME_DIR)

test: setup
	$(BIN)/python -m pytest

# The Dagster UI on localhost, with schedules and sensors.
dev: setup
	NPQ_HOME=$(abspath $(HOME_DIR)) $(BIN)/npq dev --home $(HOME_DIR)

# dbt docs as one static page.
docs: setup
	$(BIN)/npq docs --home $(HOME_DIR)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/sqlfluff lint dbt_project/models

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(HOME_DIR) dbt_project/target dbt_project/logs build *.egg-info
