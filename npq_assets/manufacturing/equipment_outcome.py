"""What decisions about components did cost once their week has passed: replacements and failures at the plan's own prices.

A plan answers for its horizon, with what the plant did under it and under those that replaced it.
"""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from npq_assets.equipment.maintenance import HORIZON
from npq_assets.evaluation.ledger import book, ledgers
from npq_assets.manufacturing.equipment_inputs import mart
from npq_assets.manufacturing.equipment_output import load
from npq_assets.settings import Home


def settle_maintenance(home: Home, known_to: date) -> dict[date, int]:
    """Fills in what maintenance plans did cost whose week ended before `known_to` opened; settled rows by as-of day."""
    settled: dict[date, int] = {}
    for as_of, place in ledgers(home):
        if as_of + timedelta(days=HORIZON) > known_to:
            continue
        ledger = pl.read_parquet(place, hive_partitioning=False)
        waiting = ledger.filter((pl.col("kind") == "maintenance_plan") & pl.col("realized_cost").is_null())
        decision = load(home, as_of, "maintenance") if waiting.height else None
        if decision is None:
            continue
        rows = realized_cost(mart(home, "component_life"), decision.accounts, as_of).join(
            waiting.select("decision_id"), on="decision_id", how="semi"
        )
        if booked := book(place, ledger, rows):
            settled[as_of] = booked
    return settled


def realized_cost(lives: pl.DataFrame, accounts: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """What happened to every component of a plan within its week: decision_id and the ledger's columns of the outcome.

    What another rule would have paid is not known: a part that was replaced in time cannot fail any more.

    Args:
        lives: The mart `component_life`.
        accounts: machine_id, component, decision_id, planned_price, failure_price.
        as_of: First day of the week.
    """
    ended = (
        lives.filter(pl.col("ended_on").is_between(as_of, as_of + timedelta(days=HORIZON), closed="left"))
        .group_by("machine_id", "component")
        .agg(
            (pl.col("ended_by") == "planned").sum().alias("planned"),
            (pl.col("ended_by") == "failure").sum().alias("failed"),
        )
    )
    return accounts.join(ended, on=["machine_id", "component"], how="left", maintain_order="left").select(
        "decision_id",
        (
            pl.col("planned").fill_null(0) * pl.col("planned_price")
            + pl.col("failed").fill_null(0) * pl.col("failure_price")
        ).alias("realized_cost"),
        pl.lit(None, pl.Float64).alias("hindsight_cost"),
        pl.lit(None, pl.Float64).alias("naive_realized_cost"),
    )
