"""The Dagster code location."""

from npq_assets.build import build_defs

defs = build_defs()
