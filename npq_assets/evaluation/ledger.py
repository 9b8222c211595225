"""The account of decisions: what each was expected to cost when taken, and what it did cost once reality arrived.

A replenishment order answers for one period, the one at whose opening it arrives: what it left over or lost there. Realized
and hindsight cost are facts about that period, priced by the cost object that priced the plan. Where the product ran out, demand
is not a fact: it was at least what was sold. Such orders are priced by expectation, with the forecast that they were decided on
given that bound, and marked: left open, the costliest orders would never settle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from npq_assets.contracts import DECISIONS
from npq_assets.optimization.costs import InventoryCost
from npq_assets.settings import Home
from npq_assets.storage import write_csv_for_people, write_parquet

LEDGER = DECISIONS["all.ledger"]
PAIR = ["site_id", "product_id"]
OUTCOME = ["realized_cost", "hindsight_cost", "naive_realized_cost", "basis"]
OBSERVED, EXPECTED = "observed", "expected"
FEWEST = 5
"""Scenarios that an expectation is taken over at least; see `realized`."""

Array = NDArray[np.float64]
_PRICED = {
    "decision_id": pl.String,
    "realized_cost": pl.Float64,
    "naive_realized_cost": pl.Float64,
    "hindsight_cost": pl.Float64,
    "basis": pl.String,
    "demand": pl.Float64,
}


def decision_id(as_of: date, domain: str, kind: str, key: Sequence[str], input_snapshot: str) -> str:
    """Identifies a decision: the same day, subject and inputs give the same id in any run."""
    text = "\x1f".join([as_of.isoformat(), domain, kind, *key, input_snapshot])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def ledger_rows(domain: str, kind: str, decisions: pl.DataFrame, facts: dict[str, Any]) -> pl.DataFrame:
    """Opens the account of a day's decisions.

    Args:
        domain: System that decided.
        kind: Decision table.
        decisions: decision_id, as_of, expected_cost, naive_expected_cost, lower_bound, input_snapshot.
        facts: solver, status, model_version.
    """
    cost, bound = pl.col("expected_cost"), pl.col("lower_bound")
    gap = ((cost - bound) / cost.abs().clip(lower_bound=1e-9)).clip(lower_bound=0.0)
    return decisions.select(
        "decision_id",
        pl.lit(domain).alias("domain"),
        pl.lit(kind).alias("kind"),
        pl.col("as_of").alias("decided_at"),
        cost,
        pl.col("naive_expected_cost").alias("naive_cost"),
        bound,
        pl.when(cost > 0).then(gap).otherwise(0.0).alias("gap"),
        pl.lit(facts["solver"]).alias("solver"),
        pl.lit(facts["status"]).alias("status"),
        pl.lit(facts["model_version"]).alias("model_version"),
        "input_snapshot",
        *[pl.lit(None, LEDGER.schema[c]).alias(c) for c in OUTCOME],
    ).sort("decision_id")


def realized(orders: pl.DataFrame, actual: pl.DataFrame, scenarios: pl.DataFrame | None = None) -> pl.DataFrame:
    """What orders did cost in the period they arrived in.

    Demand is what was sold where the product was on the shelf all period. Where it ran out, cost is the mean over the scenarios
    in which at least that much was wanted; sold are then what was there to be sold, and units counted beyond that lay there
    unsold under any order. If fewer than five such scenarios remain, the highest of the others count as wanting just what was
    sold, up to five: the forecast was too low, and the cost is then the least it can have been for these. A shelf that stood empty
    all period and sold nothing bounds nothing, so that all scenarios count. Without scenarios the row stays open.

    Args:
        orders: decision_id, site_id, product_id, arrives_on, quantity, naive_quantity, holding_cost, shortage_cost,
            pack_size, min_order.
        actual: By site_id, product_id and arrives_on: available (units on the shelf at that opening, arrivals included),
            received (of these, units that arrived then), demand (units; sold, if it ran out), known (whether it never ran out).
        scenarios: decision_id, demand (array of S: units in the arrival period, as forecast when deciding).

    Returns:
        decision_id, realized_cost (with what was really there), naive_realized_cost and hindsight_cost (had the naive rule's,
        or the best, quantity arrived instead of what was received; by expectation, the best for each scenario, what was received
        being one of the choices), basis (`observed` or `expected`).
    """
    return _outcome(orders, actual, scenarios).drop("demand")


def _outcome(orders: pl.DataFrame, actual: pl.DataFrame, scenarios: pl.DataFrame | None) -> pl.DataFrame:
    """As `realized`, and demand: what was wanted, or is expected to have been."""
    rows = orders.join(actual, on=[*PAIR, "arrives_on"], how="inner").sort("decision_id")
    parts = [pl.DataFrame(schema=_PRICED)]
    seen = rows.filter(pl.col("known"))
    if seen.height:
        demand = seen["demand"].to_numpy()[:, None].astype(float)
        parts.append(_priced(seen, demand, np.ones_like(demand), OBSERVED))
    hidden = rows.filter(~pl.col("known"))
    if hidden.height and scenarios is not None:
        hidden = hidden.join(scenarios.rename({"demand": "draws"}), on="decision_id", how="inner").sort("decision_id")
        if hidden.height:
            demand, weight = given_sold(hidden["draws"].to_numpy(), hidden["demand"].to_numpy())
            parts.append(_priced(hidden, demand, weight, EXPECTED))
    return pl.concat(parts).sort("decision_id")


def given_sold(draws: Array, sold: Array) -> tuple[Array, Array]:
    """Scenarios of demand given that at least `sold` was wanted, never below it.

    Args:
        draws: Scenarios (n, S).
        sold: Units sold before the shelf was empty (n).

    Returns:
        Demand (n, S) and whether each counts, 0 or 1 (n, S); at least five do, as far as there are so many.
    """
    bound = np.asarray(sold, float)[:, None]
    draws = np.asarray(draws, float)
    rank = np.argsort(np.argsort(-draws, axis=1, kind="stable"), axis=1, kind="stable")
    counts = (draws >= bound - 1e-6) | (rank < FEWEST)
    return np.maximum(draws, bound), counts.astype(float)


def _priced(rows: pl.DataFrame, demand: Array, weight: Array, basis: str) -> pl.DataFrame:
    """Rows of orders and actuals priced on demand (n, S), averaged by weight (n, S)."""
    cost = InventoryCost.of(rows["holding_cost"].to_numpy(), rows["shortage_cost"].to_numpy())
    available, received = rows["available"].to_numpy().astype(float), rows["received"].to_numpy().astype(float)
    lay = np.zeros_like(available)
    if basis == EXPECTED:
        lay = np.maximum(available - rows["demand"].to_numpy(), 0.0)
        available = available - lay
        received = np.minimum(received, available)
    without = np.maximum(available - received, 0.0)[:, None]
    pack = np.maximum(rows["pack_size"].to_numpy().astype(float), 1e-9)[:, None]
    least = np.ceil(rows["min_order"].to_numpy().astype(float)[:, None] / pack - 1e-9)
    exact = np.maximum(demand - without, 0.0) / pack
    choices = np.stack([np.zeros_like(exact), np.floor(exact), np.ceil(exact)])
    choices = np.where((choices > 0) & (choices < least), least, choices)
    best = np.stack([cost.value(without + packs * pack, demand) for packs in choices]).min(axis=0)
    ours = cost.value(available[:, None], demand)
    if basis == EXPECTED:
        best = np.minimum(best, ours)
    naive = cost.value(without + rows["naive_quantity"].to_numpy()[:, None], demand)
    held = cost.holding.value(lay)

    def mean(values: Array) -> Array:
        total: Array = (values * weight).sum(axis=1) / weight.sum(axis=1)
        return total

    return rows.select("decision_id").with_columns(
        pl.Series("realized_cost", mean(ours) + held),
        pl.Series("naive_realized_cost", mean(naive) + held),
        pl.Series("hindsight_cost", mean(best) + held),
        pl.lit(basis).alias("basis"),
        pl.Series("demand", mean(demand)),
    )


def override_credit(
    overrides: pl.DataFrame, actual: pl.DataFrame, scenarios: pl.DataFrame | None = None
) -> pl.DataFrame:
    """What planners' overrides earned or cost: the orders that they led to against those of the engine's own forecast.

    Both are priced on what really happened, by the cost object that priced the plan. Where the product ran out, both are priced
    on the same scenarios, the planner's and the engine's together, that wanted at least what was sold: each side's word counts
    by how likely it made that.

    Args:
        overrides: As `retail.plan.OVERRIDE_COLUMNS`: orders with engine_quantity beside quantity.
        actual: As for `realized`.
        scenarios: As for `realized`; as many of the engine's as with the override.

    Returns:
        decision_id, override_realized_cost, engine_realized_cost, hindsight_cost, basis, demand, credit (the engine's cost less
        the override's: above 0 the planner earned money).
    """
    ours = _outcome(overrides.with_columns(pl.col("quantity").alias("naive_quantity")), actual, scenarios)
    engine = _outcome(overrides.with_columns(pl.col("engine_quantity").alias("naive_quantity")), actual, scenarios)
    return (
        ours.select(
            "decision_id", pl.col("naive_realized_cost").alias("override_realized_cost"), "hindsight_cost", "basis"
        )
        .join(
            engine.select("decision_id", pl.col("naive_realized_cost").alias("engine_realized_cost"), "demand"),
            on="decision_id",
        )
        .with_columns((pl.col("engine_realized_cost") - pl.col("override_realized_cost")).alias("credit"))
        .sort("decision_id")
    )


def with_basis(ledger: pl.DataFrame) -> pl.DataFrame:
    """The ledger with `basis`, also of a file written before there was one: what had settled by then was observed."""
    basis = pl.col("basis") if "basis" in ledger.columns else pl.lit(None, pl.String)
    settled = pl.when(pl.col("realized_cost").is_not_null())
    return ledger.with_columns(settled.then(pl.coalesce(basis, pl.lit(OBSERVED))).alias("basis"))


def settle(ledger: pl.DataFrame, outcome: pl.DataFrame) -> pl.DataFrame:
    """The ledger with outcomes filled in; what is settled stays settled if the facts are no longer at hand.

    Args:
        ledger: A day's ledger, of any age.
        outcome: decision_id, realized_cost, hindsight_cost, naive_realized_cost, and basis unless all of it was observed.
    """
    found = with_basis(outcome).select("decision_id", *[pl.col(n).alias(f"new_{n}") for n in OUTCOME])
    joined = with_basis(ledger).join(found, on="decision_id", how="left")
    filled = joined.with_columns(pl.coalesce(f"new_{n}", n).alias(n) for n in OUTCOME)
    return filled.select(list(LEDGER.schema)).sort("decision_id")


def ledgers(home: Home) -> list[tuple[date, Path]]:
    """As-of days that have a ledger, in order, and where it lies."""
    places = sorted(home.decision_folder(LEDGER.domain, LEDGER.name).glob("as_of=*/*.parquet"))
    return [(date.fromisoformat(place.parent.name.removeprefix("as_of=")), place) for place in places]


def book(place: Path, ledger: pl.DataFrame, outcome: pl.DataFrame) -> int:
    """Writes a day's ledger with outcomes filled in (see `settle`), also as CSV; returns how many there are."""
    if outcome.height:
        filled = settle(ledger, outcome)
        write_parquet(filled, place)
        write_csv_for_people(filled, place.with_suffix(".csv"))
    return outcome.height
