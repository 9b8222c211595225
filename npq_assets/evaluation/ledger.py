"""The account of decisions: what each was expected to cost when taken, and what it did cost once reality arrived.

A replenishment order answers for one period, the one at whose opening it arrives: what it left over or lost there. Realized
and hindsight cost are facts about that period, priced by the cost object that priced the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from npq_assets.contracts import DECISIONS
from npq_assets.optimization.costs import InventoryCost

LEDGER = DECISIONS["all.ledger"]
PAIR = ["site_id", "product_id"]


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
        *[pl.lit(None, pl.Float64).alias(c) for c in ("realized_cost", "hindsight_cost", "naive_realized_cost")],
    ).sort("decision_id")


def realized(orders: pl.DataFrame, actual: pl.DataFrame) -> pl.DataFrame:
    """What orders did cost in the period they arrived in.

    Demand is known where the product was on the shelf all period; where it was not, the row stays open.

    Args:
        orders: decision_id, site_id, product_id, arrives_on, quantity, naive_quantity, holding_cost, shortage_cost,
            pack_size, min_order.
        actual: By site_id, product_id and arrives_on: available (units on the shelf at that opening, arrivals included),
            received (of these, units that arrived then), demand (units), known (whether demand is known).

    Returns:
        decision_id, realized_cost (with what was really there), naive_realized_cost and hindsight_cost (had the naive rule's,
        or the best, quantity arrived instead of what was received).
    """
    rows = orders.join(actual.filter(pl.col("known")), on=[*PAIR, "arrives_on"], how="inner").sort("decision_id")
    if rows.is_empty():
        return pl.DataFrame(
            schema={"decision_id": pl.String, "realized_cost": pl.Float64, "naive_realized_cost": pl.Float64,
                    "hindsight_cost": pl.Float64}
        )  # fmt: skip
    cost = InventoryCost.of(rows["holding_cost"].to_numpy(), rows["shortage_cost"].to_numpy())
    demand, available = rows["demand"].to_numpy(), rows["available"].to_numpy()
    without = np.maximum(available - rows["received"].to_numpy(), 0.0)
    pack = np.maximum(rows["pack_size"].to_numpy(), 1e-9)
    least = np.ceil(rows["min_order"].to_numpy() / pack - 1e-9)
    exact = np.maximum(demand - without, 0.0) / pack
    choices = np.stack([np.zeros_like(exact), np.floor(exact), np.ceil(exact)])
    choices = np.where((choices > 0) & (choices < least), least, choices)
    best = np.stack([cost.value(without + packs * pack, demand) for packs in choices]).min(axis=0)
    return rows.select("decision_id").with_columns(
        pl.Series("realized_cost", cost.value(available, demand)),
        pl.Series("naive_realized_cost", cost.value(without + rows["naive_quantity"].to_numpy(), demand)),
        pl.Series("hindsight_cost", best),
    )


def override_credit(overrides: pl.DataFrame, actual: pl.DataFrame) -> pl.DataFrame:
    """What planners' overrides earned or cost: the orders that they led to against those of the engine's own forecast.

    Both are priced on what really happened, by the cost object that priced the plan.

    Args:
        overrides: As `retail.plan.OVERRIDE_COLUMNS`: orders with engine_quantity beside quantity.
        actual: As for `realized`.

    Returns:
        decision_id, override_realized_cost, engine_realized_cost, hindsight_cost, demand, credit (the engine's cost less the
        override's: above 0 the planner earned money).
    """
    ours = realized(overrides.with_columns(pl.col("quantity").alias("naive_quantity")), actual)
    engine = realized(overrides.with_columns(pl.col("engine_quantity").alias("naive_quantity")), actual)
    demand = overrides.join(actual, on=[*PAIR, "arrives_on"], how="inner").select("decision_id", "demand")
    return (
        ours.select("decision_id", pl.col("naive_realized_cost").alias("override_realized_cost"), "hindsight_cost")
        .join(
            engine.select("decision_id", pl.col("naive_realized_cost").alias("engine_realized_cost")), on="decision_id"
        )
        .join(demand, on="decision_id")
        .with_columns((pl.col("engine_realized_cost") - pl.col("override_realized_cost")).alias("credit"))
        .sort("decision_id")
    )


def settle(ledger: pl.DataFrame, outcome: pl.DataFrame) -> pl.DataFrame:
    """The ledger with outcomes filled in; what is settled stays settled if the facts are no longer at hand."""
    names = ["realized_cost", "hindsight_cost", "naive_realized_cost"]
    joined = ledger.join(outcome.rename({n: f"new_{n}" for n in names}), on="decision_id", how="left")
    filled = joined.with_columns(pl.coalesce(f"new_{n}", n).alias(n) for n in names)
    return filled.select(list(LEDGER.schema)).sort("decision_id")
