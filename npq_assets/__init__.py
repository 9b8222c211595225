"""npq: from the raw files of an industrial company to decisions with a price on them."""

import os

__version__ = "0.1.0"

# Nothing that runs here reports home. DuckDB, Dagster and dbt read these at import.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")

# On a shared machine, OpenMP threads that spin while they wait for a busy core cost more than they compute.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
