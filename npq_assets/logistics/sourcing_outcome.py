"""What sourcing did cost once its week was driven, for the ledger.

A day's sourcing decides for the seven days after it, as its demand does, and answers for what moved in them under it and those that
replaced it, priced with the terms that are stored with its plan. Only what goes to sites is seen (deliveries and their trips); what
moved between plants and warehouses counts as the cheapest that could have fed it.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from npq_assets.evaluation.ledger import book, ledgers
from npq_assets.logistics.marts import opening
from npq_assets.logistics.output import load_plan, load_terms
from npq_assets.optimization import network_flow
from npq_assets.settings import Home

_WEEK = 7
# Days after the week that its trips may still land.
_GRACE = 2
_LOOKED_BACK = 45


def settle_sourcing(home: Home, upto: date) -> dict[date, int]:
    """Fills in what sourcing of earlier days did cost, where its week has landed; rows settled by as-of day."""
    settled: dict[date, int] = {}
    places = [home.mart("logistics", name) for name in ("legs", "deliveries")]
    if not all(place.exists() for place in places):
        return settled
    marts: list[pl.DataFrame] = []
    for day, place in ledgers(home):
        if day + timedelta(days=_WEEK + _GRACE) >= upto or day < upto - timedelta(days=_LOOKED_BACK):
            continue
        ledger = pl.read_parquet(place, hive_partitioning=False)
        waiting = ledger.filter(
            (pl.col("domain") == "logistics") & (pl.col("kind") == "sourcing") & pl.col("realized_cost").is_null()
        )
        terms = load_terms(home, day) if waiting.height else None
        plan = load_plan(home, day) if terms is not None else None
        if plan is None or terms is None:
            continue
        marts = marts or [pl.read_parquet(p) for p in places]
        legs, deliveries = marts
        week = landed(deliveries, legs.filter(pl.col("arrived_at") < opening(upto)), day)
        if week is None:
            continue
        outcome = realized(plan[0]["sourcing"], terms, week)
        outcome = outcome.filter(pl.col("decision_id").is_in(waiting["decision_id"].implode()))
        if booked := book(place, ledger, outcome):
            settled[day] = booked
    return settled


def landed(deliveries: pl.DataFrame, legs: pl.DataFrame, as_of: date) -> pl.DataFrame | None:
    """What sites asked for and got in the seven days after a day; None unless all of it has landed.

    It has not if no delivery is known of the week's last day or later, if no trip landed of a day that has deliveries, or none of a
    depot that has some.

    Args:
        deliveries: The mart.
        legs: The mart, as far as it is known.
        as_of: The day.

    Returns:
        site_id, source_id (the depot), needed (units asked for, or handed over if that was more), moved (units handed over).
    """
    first, end = opening(as_of + timedelta(days=1)), opening(as_of + timedelta(days=_WEEK + 1))
    latest: Any = deliveries["ready_at"].max()
    week = deliveries.drop_nulls("site_id").filter((pl.col("ready_at") >= first) & (pl.col("ready_at") < end))
    if week.is_empty() or latest < end - timedelta(days=1):
        return None
    got = legs.group_by("delivery_id").agg(
        pl.col("delivered_quantity").fill_null(pl.col("quantity")).sum().alias("got")
    )
    week = week.join(got, on="delivery_id", how="left")
    heard = pl.col("got").is_not_null().any()
    for key in (pl.col("ready_at").dt.date().alias("day"), pl.col("depot_id")):
        if not week.group_by(key).agg(heard.alias("heard"))["heard"].all():
            return None
    moved = pl.col("got").fill_null(0.0)
    return (
        week.group_by("site_id", pl.col("depot_id").alias("source_id"))
        .agg(pl.max_horizontal(pl.col("quantity"), moved).sum().alias("needed"), moved.sum().alias("moved"))
        .sort("site_id", "source_id")
    )


def realized(rows: pl.DataFrame, terms: dict[str, pl.DataFrame], week: pl.DataFrame) -> pl.DataFrame:
    """What a plan's rows did cost: they add up to the cost of all flows, as those that were expected do.

    Carrying and handling is shared by load, as the plan shares it; what a site asked for and did not get is priced at the plan's
    shortage cost and is its own. Flows from a source that the plan has no row for go to the largest row of the site. The naive
    rule's flows and the best (the linear program) are those for what was really asked for, under limits raised to what was shown to
    be possible; their cost is shared by need and by realized cost. A site that got something by no lane of the terms cannot be
    priced: its rows are left out, and its goods out of all three.

    Args:
        rows: decision_id, site_id, source_id, quantity: the plan's.
        terms: The plan's; see `plan.RoutePlan`.
        week: As `landed` gives it.

    Returns:
        decision_id, realized_cost, naive_realized_cost, hindsight_cost.
    """
    lanes = terms["lanes"].sort("from_id", "to_id")
    known = lanes.select(pl.col("from_id").alias("source_id"), pl.col("to_id").alias("site_id"))
    strange = week.filter(pl.col("moved") > 0).join(known, on=["source_id", "site_id"], how="anti")["site_id"].unique()
    asked = (
        week.group_by("site_id")
        .agg(pl.col("needed").sum(), pl.col("moved").sum())
        .with_columns((pl.col("needed") - pl.col("moved")).clip(lower_bound=0.0).alias("short"))
    )
    demand = (
        terms["demand"]
        .filter(~pl.col("site_id").is_in(strange.implode()))
        .join(asked, on="site_id", how="left", maintain_order="left")
        .with_columns(pl.col("needed", "moved", "short").fill_null(0.0))
        .with_columns(pl.col("needed").alias("quantity"))
    )
    ours = rows.join(demand.select("site_id", "short", "shortage_cost"), on="site_id").sort("decision_id")
    if ours.is_empty():
        return _frame(ours, np.zeros(0), np.zeros(0), np.zeros(0))
    sites, sources = demand["site_id"], terms["sources"]["source_id"]
    lanes = lanes.filter(pl.col("to_id").is_in(sites.implode()) | pl.col("to_id").is_in(sources.implode()))
    moved = week.select(pl.col("source_id").alias("from_id"), pl.col("site_id").alias("to_id"), "moved")
    flow = lanes.join(moved, on=["from_id", "to_id"], how="left", maintain_order="left")["moved"].fill_null(0.0)
    problem = network_flow.FlowProblem(terms["sources"], lanes, demand.select("site_id", "quantity", "shortage_cost"))
    shown, flows = network_flow.completed(problem, flow.to_numpy())
    short = demand["short"].to_numpy()
    total = network_flow.price(problem, lanes, flows, short)
    naive = network_flow.price(
        problem,
        lanes,
        *network_flow.nearest(shown, lanes.filter(pl.col("to_id").is_in(sites.implode())).drop_nulls("km")),
    )
    best = min(network_flow.solve(shown, single_source=False).objective, total)
    lacking = demand["shortage_cost"].to_numpy() * short
    # The largest row of a site owns what has no row, and what is lacking.
    owner = (
        ours.sort(["quantity", "decision_id"], descending=[True, False])
        .unique("site_id", keep="first", maintain_order=True)
        .select("site_id", pl.col("decision_id").alias("owner"))
    )
    carried = (
        week.join(owner, on="site_id")
        .join(rows.select("site_id", "source_id", "decision_id"), on=["site_id", "source_id"], how="left")
        .group_by(pl.coalesce("decision_id", "owner").alias("decision_id"))
        .agg(pl.col("moved").sum())
    )
    by_row = (
        ours.join(carried, on="decision_id", how="left", maintain_order="left")
        .join(owner.with_columns(pl.col("owner").alias("decision_id")), on=["site_id", "decision_id"], how="left",
              maintain_order="left")
        .with_columns(
            pl.col("moved").fill_null(0.0),
            pl.when(pl.col("owner").is_not_null()).then("short").otherwise(0.0).alias("short"),
        )
    )  # fmt: skip
    load, lacks = by_row["moved"].to_numpy(), by_row["short"].to_numpy()
    own = (total - float(lacking.sum())) * _share(load) + by_row["shortage_cost"].to_numpy() * lacks
    return _frame(
        by_row, own, naive * _share(load + lacks), best * (_share(own) if total > 0 else _share(load + lacks))
    )


def _share(amount: np.ndarray) -> np.ndarray:
    total = float(amount.sum())
    return amount / total if total > 0 else np.zeros_like(amount)


def _frame(rows: pl.DataFrame, own: np.ndarray, naive: np.ndarray, best: np.ndarray) -> pl.DataFrame:
    return rows.select("decision_id").with_columns(
        pl.Series("realized_cost", own, dtype=pl.Float64),
        pl.Series("naive_realized_cost", naive, dtype=pl.Float64),
        pl.Series("hindsight_cost", best, dtype=pl.Float64),
    )
