"""Cost models and optimizations: functions from frames and arrays to plans with a proven bound (no Dagster)."""
