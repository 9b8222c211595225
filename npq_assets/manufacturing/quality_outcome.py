"""What alerts on units did cost once inspections landed, and what letting the others pass did.

An alert that was followed costs its inspection, whatever was found; a defect in a unit let pass costs the miss, unless a later
alert caught it while it waited. The naive rule is the account's: a share of all units is inspected, whichever they are. Who
never was inspected is not known: such an alert stays open. Units let pass share one account, of which some are known at best; the
others count with the probability that they were booked with, and the row is `expected`. If none of them is known, it stays open.
"""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl

from npq_assets.evaluation.ledger import EXPECTED, OBSERVED, book, ledgers, with_basis
from npq_assets.manufacturing.equipment_inputs import OPEN_DAYS, mart, midnight
from npq_assets.manufacturing.equipment_output import load
from npq_assets.settings import Home

# Inspections that land later change nothing.
_LOOKED_BACK = 45


def settle_quality(home: Home, known_to: date) -> dict[date, int]:
    """Fills in what alerts of days before `known_to` did cost, by inspections made before it opened; rows by as-of day.

    What is settled by expectation is priced again as long as further inspections may land.
    """
    settled: dict[date, int] = {}
    inspected: pl.DataFrame | None = None
    for as_of, place in ledgers(home):
        if as_of >= known_to or as_of < known_to - timedelta(days=_LOOKED_BACK):
            continue
        ledger = pl.read_parquet(place, hive_partitioning=False)
        unsure = pl.col("realized_cost").is_null() | (pl.col("basis") == EXPECTED)
        waiting = with_basis(ledger).filter((pl.col("kind") == "quality_alerts") & unsure)
        decision = load(home, as_of, "quality") if waiting.height else None
        if decision is None or decision.units.is_empty():
            continue
        if inspected is None:
            inspected = known_units(mart(home, "unit_quality"), known_to)
        outcome = realized_cost(
            decision.units,
            decision.facts["usually_inspected"],
            inspected,
            _alerted_later(home, as_of, known_to),
            left=as_of + timedelta(days=OPEN_DAYS) <= known_to,
        )
        same = ["decision_id", "realized_cost", "naive_realized_cost", "hindsight_cost", "basis"]
        news = outcome.join(waiting, on="decision_id", how="semi").join(
            waiting, on=same, how="anti", maintain_order="left"
        )
        if booked := book(place, ledger, news):
            settled[as_of] = booked
    return settled


def known_units(units: pl.DataFrame, known_to: date) -> pl.DataFrame:
    """Units inspected before a day opened: unit_id, is_defective.

    Args:
        units: The mart `unit_quality`: a row a unit and feature.
        known_to: The day.
    """
    opens = pl.lit(midnight(known_to)).dt.replace_time_zone("UTC")
    return (
        units.filter(pl.col("is_inspected") & (pl.col("inspected_at") < opens))
        .group_by("unit_id")
        .agg(pl.col("defect").is_not_null().any().cast(pl.Float64).alias("is_defective"))
        .sort("unit_id")
    )


def _alerted_later(home: Home, as_of: date, known_to: date) -> set[str]:
    """Units that decisions of the next days alerted: one that was let pass and waits is looked at again."""
    found: set[str] = set()
    for back in range(1, OPEN_DAYS):
        day = as_of + timedelta(days=back)
        decision = load(home, day, "quality") if day < known_to else None
        if decision is not None:
            found |= set(decision.alerts["unit_id"])
    return found


def realized_cost(
    units: pl.DataFrame, inspected_share: float, inspected: pl.DataFrame, alerted_later: set[str], *, left: bool
) -> pl.DataFrame:
    """What decisions about units did cost: decision_id and the ledger's columns of the outcome, of those that are known.

    Args:
        units: decision_id, unit_id, is_alerted, inspection_cost, miss_cost, booked_probability.
        inspected_share: Share of units that the naive rule inspects.
        inspected: unit_id, is_defective.
        alerted_later: Units of which a later alert asked for the inspection.
        left: Whether the units let pass have left the plant: before, none of them has cost anything.
    """
    rows = units.join(inspected, on="unit_id", how="left", maintain_order="left")
    known = pl.col("is_defective").is_not_null()
    rows = rows.filter(pl.when("is_alerted").then(known).otherwise(pl.lit(left)))
    defect = pl.coalesce("is_defective", "booked_probability")
    look, miss = pl.col("inspection_cost"), pl.col("miss_cost")
    looked_at = pl.col("is_alerted") | (pl.col("unit_id").is_in(list(alerted_later)) & known)
    naive = inspected_share * look + (1.0 - inspected_share) * defect * miss
    return (
        rows.group_by("decision_id")
        .agg(
            pl.when(looked_at).then(look).otherwise(defect * miss).sum().alias("realized_cost"),
            (defect * pl.min_horizontal(look, miss)).sum().alias("hindsight_cost"),
            naive.sum().alias("naive_realized_cost"),
            pl.when(known.all()).then(pl.lit(OBSERVED)).otherwise(pl.lit(EXPECTED)).alias("basis"),
            known.any().alias("known"),
        )
        .filter("known")
        .drop("known")
        .sort("decision_id")
    )
