"""Judging decisions by money: naive policies, replay over the past, the ledger, statistics (no Dagster)."""
