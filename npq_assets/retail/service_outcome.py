"""What a week's staffing did cost once its requests came in, for the ledger.

A day's staffing plans seven days and answers for them as if it had been kept, though the next day plans anew: its people, the
naive rule's and the best in hindsight meet the requests that came, priced by the queue that priced the plan, from the terms that
are stored with it.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl

from npq_assets.evaluation.ledger import book, ledgers
from npq_assets.optimization import staffing
from npq_assets.retail.customer_output import load, load_facts
from npq_assets.retail.serving import DAYS, shift_hours
from npq_assets.settings import Home

# A week without any later request is taken to have landed after as many days more.
_GRACE = 7
_LOOKED_BACK = 45


def realized(plan: pl.DataFrame, terms: dict[str, Any], arrivals: np.ndarray) -> pl.DataFrame:
    """What the shifts of a plan did cost.

    Args:
        plan: decision_id, agents, naive_agents, by day and shift in order (shifts of the days planned).
        terms: The numbers that the plan was priced with; see `serving.plan_staff`.
        arrivals: Requests that came in, by hour of the days planned (DAYS * 24).

    Returns:
        decision_id, realized_cost, naive_realized_cost, hindsight_cost: the last shared as the realized cost is, since the best
        staffing has shifts of its own.
    """
    _, covers = shift_hours(terms["shifts"])
    problem = staffing.StaffingProblem(
        np.asarray(arrivals, float)[None, :],
        covers,
        covers.sum(axis=1) * terms["agent_cost_per_hour"],
        terms["answers_per_hour"],
        terms["waiting_cost"],
        most=terms["most"],
        waiting=terms["waiting"],
        left_cost=terms["left_cost"],
    )
    ours = staffing.price(problem, plan["agents"].to_numpy())
    naive = staffing.price(problem, plan["naive_agents"].to_numpy())
    total = float(ours.sum())
    best = min(staffing.solve(problem).objective, total)
    share = ours / total if total > 0 else np.full(len(ours), 1.0 / len(ours))
    return plan.select("decision_id").with_columns(
        pl.Series("realized_cost", ours),
        pl.Series("naive_realized_cost", naive),
        pl.Series("hindsight_cost", best * share),
    )


def came_in(cases: pl.DataFrame, as_of: date, upto: date) -> np.ndarray | None:
    """Requests by hour of the days planned as of a day (DAYS * 24); None unless all of them have landed.

    Args:
        cases: The mart: opened_on, opened_hour.
        as_of: The day.
        upto: The day that is decided for: days before it are over.
    """
    end = as_of + timedelta(days=DAYS)
    latest: Any = cases["opened_on"].max()
    if upto < end or latest is None or (latest < end - timedelta(days=1) and upto < end + timedelta(days=_GRACE)):
        return None
    week = cases.filter((pl.col("opened_on") >= as_of) & (pl.col("opened_on") < end))
    hour = (week["opened_on"] - as_of).dt.total_days() * 24 + week["opened_hour"]
    return np.bincount(hour.to_numpy().astype(int), minlength=DAYS * 24)


def settle_staffing(home: Home, upto: date) -> dict[date, int]:
    """Fills in what staffing of earlier days did cost, where its week is over; rows settled by as-of day."""
    settled: dict[date, int] = {}
    mart = home.mart("retail", "service_cases")
    if not mart.exists():
        return settled
    cases: pl.DataFrame | None = None
    for day, place in ledgers(home):
        if day + timedelta(days=DAYS) > upto or day < upto - timedelta(days=_LOOKED_BACK):
            continue
        ledger = pl.read_parquet(place, hive_partitioning=False)
        waiting = ledger.filter((pl.col("kind") == "service_staffing") & pl.col("realized_cost").is_null())
        if waiting.is_empty():
            continue
        plan, facts = load(home, day, "service_staffing"), load_facts(home, day, "service_staffing")
        if plan is None or facts is None or "terms" not in facts:
            continue
        cases = cases if cases is not None else pl.read_parquet(mart, columns=["opened_on", "opened_hour"])
        arrivals = came_in(cases, day, upto)
        if arrivals is None:
            continue
        outcome = realized(plan, facts["terms"], arrivals)
        outcome = outcome.filter(pl.col("decision_id").is_in(waiting["decision_id"].implode()))
        if booked := book(place, ledger, outcome):
            settled[day] = booked
    return settled
