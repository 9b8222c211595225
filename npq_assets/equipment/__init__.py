"""Equipment health and quality: remaining life, failures, defects, control charts (no Dagster)."""
