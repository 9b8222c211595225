"""npq: from the raw files of an industrial company to decisions with a price on them."""

import os

__version__ = "0.1.0"

# Nothing that runs here reports home. DuckDB, Dagster and dbt read these at import.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
os.environ.setdefault("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
